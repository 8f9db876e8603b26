// What both scripts share: the command line, the environment, and exit codes.

import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { fileURLToPath } from 'node:url';

import { connect, describe } from './node.js';
import { parseLogKey } from './note.js';

const SHARED = {
  key: { type: 'string' },
  curator: { type: 'string', multiple: true },
  help: { type: 'boolean', short: 'h' },
};

// The node is told by the environment, as with the program scale. The token is
// only there: others can read command lines.
export function connectFromEnvironment() {
  const { env } = process;
  return connect({
    address: env.SCALE_NODE || '127.0.0.1:7070',
    token: env.SCALE_TOKEN,
    ca: env.SCALE_NODE_CA,
    cert: env.SCALE_NODE_CERT,
    key: env.SCALE_NODE_KEY,
  });
}

// A UsageError says that the command line makes no sense.
export class UsageError extends Error {}

// runScript calls run with the parsed command line, if module is the script that
// was started: whoever imports it uses its functions. It takes min to max
// arguments. Exit code 0: done, 1: failed or refused, 2: the command line makes no sense.
export async function runScript(module, usage, { min, max, options }, run) {
  if (!process.argv[1] || realpathSync(process.argv[1]) !== fileURLToPath(module)) return;
  let node;
  try {
    const args = parseArgs({ allowPositionals: true, options: { ...SHARED, ...options } });
    const { key, curator, help } = args.values;
    if (help) {
      console.log(usage);
      return;
    }
    if (!key) throw new UsageError('--key is needed: whom do you trust?');
    const { length } = args.positionals;
    if (length < min || length > max) throw new UsageError('wrong number of arguments');
    const text = existsSync(key) ? readFileSync(key, 'utf8') : key;
    const trust = { log: parseLogKey(text), curators: curator };
    node = connectFromEnvironment();
    await run(node, trust, args);
  } catch (error) {
    const misused = error instanceof UsageError || error.code?.toString().startsWith('ERR_PARSE_ARGS');
    console.error(misused ? `${error.message}\n\n${usage}` : describe(error));
    process.exitCode = misused ? 2 : 1;
  } finally {
    node?.close();
  }
}
