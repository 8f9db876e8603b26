// Bytes that nobody has vouched for yet: reading them, and refusing them.

import { createHash } from 'node:crypto';

export const HASH_SIZE = 32;

// Refused says that something does not hold. The step is the one of the
// specification that found it.
export class Refused extends Error {
  constructor(step, message) {
    super(`${step}: ${message}`);
    this.name = 'Refused';
    this.step = step;
  }
}

const MAX_TEXT = 1000;

// printable returns text of a node as one line that a terminal shows as it is meant: control
// characters, line breaks and what changes the direction of text are escaped.
export function printable(text) {
  const escape = (c) => `\\u{${c.codePointAt(0).toString(16)}}`;
  const line = text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, escape);
  return line.length > MAX_TEXT ? `${line.slice(0, MAX_TEXT)}…` : line;
}

export function sha256(...parts) {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
}

export function u32(n) {
  const b = Buffer.alloc(4);
  b.writeUInt32BE(n);
  return b;
}

export function u64(n) {
  const b = Buffer.alloc(8);
  b.writeBigUInt64BE(BigInt(n));
  return b;
}

// Text decodes UTF-8, and fails on what is none.
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
export const textOf = (bytes) => utf8.decode(bytes);

// fromBase64 takes the one encoding of some bytes only: Buffer alone would skip
// what it does not know. It returns null for any other text.
export function fromBase64(text) {
  const bytes = Buffer.from(text, 'base64');
  return bytes.toString('base64') === text ? bytes : null;
}

// A Reader takes values off the front of bytes, and never reads beyond them.
export class Reader {
  constructor(bytes, step) {
    this.bytes = bytes;
    this.at = 0;
    this.step = step;
  }

  get left() {
    return this.bytes.length - this.at;
  }

  refuse(message) {
    throw new Refused(this.step, message);
  }

  take(n) {
    if (n > this.left) this.refuse(`${n} bytes of ${this.left}`);
    const start = this.at;
    this.at += Number(n);
    return this.bytes.subarray(start, this.at);
  }

  u8() {
    return this.take(1)[0];
  }

  u32() {
    return this.take(4).readUInt32BE();
  }

  u64() {
    return this.take(8).readBigUInt64BE();
  }

  // uvarint reads a number below 2^63 in its shortest form.
  uvarint() {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const b = this.u8();
      value |= BigInt(b & 0x7f) << shift;
      if (value >> 63n) this.refuse('integer too large');
      if (b < 0x80) {
        if (b === 0 && shift > 0n) this.refuse('integer not in its shortest form');
        return value;
      }
    }
  }

  // count reads the length of a list whose elements take size bytes or more
  // each, so that no list is larger than what was sent.
  count(size, limit = Infinity) {
    const n = this.uvarint();
    if (n * BigInt(size) > this.left || n > limit) this.refuse(`list of ${n} elements`);
    return Number(n);
  }

  end() {
    if (this.left > 0) this.refuse(`${this.left} bytes too many`);
  }
}

const ALPHABET_32 = 'abcdefghijklmnopqrstuvwxyz234567';
const ALPHABET_58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';

// cidText is the text form of a binary CID: "b" and base32 without padding.
export function cidText(cid) {
  let text = 'b';
  for (let bit = 0; bit < cid.length * 8; bit += 5) {
    const pair = (cid[bit >> 3] << 8) | (cid[(bit >> 3) + 1] ?? 0);
    text += ALPHABET_32[(pair >> (11 - (bit & 7))) & 31];
  }
  return text;
}

// keyText is the text form of a curator's key: base58, as K2 has its addresses.
export function keyText(key) {
  let n = BigInt(`0x0${Buffer.from(key).toString('hex')}`);
  let text = '';
  for (; n > 0n; n /= 58n) text = ALPHABET_58[Number(n % 58n)] + text;
  for (const b of key) {
    if (b !== 0) break;
    text = `1${text}`;
  }
  return text;
}
