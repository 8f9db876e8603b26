// Signed notes (C2SP signed-note) and the checkpoints in them (C2SP
// tlog-checkpoint), as dag/ledger/SPEC.md narrows them down.

import { createPublicKey, verify } from 'node:crypto';
import { fromBase64, HASH_SIZE, Refused, sha256, textOf } from './bytes.js';

const MAX_CHECKPOINT = 262_144;
const MAX_SIGNATURES = 100;
const MAX_TREE = 1n << 60n;
const MAX_ORIGIN = 100;
const ED25519 = 1;

// publicKey makes a key of Node's out of the 32 bytes of an Ed25519 key.
export function publicKey(raw) {
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: raw.toString('base64url') };
  return createPublicKey({ key: jwk, format: 'jwk' });
}

// holds says whether the signature over the message is that of the key. Node
// refuses an S that is not reduced, and compares R as bytes.
export const holds = (key, message, signature) => verify(null, message, key, signature);

// isOrigin says whether text can name a log.
export function isOrigin(text) {
  const printable = /^[\p{L}\p{M}\p{N}\p{P}\p{S}]+$/u.test(text) && !text.includes('+');
  return printable && Buffer.byteLength(text) <= MAX_ORIGIN;
}

// parseLogKey reads a log's public key as text: "origin+keyid+base64". This is
// what the verifier trusts, so it has to come from somebody whom he trusts.
export function parseLogKey(text) {
  const [, origin, id, base64] = /^([^+]+)\+([0-9a-f]{8})\+(.+)$/.exec(text.trim()) ?? [];
  const bytes = base64 && fromBase64(base64);
  if (!bytes || bytes.length !== 1 + HASH_SIZE || bytes[0] !== ED25519 || !isOrigin(origin)) {
    throw new Error(`not the public key of a log: ${JSON.stringify(text)}`);
  }
  const keyId = sha256(origin, '\n', bytes).subarray(0, 4);
  if (keyId.toString('hex') !== id) {
    throw new Error(`the key of log ${origin} is damaged: its id is ${keyId.toString('hex')}, and not ${id}`);
  }
  return { origin, keyId, key: publicKey(bytes.subarray(1)) };
}

// parseCheckpoint reads a checkpoint and checks nothing but its form. The first
// signature is the log's.
export function parseCheckpoint(bytes) {
  const refuse = (message) => {
    throw new Refused('checkpoint', message);
  };
  if (bytes.length > MAX_CHECKPOINT) refuse(`${bytes.length} bytes`);
  let text;
  try {
    text = textOf(bytes);
  } catch {
    refuse('not UTF-8');
  }
  const [origin, decimal, hash, blank, ...lines] = text.split('\n');
  if (blank !== '' || lines.pop() !== '' || lines.length === 0) refuse('not three lines and signatures');
  if (!isOrigin(origin)) refuse('bad origin');
  if (!/^(0|[1-9][0-9]{0,18})$/.test(decimal) || BigInt(decimal) > MAX_TREE) refuse('bad size');
  const root = fromBase64(hash);
  if (root?.length !== HASH_SIZE) refuse('bad root');
  if (lines.length > MAX_SIGNATURES) refuse(`${lines.length} signatures`);

  const seen = new Set();
  const signatures = lines.map((line, i) => {
    const [, name, base64] = /^— ([^\p{White_Space}+]+) (\S+)$/u.exec(line) ?? [];
    const bytes = base64 && fromBase64(base64);
    if (!bytes || bytes.length < 5 || /[\0-\x1f]/.test(name)) refuse(`bad signature line ${i + 1}`);
    if ((name === origin) !== (i === 0)) refuse("the first signature, and no other, must be the log's");
    const keyId = bytes.subarray(0, 4);
    const id = `${name} ${keyId.toString('hex')}`;
    if (seen.has(id)) refuse(`two signatures of ${id}`);
    seen.add(id);
    return { name, keyId, signature: bytes.subarray(4), line };
  });
  const body = `${origin}\n${decimal}\n${hash}\n`;
  return { origin, size: BigInt(decimal), root, signatures, body };
}

// verifyCheckpoint reads a checkpoint and checks the log's signature on it.
// Signatures of others are not looked at.
export function verifyCheckpoint(bytes, log) {
  const checkpoint = parseCheckpoint(bytes);
  const [own] = checkpoint.signatures;
  const id = own.keyId.toString('hex');
  if (own.name !== log.origin || !own.keyId.equals(log.keyId)) {
    throw new Refused('log', `signed by ${own.name}+${id}, trusted is ${log.origin}+${log.keyId.toString('hex')}`);
  }
  if (!holds(log.key, Buffer.from(checkpoint.body), own.signature)) {
    throw new Refused('log', `the signature of ${own.name}+${id} does not hold`);
  }
  return { ...checkpoint, keyId: own.keyId, note: bytes };
}
