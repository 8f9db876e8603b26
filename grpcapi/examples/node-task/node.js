// A connection to a SCALE node: nothing but gRPC and the .proto files.

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

import { printable } from './bytes.js';

const SERVICES = ['dataset', 'audit', 'proof'];
const RECEIVE_SECONDS = 600;
// How often an idle connection is looked at, and how long that may take.
const KEEPALIVE = { 'grpc.keepalive_time_ms': 60_000, 'grpc.keepalive_timeout_ms': 20_000 };

// protoDir is where "scale/v1" is. A task of its own brings a copy.
const protoDir = process.env.SCALE_PROTO ?? fileURLToPath(new URL('../../../proto', import.meta.url));

// connect opens a channel to address, "HOST:PORT". It is encrypted, unless the
// node is on this machine and no ca (the path of a PEM file with the authorities
// of its certificate) is given. cert and key are paths of the client's own, where
// the node asks for one. The token is sent with every call.
export function connect({ address, token, ca, cert, key }) {
  const pem = (path) => (path ? readFileSync(path) : null);
  const local = isLoopback(address);
  const plain = local && !ca && !cert;
  const credentials = plain
    ? grpc.credentials.createInsecure()
    : grpc.credentials.createSsl(pem(ca), pem(key), pem(cert));
  const files = SERVICES.map((name) => `scale/v1/${name}.proto`);
  // 64-bit numbers come as text, because a number of JavaScript does not hold them.
  const loaded = loadSync(files, { includeDirs: [protoDir], longs: String, enums: String, defaults: true });
  const { scale } = grpc.loadPackageDefinition(loaded);
  const options = { interceptors: [authorize(token)], ...KEEPALIVE };
  // No proxy of the environment is to see what stays on this machine.
  if (local) options['grpc.enable_http_proxy'] = 0;
  const datasets = new scale.v1.DatasetService(address, credentials, options);
  const shared = { ...options, channelOverride: datasets.getChannel() };
  return {
    datasets,
    audits: new scale.v1.AuditService(address, credentials, shared),
    proofs: new scale.v1.ProofService(address, credentials, shared),
    close: () => datasets.close(),
  };
}

function isLoopback(address) {
  return /^(unix:|localhost:|127\.\d+\.\d+\.\d+:|\[::1\]:)/.test(address);
}

function authorize(token) {
  return (options, next) =>
    new grpc.InterceptingCall(next(options), {
      start(metadata, listener, start) {
        if (token) metadata.set('authorization', `Bearer ${token}`);
        start(metadata, listener);
      },
    });
}

// receive makes a call whose answer is a stream, and iterates over its messages.
export async function* receive(client, method, request) {
  const call = client[method](request, { deadline: Date.now() + RECEIVE_SECONDS * 1000 });
  try {
    yield* call;
  } finally {
    // Whoever refuses a message reads no further, and the node must not wait for that.
    call.on('error', () => {});
    call.cancel();
  }
}

// send makes a call whose request is a stream. The next message is asked of the
// iterable only when the node has taken enough of those before: so no more than
// a few are in memory, however fast they can be made. How long that takes is the
// caller's data: so there is no deadline but the node's. It returns the answer.
export async function send(client, method, messages) {
  const over = new AbortController();
  let call;
  const answer = new Promise((resolve, reject) => {
    call = client[method]((error, response) => {
      over.abort();
      if (error) reject(error);
      else resolve(response);
    });
  });
  const write = async () => {
    for await (const message of messages) {
      if (over.signal.aborted) return;
      if (!call.write(message)) await once(call, 'drain', { signal: over.signal });
    }
    call.end();
  };
  try {
    await Promise.race([answer, write().then(() => answer)]);
  } catch (error) {
    // What the node says explains more than that the stream broke off.
    if (over.signal.aborted) return answer;
    answer.catch(() => {});
    call.cancel();
    throw error;
  }
  return answer;
}

// describe says what went wrong in a line, which may have words of the node.
export function describe(error) {
  const code = Object.keys(grpc.status).find((name) => grpc.status[name] === error.code);
  return printable(code ? `the node answered ${code}: ${error.details}` : error.message);
}
