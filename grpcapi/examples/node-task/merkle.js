// Merkle trees of RFC 6962, section 2.1, with SHA-256. Places and sizes are BigInt.

import { sha256 } from './bytes.js';

const LEAF = Buffer.of(0);
const NODE = Buffer.of(1);

export const leafHash = (leaf) => sha256(LEAF, leaf);
const nodeHash = (left, right) => sha256(NODE, left, right);

// rootFromPath returns the root to which an audit path leads from a leaf, or
// null if the path has not exactly the hashes that this place takes.
export function rootFromPath(index, size, leaf, path) {
  if (index >= size) return null;
  let hash = leaf;
  let used = 0;
  // From the leaf upwards: last is the index of the last node of the level.
  for (let at = index, last = size - 1n; last > 0n; at >>= 1n, last >>= 1n) {
    if (at % 2n === 0n && at === last) continue; // no sibling: the node moves up as it is
    if (used === path.length) return null;
    const sibling = path[used++];
    hash = at % 2n === 1n ? nodeHash(sibling, hash) : nodeHash(hash, sibling);
  }
  return used === path.length ? hash : null;
}

// cover returns the widths of the largest perfect subtrees that cover the
// leaves [from, to), from left to right.
export function cover(from, to) {
  const widths = [];
  for (let at = from; at < to; ) {
    let width = 1n;
    while (at % (2n * width) === 0n && at + 2n * width <= to) width *= 2n;
    widths.push(width);
    at += width;
  }
  return widths;
}

// A Tree grows from left to right and keeps no more than the roots of its
// perfect subtrees.
export class Tree {
  size = 0n;
  #subtrees = [];

  // add puts a perfect subtree of width leaves, by default a leaf, to the right.
  add(hash, width = 1n) {
    this.#subtrees.push({ hash, width });
    this.size += width;
    // The last two join where they are the halves of a larger one.
    for (;;) {
      const [left, right] = this.#subtrees.slice(-2);
      if (right?.width !== left.width || this.size % (2n * left.width) !== 0n) return this;
      this.#subtrees.splice(-2, 2, { hash: nodeHash(left.hash, right.hash), width: 2n * left.width });
    }
  }

  root() {
    if (this.size === 0n) return sha256();
    return this.#subtrees.map(({ hash }) => hash).reduceRight((right, left) => nodeHash(left, right));
  }
}

// rootFromRun returns the root of a tree of size leaves, from the hashes of
// those that begin at first and of the subtrees beside them: left are those of
// cover(0, first), right those of cover(first + leaves.length, size).
export function rootFromRun(size, first, leaves, left, right) {
  const tree = new Tree();
  cover(0n, first).forEach((width, i) => tree.add(left[i], width));
  leaves.forEach((leaf) => tree.add(leaf));
  cover(tree.size, size).forEach((width, i) => tree.add(right[i], width));
  return tree.root();
}

export const rootOf = (leaves) => leaves.reduce((tree, leaf) => tree.add(leaf), new Tree()).root();
