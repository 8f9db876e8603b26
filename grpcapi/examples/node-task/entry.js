// Entries of the ledger: dag/ledger/SPEC.md.

import { Refused, keyText, sha256 } from './bytes.js';
import { Link, decode, encode } from './cbor.js';
import { holds, parseCheckpoint, publicKey } from './note.js';

const POLICY = 0n;
export const DATASET = 1n;
export const REMOVAL = 2n;

const MAX_ENTRY = 16_384;
const MAX_PREDECESSOR = 512;
const MAX_TIME = 253_402_300_799_999n;
const RAW = 0x55;
const DAG_PB = 0x70;
const DAG_CBOR = 0x71;

const isInt = (v) => typeof v === 'bigint' && v < 1n << 63n;
const isBytes = (size) => (v) => Buffer.isBuffer(v) && v.length === size;
const isWord = (limit) => (v) => typeof v === 'string' && v.length <= limit && /^[A-Za-z0-9._-]+$/.test(v);
const isLink = (...codecs) => (v) => {
  const cid = v instanceof Link ? v.cid : [];
  // Version 1, codec, SHA-256 of 32 bytes.
  return cid.length === 36 && cid[0] === 1 && codecs.includes(cid[1]) && cid[2] === 0x12 && cid[3] === 32;
};
const isList = (min, max, isElement) => (v) => Array.isArray(v) && v.length >= min && v.length <= max && v.every(isElement);
const ascend = (list) => list.every((b, i) => i === 0 || Buffer.compare(list[i - 1], b) < 0);
const distinct = (links) => new Set(links.map((l) => l.cid.toString('hex'))).size === links.length;

const COMMON = {
  kind: isInt,
  version: (v) => v === 1n,
  time: (v) => isInt(v) && v <= MAX_TIME,
  curator: isBytes(32),
  signature: isBytes(64),
};

const FIELDS = new Map([
  [POLICY, { ...COMMON, curators: (v) => isList(1, 256, isBytes(32))(v) && ascend(v) }],
  [
    DATASET,
    {
      ...COMMON,
      policy: isInt,
      name: isWord(128),
      root: isLink(RAW, DAG_PB),
      size: isInt,
      files: isInt,
      leaves: (v) => isInt(v) && v >= 1n,
      chunks: isInt,
      commitment: isBytes(32),
      profile: isWord(64),
      times: (v) => typeof v === 'boolean',
      parents: (v) => isList(0, 256, isLink(DAG_CBOR))(v) && distinct(v),
    },
  ],
  [REMOVAL, { ...COMMON, policy: isInt, name: isWord(128), previous: isInt }],
]);

// isPredecessor: the last checkpoint of the log before, with its own signature alone.
function isPredecessor(v) {
  if (!Buffer.isBuffer(v) || v.length > MAX_PREDECESSOR) return false;
  try {
    const { size, signatures } = parseCheckpoint(v);
    return size >= 1n && signatures.length === 1;
  } catch (e) {
    if (e instanceof Refused) return false;
    throw e;
  }
}

// What an entry may have besides: the first one of all follows no policy, the
// first one of a name no other.
const OPTIONAL = new Map([
  [POLICY, { policy: isInt, predecessor: isPredecessor }],
  [DATASET, { previous: isInt }],
  [REMOVAL, {}],
]);

// parseEntry reads the block of an entry. It does not check the signature.
export function parseEntry(block) {
  const refuse = (message) => {
    throw new Refused('entry', message);
  };
  if (block.length > MAX_ENTRY) refuse(`${block.length} bytes`);
  const map = decode(block);
  const kind = map instanceof Map ? map.get('kind') : undefined;
  const required = FIELDS.get(kind);
  if (!required) refuse('not an entry of a known kind');
  const optional = OPTIONAL.get(kind);
  for (const [key, value] of map) {
    const check = required[key] ?? optional[key];
    if (!check?.(value)) refuse(`bad field ${JSON.stringify(key)}`);
  }
  for (const key of Object.keys(required)) {
    if (!map.has(key)) refuse(`no field ${key}`);
  }
  const entry = Object.fromEntries(map);
  if (entry.predecessor && entry.policy !== undefined) refuse('only entry 0 can have a predecessor');
  if (entry.files > entry.leaves) refuse('more files than leaves');
  return entry;
}

// signedBytes is what a curator signs. It names the log, so that nobody can
// put the entry into another one.
export function signedBytes(entry, log) {
  const { signature, ...rest } = entry;
  const header = `scale-entry/v1\n${log.origin}\n${log.keyId.toString('hex')}\n`;
  return Buffer.concat([Buffer.from(header), encode(new Map(Object.entries(rest)))]);
}

const FIELD_PRIME = (1n << 255n) - 19n;
// The y of the eight points whose order divides 8: under these anybody can sign.
const SMALL_ORDER = [
  0n, 1n, FIELD_PRIME - 1n,
  0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n,
  0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n,
];

// isCuratorKey says whether signatures under a key may count. Of bytes that are no point
// it does not say so: under these nothing holds.
export function isCuratorKey(raw) {
  const y = BigInt(`0x${Buffer.from(raw).reverse().toString('hex')}`) & ((1n << 255n) - 1n);
  return y < FIELD_PRIME && !SMALL_ORDER.includes(y);
}

export function verifyEntrySignature(entry, log) {
  if (!isCuratorKey(entry.curator)) {
    throw new Refused('signature', `${keyText(entry.curator)} is no key that signatures count under`);
  }
  if (!holds(publicKey(entry.curator), signedBytes(entry, log), entry.signature)) {
    throw new Refused('signature', `curator ${keyText(entry.curator)} did not sign this entry for ${log.origin}`);
  }
}

// entryCid is the binary CID of an entry's block.
export const entryCid = (block) => Buffer.concat([Buffer.of(1, DAG_CBOR, 0x12, 32), sha256(block)]);
