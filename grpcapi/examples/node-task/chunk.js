// Cutting a stream into chunks as the profile scale-1 does: dag/chunk/SPEC.md, "Gear".

import { sha256 } from './bytes.js';

export const PROFILE = 'scale-1';

const MIN = 16_384;
const MAX = 131_072;
const TWO_32 = 2 ** 32;

// Numbers of 64 bits are kept in two halves.
const GEAR = Array.from({ length: 256 }, (_, byte) => sha256(Buffer.of(byte)));
const GEAR_HIGH = Uint32Array.from(GEAR, (hash) => hash.readUInt32BE(0));
const GEAR_LOW = Uint32Array.from(GEAR, (hash) => hash.readUInt32BE(4));
const MASK_HIGH = 0x88888888;
const MASK_LOW = 0x88888000;

// cut returns where the chunk that begins at start ends.
function cut(bytes, start) {
  const stop = Math.min(start + MAX, bytes.length);
  let high = 0;
  let low = 0;
  for (let end = start + MIN; end < stop; end++) {
    const sum = low * 2 + GEAR_LOW[bytes[end]];
    high = (high * 2 + GEAR_HIGH[bytes[end]] + Math.floor(sum / TWO_32)) >>> 0;
    low = sum >>> 0;
    if ((high & MASK_HIGH) === 0 && (low & MASK_LOW) === 0) return end;
  }
  return stop;
}

// A Chunker takes a stream in pieces of any size and hands on its chunks.
export class Chunker {
  constructor(emit) {
    this.emit = emit;
    this.rest = Buffer.alloc(0);
  }

  write(piece) {
    const bytes = this.rest.length > 0 ? Buffer.concat([this.rest, piece]) : piece;
    let start = 0;
    while (bytes.length - start >= MAX) start = this.#next(bytes, start);
    this.rest = bytes.subarray(start);
  }

  end() {
    for (let start = 0; start < this.rest.length; ) start = this.#next(this.rest, start);
  }

  #next(bytes, start) {
    const end = cut(bytes, start);
    this.emit(bytes.subarray(start, end));
    return end;
  }
}
