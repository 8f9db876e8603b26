// A JSON-RPC server that answers as a K2 node does, for one client or a few, on 127.0.0.1.
// See README.md in the directory above for what it does not imitate.
//
// usage: node server.mjs [name=value]...
//
//   port=0         0 is any free one; the line READY tells which
//   slot=400       milliseconds a slot; 0 for a chain that only svm_advanceSlots moves
//   confirmed=2    slots on top of one that is confirmed
//   finalized=32   and of one that is finalized
//   valid=150      slots that a blockhash is good for
//   fee=500000     ROE a signature
//
// It ends at SIGTERM, and when its standard input does, so that it does not outlive its
// parent.

import http from 'node:http';
import { Bank } from './bank.mjs';
import { Chain } from './chain.mjs';
import { control } from './control.mjs';
import { RPCError } from './encoding.mjs';
import { methods } from './methods.mjs';

const MAX_REQUEST = 50 * 1024; // bytes, as validators have it

const options = { port: 0, slot: 400, confirmed: 2, finalized: 32, valid: 150, fee: 500_000 };
for (const arg of process.argv.slice(2)) {
  const [name, value] = arg.split('=');
  if (!Object.hasOwn(options, name) || !/^\d+$/.test(value ?? '')) {
    console.error(`server.mjs: ${arg}: not one of ${Object.keys(options).join('=, ')}=`);
    process.exit(2);
  }
  options[name] = Number(value);
}
const { port, slot, ...rules } = options;
const chain = new Chain(await Bank.open(), rules);
await chain.openSlot();
const table = { ...methods(chain), ...control(chain) };

// One call at a time, so that none sees a slot that is half open.
let last = Promise.resolve();
function inTurn(f) {
  const result = last.then(f);
  last = result.catch(() => {});
  return result;
}

if (slot > 0) {
  setInterval(() => {
    if (chain.paused) return;
    inTurn(() => chain.openSlot()).catch((e) => console.error('opening a slot:', e));
  }, slot);
}

async function call(request) {
  const reply = { jsonrpc: '2.0', id: request?.id ?? null };
  if (!Object.hasOwn(table, request?.method)) return { ...reply, error: { code: -32601, message: 'Method not found' } };
  try {
    return { ...reply, result: await inTurn(() => table[request.method](request.params ?? [])) };
  } catch (e) {
    if (e instanceof RPCError) return { ...reply, error: e.answer };
    return { ...reply, error: { code: -32602, message: 'Invalid params: ' + (e.message ?? e) } };
  }
}

async function answer(body) {
  let request;
  try {
    request = JSON.parse(body);
  } catch {
    return { jsonrpc: '2.0', error: { code: -32700, message: 'Parse error' }, id: null };
  }
  return Array.isArray(request) ? Promise.all(request.map(call)) : call(request);
}

const server = http.createServer((req, res) => {
  if (req.method === 'GET') {
    res.end(req.url === '/health' ? 'ok' : '');
    return;
  }
  const parts = [];
  let size = 0;
  req.on('data', (part) => {
    size += part.length;
    if (size <= MAX_REQUEST) parts.push(part);
  });
  req.on('end', async () => {
    if (size > MAX_REQUEST) {
      res.writeHead(413).end();
      return;
    }
    res.setHeader('content-type', 'application/json');
    res.end(JSON.stringify(await answer(Buffer.concat(parts).toString())));
  });
});

const stop = () => process.exit(0);
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, stop);
process.stdin.on('end', stop).on('error', stop).resume();

server.listen(port, '127.0.0.1', () => {
  console.log(`READY http://127.0.0.1:${server.address().port} genesis ${chain.genesis}`);
});
