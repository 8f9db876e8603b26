// dag-cbor in its one canonical form, as far as ledger entries use it: integers
// of 0 and above (BigInt), bytes (Buffer), text, lists, maps, booleans, links.

import { Reader, Refused, textOf } from './bytes.js';

const MAX_DEPTH = 4;
const CID_TAG = 42n;

// A Link names a block by its binary CID.
export class Link {
  constructor(cid) {
    this.cid = cid;
  }
}

// decode reads what encode writes, and refuses all other bytes.
export function decode(bytes) {
  const reader = new Reader(bytes, 'entry');
  const value = read(reader, 0);
  reader.end();
  if (!encode(value).equals(bytes)) throw new Refused('entry', 'not in canonical form');
  return value;
}

function read(reader, depth) {
  if (depth > MAX_DEPTH) reader.refuse('nested too deeply');
  const first = reader.u8();
  if (first === 0xf4 || first === 0xf5) return first === 0xf5;
  const n = argument(reader, first & 31);
  switch (first >> 5) {
    case 0:
      return n;
    case 2:
      return reader.take(n);
    case 3:
      try {
        return textOf(reader.take(n));
      } catch {
        return reader.refuse('text is not UTF-8');
      }
    case 4: {
      const list = [];
      for (let i = 0n; i < n; i++) list.push(read(reader, depth + 1));
      return list;
    }
    case 5: {
      const map = new Map();
      for (let i = 0n; i < n; i++) {
        const key = read(reader, depth + 1);
        if (typeof key !== 'string') reader.refuse('a key is not text');
        map.set(key, read(reader, depth + 1));
      }
      return map;
    }
    case 6: {
      const cid = n === CID_TAG ? read(reader, depth + 1) : null;
      if (!Buffer.isBuffer(cid) || cid[0] !== 0) reader.refuse('not a link');
      return new Link(cid.subarray(1));
    }
    default:
      return reader.refuse(`unexpected byte ${first.toString(16)}`);
  }
}

function argument(reader, info) {
  if (info < 24) return BigInt(info);
  if (info > 27) reader.refuse('indefinite length');
  return BigInt(`0x${reader.take(1 << (info - 24)).toString('hex')}`);
}

export function encode(value) {
  if (typeof value === 'bigint') return head(0, value);
  if (typeof value === 'boolean') return Buffer.of(value ? 0xf5 : 0xf4);
  if (Buffer.isBuffer(value)) return Buffer.concat([head(2, value.length), value]);
  if (typeof value === 'string') {
    const text = Buffer.from(value);
    return Buffer.concat([head(3, text.length), text]);
  }
  if (Array.isArray(value)) return Buffer.concat([head(4, value.length), ...value.map(encode)]);
  if (value instanceof Link) {
    return Buffer.concat([head(6, CID_TAG), encode(Buffer.concat([Buffer.of(0), value.cid]))]);
  }
  const entries = [...value].map(([key, v]) => [encode(key), encode(v)]);
  // The encoding of a key begins with its length: so shorter keys come first.
  entries.sort(([a], [b]) => Buffer.compare(a, b));
  return Buffer.concat([head(5, entries.length), ...entries.flat()]);
}

function head(major, value) {
  const n = BigInt(value);
  if (n < 24n) return Buffer.of((major << 5) | Number(n));
  const size = n < 0x100n ? 0 : n < 0x10000n ? 1 : n < 0x100000000n ? 2 : 3;
  const digits = n.toString(16).padStart(2 << size, '0');
  return Buffer.concat([Buffer.of((major << 5) | (24 + size)), Buffer.from(digits, 'hex')]);
}
