// The task node: puts a dataset on a SCALE node, has the node show that it holds
// it, and says so in a line for K2.

import { randomBytes } from 'node:crypto';

import { checkChallenge, formatSubmission } from './audit.js';
import { cidText, keyText, Refused } from './bytes.js';
import { challenge } from './challenge.js';
import { PROFILE } from './chunk.js';
import { runScript, UsageError } from './cli.js';
import { Commitment } from './commitment.js';
import { send } from './node.js';
import { putMessages } from './tree.js';

const USAGE = `usage: node task.js NAME [PATH] --key LOGKEY [--seed HEX] [--samples N] [--curator KEY]

Puts the file or directory PATH under NAME; without PATH takes what is stored under
NAME. Asks the node for N samples (50) that the seed determines (32 random bytes), verifies
them, and prints the submission for K2.

LOGKEY is the log's public key, or a file with it. SCALE_NODE is the node's address
(127.0.0.1:7070), SCALE_TOKEN a token of the scope write, SCALE_NODE_CA a file with the
authorities of the node's certificate, if not those of the system.`;

// put streams a file or directory to the node, and returns the dataset that it
// recorded and what this has to commit to.
export async function put(node, name, path) {
  const own = new Commitment();
  async function* messages() {
    for await (const message of putMessages(name, path, PROFILE)) {
      own.add(message);
      yield message;
    }
  }
  const { result } = await send(node.datasets, 'put', messages());
  return { ...result, own: own.end() };
}

// checkOwn refuses an entry that the node has made of other data than was put.
function checkOwn(entry, own, name) {
  const same = ['leaves', 'size', 'files'].every((field) => entry[field] === own[field]);
  if (!same || !entry.commitment.equals(own.commitment) || entry.name !== name || entry.profile !== PROFILE) {
    throw new Refused('data', 'the node has recorded something else than what was put');
  }
}

// perform is the task: it returns the submission, and what it stands for.
export async function perform(node, { name, path, seed, count, trust }) {
  checkChallenge({ seed, count });
  const stored = path === undefined ? null : await put(node, name, path);
  // By its entry: meanwhile somebody else may put under the same name.
  const ref = stored ? `:${stored.dataset.entry}` : name;
  const result = await challenge(node, ref, { seed, count }, trust);
  if (stored) checkOwn(result.entry, stored.own, name);
  return { ...result, line: formatSubmission(result.submission), unchanged: stored?.unchanged };
}

const options = { seed: { type: 'string' }, samples: { type: 'string' } };

await runScript(import.meta.url, USAGE, { min: 1, max: 2, options }, async (node, trust, { values, positionals }) => {
  const [name, path] = positionals;
  const { seed: hex, samples = '50' } = values;
  if (!/^\d+$/.test(samples)) throw new UsageError('--samples: not a number');
  if (!/^([0-9a-f]{2})*$/.test(hex ?? '')) throw new UsageError('--seed: not pairs of hexadecimal digits');
  const seed = hex === undefined ? randomBytes(32) : Buffer.from(hex, 'hex');
  const { entry, index, line, unchanged } = await perform(node, { name, path, seed, count: Number(samples), trust });
  if (path !== undefined) console.error(`${unchanged ? 'stored already' : 'put'}: ${name} from ${path}`);
  console.error(`entry ${index}: ${cidText(entry.root.cid)}, ${entry.files} files, ${entry.size} bytes`);
  console.error(`signed by curator ${keyText(entry.curator)}`);
  console.error(`${samples} samples verified`);
  console.log(line);
});
