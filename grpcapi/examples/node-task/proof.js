// Proofs: dag/proof/SPEC.md. The steps of verification are the ones there.

import { fromBase64, HASH_SIZE, keyText, Reader, Refused, sha256, textOf } from './bytes.js';
import { DATASET, parseEntry, REMOVAL, verifyEntrySignature } from './entry.js';
import { chunkHash, FILE, fileHash, parseLeaf, readManifest } from './leaf.js';
import { cover, leafHash, rootFromPath, rootFromRun, rootOf } from './merkle.js';
import { parseCheckpoint, verifyCheckpoint } from './note.js';

const HEADER = 'c2sp.org/tlog-proof@v1';
const MAGIC = Buffer.from('scale-proof/v1\n');
const MAX_PROOF = 1 << 30;
const MAX_ENTRY = 16_384;
const MAX_PATH = 64;
const MAX_RECEIPTS = 16;
const MAX_RECEIPT = 17_408;

const format = (message) => {
  throw new Refused('format', message);
};

// parseProof reads a proof file and takes one encoding only. Nothing in the
// result is verified.
function parseProof(bytes) {
  if (bytes.length > MAX_PROOF) format(`${bytes.length} bytes`);
  let at = 0;
  const line = () => {
    const end = bytes.indexOf(0x0a, at);
    if (end < 0) format('cut short');
    const text = bytes.toString('latin1', at, end);
    at = end + 1;
    return text;
  };
  const after = (prefix) => {
    const text = line();
    if (!text.startsWith(prefix)) format(`no line "${prefix.trim()}"`);
    return text.slice(prefix.length);
  };
  if (line() !== HEADER) format('not a tlog-proof');
  const extra = fromBase64(after('extra ')) ?? format('extra data is not base64');
  const index = after('index ');
  if (!/^(0|[1-9][0-9]{0,18})$/.test(index) || BigInt(index) >> 63n) format('bad index');
  const inclusion = [];
  for (let text = line(); text !== ''; text = line()) {
    const hash = fromBase64(text);
    if (hash?.length !== HASH_SIZE || inclusion.length === MAX_PATH) format('bad inclusion path');
    inclusion.push(hash);
  }
  return { index: BigInt(index), inclusion, checkpoint: bytes.subarray(at), ...parseExtra(extra) };
}

const SECTIONS = [
  null,
  ['entry', (s) => (s.left <= MAX_ENTRY ? s.take(s.left) : s.refuse('entry is too long'))],
  ['file', (s) => ({ leaf: parseLeaf(s.take(s.uvarint()), 'format'), index: s.uvarint(), path: hashes(s) })],
  [
    'range',
    (s) => {
      const range = { first: s.uvarint(), offset: s.uvarint(), sizes: [] };
      for (let n = s.count(1); n > 0; n--) range.sizes.push(s.uvarint());
      if (range.sizes.some((size) => size >> 32n)) s.refuse('chunk is too long');
      return { ...range, left: hashes(s), right: hashes(s) };
    },
  ],
  ['manifest', (s) => readManifest(s, MAX_PROOF)],
  [
    'receipts',
    (s) => {
      const list = [];
      for (let n = s.count(4, MAX_RECEIPTS); n > 0; n--) {
        list.push({ data: s.take(s.uvarint()), size: s.uvarint(), path: hashes(s) });
      }
      return list;
    },
  ],
];

function hashes(s) {
  const list = [];
  for (let n = s.count(HASH_SIZE, MAX_PATH); n > 0; n--) list.push(s.take(HASH_SIZE));
  return list;
}

function parseExtra(extra) {
  const body = extra.subarray(0, Math.max(0, extra.length - HASH_SIZE));
  if (!body.subarray(0, MAGIC.length).equals(MAGIC)) format('extra data is not that of a SCALE proof');
  if (!sha256(body).equals(extra.subarray(body.length))) format('extra data is damaged');
  const r = new Reader(body.subarray(MAGIC.length), 'format');
  const found = {};
  for (let last = 0n; r.left > 0; ) {
    const number = r.uvarint();
    const content = new Reader(r.take(r.uvarint()), 'format');
    const [name, read] = SECTIONS[number] ?? format(`section ${number} is unknown`);
    if (number <= last) format(`section ${number} after ${last}`);
    if (content.left === 0) format(`section ${number} is empty`);
    found[name] = read(content);
    content.end();
    last = number;
  }
  if (!found.entry) format('no entry');
  if (found.range && !found.file) format('a range without its file');
  if (found.manifest && found.file) format('a manifest of a file');
  return found;
}

// pathLength is the number of hashes in the inclusion path of a leaf.
function pathLength(index, size) {
  let length = 0n;
  let inner = index ^ (size - 1n);
  for (; inner > 0n; inner >>= 1n) length++;
  for (let rest = index >> length; rest > 0n; rest >>= 1n) length += rest & 1n;
  return Number(length);
}

