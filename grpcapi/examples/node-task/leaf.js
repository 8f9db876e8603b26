// Leaves of the two trees below a dataset's entry (dag/SPEC.md, "Commitment"):
// the file tree, and for each file the tree of its chunks.

import { HASH_SIZE, Reader, sha256, u32, u64 } from './bytes.js';
import { leafHash } from './merkle.js';

export const FILE = 1;
export const LINK = 2;
export const EMPTY_DIRECTORY = 3;

const MAX_PATH = 4096;
const MAX_NAME = 255;
const MAX_TARGET = 4095;
const MAX_FILE = 1n << 62n;
const MAX_CHUNK = 1n << 21n;
const NO_CHUNKS = sha256();

// chunkHash is the hash of a chunk's leaf: where it is, how long, and its digest.
export function chunkHash(offset, chunk) {
  return leafHash(Buffer.concat([Buffer.of(1), u64(offset), u32(chunk.length), sha256(chunk)]));
}

// encodeLeaf is the form in which a leaf is hashed.
function encodeLeaf(leaf) {
  const parts = [Buffer.of(2, leaf.kind), u32(leaf.path.length), leaf.path, u64(leaf.size), u64(leaf.chunks)];
  if (leaf.kind === FILE) parts.push(leaf.root);
  if (leaf.kind === LINK) parts.push(u32(leaf.target.length), leaf.target);
  return Buffer.concat(parts);
}

export const fileHash = (leaf) => leafHash(encodeLeaf(leaf));

// parseLeaf is the inverse of encodeLeaf.
export function parseLeaf(bytes, step) {
  const r = new Reader(bytes, step);
  if (r.u8() !== 2) r.refuse('not a leaf of a file tree');
  const kind = r.u8();
  const leaf = { kind, path: r.take(r.u32()), size: r.u64(), chunks: r.u64() };
  if (kind === FILE) leaf.root = r.take(HASH_SIZE);
  if (kind === LINK) leaf.target = r.take(r.u32());
  r.end();
  return checkLeaf(leaf, (message) => r.refuse(message));
}

// readManifest reads leaves in the form of a manifest: each path is given by
// what it has in common with the one before, and the rest.
export function readManifest(r, limit) {
  const count = r.count(3);
  if (count === 0) r.refuse('empty manifest');
  const leaves = [];
  let before = Buffer.alloc(0);
  let unfolded = 0;
  for (let i = 0; i < count; i++) {
    const shared = r.uvarint();
    const rest = r.take(r.uvarint());
    if (shared > before.length) r.refuse('shares more than there is');
    const path = Buffer.concat([before.subarray(0, Number(shared)), rest]);
    if ((unfolded += path.length) > limit) r.refuse('paths are too long');
    // So it ascends, and shares all that it can.
    if (i > 0 && !(rest.length > 0 && (shared == before.length || rest[0] > before[Number(shared)]))) {
      r.refuse('paths are not in order, or share less than they could');
    }
    leaves.push(checkLeaf(readLeaf(r, path), (message) => r.refuse(message)));
    before = path;
  }
  return leaves;
}

function readLeaf(r, path) {
  const kind = r.u8();
  const leaf = { kind, path, size: 0n, chunks: 0n };
  if (kind === FILE) {
    leaf.size = r.uvarint();
    leaf.chunks = r.uvarint();
    leaf.root = leaf.chunks > 0n ? r.take(HASH_SIZE) : NO_CHUNKS;
  }
  if (kind === LINK) {
    leaf.target = r.take(r.uvarint());
    leaf.size = BigInt(leaf.target.length);
  }
  return leaf;
}

function checkLeaf(leaf, refuse) {
  const { kind, size, chunks } = leaf;
  checkPath(leaf.path, kind, refuse);
  switch (kind) {
    case FILE:
      if (size > MAX_FILE || chunks > size || size > chunks * MAX_CHUNK) refuse('size and chunks do not fit');
      if (chunks === 0n && !leaf.root.equals(NO_CHUNKS)) refuse('a file without chunks has a chunk root');
      return leaf;
    case LINK:
      if (leaf.target.length < 1 || leaf.target.length > MAX_TARGET || leaf.target.includes(0)) refuse('bad target');
      if (size !== BigInt(leaf.target.length) || chunks !== 0n) refuse('size of a link');
      return leaf;
    case EMPTY_DIRECTORY:
      if (size !== 0n || chunks !== 0n) refuse('size of a directory');
      return leaf;
    default:
      return refuse(`kind ${kind}`);
  }
}

function checkPath(path, kind, refuse) {
  let names = path;
  if (kind === EMPTY_DIRECTORY) {
    if (path[path.length - 1] !== 0x2f) refuse('the path of a directory has no slash at its end');
    names = path.subarray(0, -1);
  }
  // The empty path: a dataset that is a single stream, or an empty directory.
  if (names.length === 0 && kind !== LINK) return;
  if (names.length > MAX_PATH) refuse('path is too long');
  for (const name of names.toString('latin1').split('/')) {
    if (name === '' || name.length > MAX_NAME || name === '.' || name === '..' || name.includes('\0')) {
      refuse('path has a name that is not allowed');
    }
  }
}
