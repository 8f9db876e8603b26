// The auditor: checks the submission of a task node against the SCALE node.

import { checkSubmission, parseSubmission } from './audit.js';
import { cidText, keyText } from './bytes.js';
import { challenge } from './challenge.js';
import { runScript } from './cli.js';

const USAGE = `usage: node auditor.js SUBMISSION --key LOGKEY [--curator KEY]

Asks the node for the samples of which the submission tells, verifies every one of them,
and compares. Exit code 0: the submission holds; 1: it does not, or the node did not answer.

LOGKEY is the log's public key, or a file with it. SCALE_NODE is the node's address
(127.0.0.1:7070), SCALE_TOKEN a token of the scope read, which a node on this machine does
not ask for. SCALE_NODE_CA is a file with the authorities of the node's certificate.`;

// audit returns what the samples have shown, or throws.
export async function audit(node, line, trust) {
  const submission = parseSubmission(line);
  const result = await challenge(node, `:${submission.index}`, submission, trust);
  checkSubmission(submission, result);
  return { ...result, claimed: submission };
}

await runScript(import.meta.url, USAGE, { min: 1, max: 1 }, async (node, trust, { positionals: [line] }) => {
  const { entry, index, submission, claimed } = await audit(node, line, trust);
  console.log(`the submission holds: ${claimed.count} samples of entry ${index} of ${trust.log.origin}`);
  console.log(`dataset ${entry.name}, ${cidText(entry.root.cid)}, ${entry.files} files, ${entry.size} bytes`);
  const admitted = trust.curators ? 'is one that you trust' : 'was admitted by the log';
  console.log(`curator ${keyText(entry.curator)} ${admitted}`);
  if (claimed.size !== submission.size) {
    console.log(`its checkpoint, of ${claimed.size} entries, is claimed: the log has ${submission.size} by now`);
  }
});