// checkReceipts checks the form of receipts. What they show is for those who
// know the chains: anchor/SPEC.md.
function checkReceipts({ index, receipts }, size) {
  if (receipts.length === 0) format('a section without receipts');
  receipts.forEach((r, i) => {
    if (r.data.length === 0 || r.data.length > MAX_RECEIPT) format(`receipt of ${r.data.length} bytes`);
    if (r.size <= index || r.size >> 62n) format(`receipt of a tree of ${r.size} entries`);
    const before = receipts[i - 1];
    if (before && (before.size > r.size || (before.size === r.size && Buffer.compare(before.data, r.data) >= 0))) {
      format('receipts out of order');
    }
    if (receipts.slice(0, i).some((other) => other.data.equals(r.data))) format('receipt twice');
    // The path in the proof's own tree is the proof's.
    const want = r.size === size ? 0 : pathLength(index, r.size);
    if (r.path.length !== want) format(`receipt with a path of ${r.path.length} hashes`);
  });
}

// verifyProof checks all but the data. trust.log is the log key, trust.curators
// (if given) the keys of the curators that are accepted, as text.
//
// The result has the entry, its index, the checkpoint, and of "file", "range"
// and "manifest" what the proof has. Without trust.curators the log alone
// vouches for entry.curator.
export function verifyProof(bytes, trust) {
  if (!trust.log) throw new Refused('no key', 'a proof is checked against a key that you trust');
  const proof = parseProof(bytes);
  if (proof.receipts) checkReceipts(proof, parseCheckpoint(proof.checkpoint).size);
  const checkpoint = verifyCheckpoint(proof.checkpoint, trust.log);

  const root = rootFromPath(proof.index, checkpoint.size, leafHash(proof.entry), proof.inclusion);
  if (!root?.equals(checkpoint.root)) throw new Refused('inclusion', `entry ${proof.index} is not in the log`);
  const entry = parseEntry(proof.entry);
  if (entry.kind === REMOVAL) throw new Refused('entry', 'a removal has nothing to prove');
  verifyEntrySignature(entry, checkpoint);
  const curator = keyText(entry.curator);
  if (trust.curators && !trust.curators.includes(curator)) {
    throw new Refused('curator', `${curator} is not one of those you trust`);
  }
  if (proof.file) verifyFile(entry, proof.file);
  if (proof.manifest) verifyManifest(entry, proof.manifest);
  if (proof.range) verifyRange(proof.file.leaf, proof.range);
  return { ...proof, block: proof.entry, entry, checkpoint };
}

function verifyFile(entry, { leaf, index, path }) {
  if (entry.kind !== DATASET) throw new Refused('file', 'the entry is not a dataset');
  const root = rootFromPath(index, entry.leaves, fileHash(leaf), path);
  if (!root?.equals(entry.commitment)) throw new Refused('file', `leaf ${index} is not in the dataset`);
}

function verifyManifest(entry, leaves) {
  if (entry.kind !== DATASET) throw new Refused('manifest', 'the entry is not a dataset');
  if (BigInt(leaves.length) !== entry.leaves || !rootOf(leaves.map(fileHash)).equals(entry.commitment)) {
    throw new Refused('manifest', 'these are not the leaves of the dataset');
  }
}

function verifyRange(leaf, { first, offset, sizes, left, right }) {
  const refuse = (message) => {
    throw new Refused('range', message);
  };
  if (leaf.kind !== FILE) refuse('only files have ranges');
  const end = first + BigInt(sizes.length);
  const stop = offset + rangeSize(sizes);
  if (sizes.length === 0 || end > leaf.chunks) refuse(`chunks ${first} to ${end} of ${leaf.chunks}`);
  if (sizes.includes(0n) || stop > leaf.size) refuse(`bytes ${offset} to ${stop} of ${leaf.size}`);
  if ((first === 0n) !== (offset === 0n) || (end === leaf.chunks) !== (stop === leaf.size)) {
    refuse('chunks and bytes do not begin and end together');
  }
  if (left.length !== cover(0n, first).length || right.length !== cover(end, leaf.chunks).length) {
    refuse('wrong number of hashes');
  }
}

export const rangeSize = (sizes) => sizes.reduce((sum, size) => sum + size, 0n);

// verifyRangeData checks the bytes of the range that a verified proof is about.
export function verifyRangeData({ file, range }, data) {
  const refuse = () => {
    throw new Refused('data', 'these are not the bytes that were recorded');
  };
  if (BigInt(data.length) !== rangeSize(range.sizes)) refuse();
  const r = new Reader(data, 'data');
  let offset = range.offset;
  const leaves = range.sizes.map((size) => {
    const hash = chunkHash(offset, r.take(size));
    offset += size;
    return hash;
  });
  const root = rootFromRun(file.leaf.chunks, range.first, leaves, range.left, range.right);
  if (!root.equals(file.leaf.root)) refuse();
}
