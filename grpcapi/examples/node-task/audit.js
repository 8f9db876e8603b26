// Audits: dag/audit/SPEC.md. What a seed asks of a dataset, whether an answer
// holds, and the line that says so on a chain.

import { Refused, sha256, u32, u64 } from './bytes.js';
import { DATASET, parseEntry } from './entry.js';
import { FILE } from './leaf.js';
import { parseCheckpoint } from './note.js';
import { rangeSize, verifyProof, verifyRangeData } from './proof.js';

const MIN_SEED = 16;
const MAX_SEED = 64;
const MAX_COUNT = 1024;
const MAX_TREE = 1n << 60n;
const TWO_64 = 1n << 64n;

const refuse = (message) => {
  throw new Refused('audit', message);
};

// checkChallenge refuses a seed or a count that no challenge has.
export function checkChallenge({ seed, count }) {
  if (seed.length < MIN_SEED || seed.length > MAX_SEED) refuse(`a seed of ${seed.length} bytes`);
  if (!Number.isInteger(count) || count < 1 || count > MAX_COUNT) refuse(`${count} samples`);
}

const seedPart = (seed) => Buffer.concat([Buffer.of(seed.length), seed]);

// positions returns the bytes of a dataset that a challenge asks for. entryHash
// is the SHA-256 of the dataset's entry.
export function positions({ seed, count }, entryHash, size) {
  if (size === 0n) refuse('the dataset has no bytes');
  // Numbers from here on would make the small positions likelier.
  const limit = TWO_64 - (TWO_64 % size);
  const draw = (j) => {
    for (let t = 0; ; t++) {
      const x = sha256('scale-audit/position/v1\n', seedPart(seed), entryHash, u32(j), u32(t)).readBigUInt64BE();
      if (x < limit) return x % size;
    }
  };
  return Array.from({ length: count }, (_, j) => draw(j));
}

// checkpointHash names a checkpoint: lines of witnesses do not change it.
export function checkpointHash(bytes) {
  const { body, signatures } = parseCheckpoint(bytes);
  return sha256(`${body}\n${signatures[0].line}\n`);
}

// An Answer takes the samples of an answer, one by one, and refuses it when one
// of them, or all together, do not hold.
export class Answer {
  #samples = [];
  #files = [];
  #starts = null; // of the files, by path, from the manifest
  #proof = null; // of the first sample

  // challenge: seed and count. head: entry and checkpoint, as bytes. trust: as
  // for verifyProof.
  constructor(challenge, head, trust) {
    checkChallenge(challenge);
    this.challenge = challenge;
    this.head = head;
    this.trust = trust;
    this.entry = parseEntry(head.entry);
    if (this.entry.kind !== DATASET) refuse('the entry is not a dataset');
    this.entryHash = sha256(head.entry);
    this.positions = positions(challenge, this.entryHash, this.entry.size);
    this.checkpointHash = checkpointHash(head.checkpoint);
    this.key = sha256('scale-audit/key/v1\n', seedPart(challenge.seed), this.entryHash);
  }

  // useManifest takes a proof of the whole dataset with its manifest, before any
  // sample. Without it a dataset of several files leaves it to the node to say
  // where each begins.
  useManifest(bytes) {
    const { block, manifest } = verifyProof(bytes, this.trust);
    if (!block.equals(this.head.entry) || !manifest) refuse('this is not the manifest of the dataset');
    const starts = new Map();
    let at = 0n;
    for (const leaf of manifest.filter(({ kind }) => kind === FILE)) {
      starts.set(leaf.path.toString('latin1'), at);
      at += leaf.size;
    }
    if (at !== this.entry.size) refuse(`the files of the manifest have ${at} bytes`);
    this.#starts = starts;
  }

  // add takes the next sample, as AuditService.Challenge sends it.
  add(sample) {
    const draw = this.#samples.length;
    const position = BigInt(sample.position);
    const fileStart = BigInt(sample.fileStart);
    const chunkStart = BigInt(sample.chunkStart);
    if (sample.draw !== draw || draw >= this.positions.length) refuse(`draw ${sample.draw} where ${draw} was due`);
    if (position !== this.positions[draw]) refuse(`position ${position}, the seed leads to ${this.positions[draw]}`);

    const proof = verifyProof(sample.proof, this.trust);
    const { block, checkpoint, index, file, range } = proof;
    if (!block.equals(this.head.entry) || !checkpoint.note.equals(this.head.checkpoint)) {
      refuse('the proof is of another entry, or under another checkpoint');
    }
    if (index !== (this.#proof ?? proof).index) refuse('the entry is in two places');
    if (range?.sizes.length !== 1) refuse('the proof is not of one chunk');
    const { leaf } = file;
    if (!sample.path.equals(leaf.path) || chunkStart !== range.offset) refuse('the proof is of another chunk');
    const from = fileStart + chunkStart;
    if (position < from || position >= from + rangeSize(range.sizes)) refuse(`position ${position} is not in the chunk`);
    verifyRangeData(proof, sample.data);

    if (fileStart + leaf.size > this.entry.size || (this.entry.files === 1n && fileStart !== 0n)) {
      refuse(`a file of ${leaf.size} bytes cannot begin at ${fileStart}`);
    }
    if (this.#starts && this.#starts.get(leaf.path.toString('latin1')) !== fileStart) {
      refuse('the file begins elsewhere');
    }
    this.#proof ??= proof;
    this.#files.push({ leaf: file.index, start: fileStart, size: leaf.size });
    this.#samples.push(
      Buffer.concat([
        u64(position),
        u32(leaf.path.length),
        leaf.path,
        u64(fileStart),
        u64(chunkStart),
        u32(sample.data.length),
        sha256(sample.data),
        sha256(this.key, sample.data),
      ]),
    );
  }

  // checkLayout refuses files that cannot all lie where the samples say.
  #checkLayout() {
    const byLeaf = new Map(this.#files.map((file) => [file.leaf, file]));
    if (this.#files.some(({ leaf, start }) => byLeaf.get(leaf).start !== start)) refuse('a file is in two places');
    let before = { leaf: -1n, start: 0n, size: 0n };
    for (const file of [...byLeaf.values()].sort((a, b) => (a.leaf < b.leaf ? -1 : 1))) {
      const end = before.start + before.size;
      const adjacent = file.leaf === before.leaf + 1n;
      if (adjacent ? file.start !== end : file.start < end) refuse(`leaf ${file.leaf} cannot begin at ${file.start}`);
      before = file;
    }
    if (before.leaf === this.entry.leaves - 1n && before.start + before.size !== this.entry.size) {
      refuse('the last leaf does not end where the dataset does');
    }
  }

  // end says what the answer has shown.
  end() {
    const { seed, count } = this.challenge;
    if (this.#samples.length !== count) refuse(`${this.#samples.length} samples of ${count}`);
    this.#checkLayout();
    const samples = sha256('scale-audit/samples/v1\n', ...this.#samples);
    // The response depends on the checkpoint by its hash alone: so whoever gets
    // the same answer later, under a newer one, can compute it too.
    const response = (hash) =>
      sha256('scale-audit/response/v1\n', seedPart(seed), this.entryHash, u32(count), hash, samples);
    return {
      entry: this.entry,
      index: this.#proof.index,
      // Which file a position falls into is the node's claim, if not.
      filesProven: this.#starts !== null || this.entry.files === 1n,
      response,
      submission: {
        checkpoint: this.checkpointHash,
        size: this.#proof.checkpoint.size,
        seed,
        index: this.#proof.index,
        count,
        response: response(this.checkpointHash),
      },
    };
  }
}

// formatSubmission returns the line that a task submits: at most 317 bytes.
export function formatSubmission({ checkpoint, size, seed, index, count, response }) {
  const hex = (bytes) => bytes.toString('hex');
  return `scale-audit-1 ${hex(checkpoint)} ${size} ${hex(seed)} ${index} ${count} ${hex(response)}`;
}

// parseSubmission is the inverse of formatSubmission, and takes nothing else.
export function parseSubmission(line) {
  const hash = '([0-9a-f]{64})';
  const number = '(0|[1-9][0-9]{0,18})';
  const form = new RegExp(`^scale-audit-1 ${hash} ${number} ((?:[0-9a-f]{2})+) ${number} ${number} ${hash}$`);
  const [, checkpoint, size, seed, index, count, response] = form.exec(line) ?? refuse('this is not a submission');
  const submission = {
    checkpoint: Buffer.from(checkpoint, 'hex'),
    size: BigInt(size),
    seed: Buffer.from(seed, 'hex'),
    index: BigInt(index),
    count: Number(count),
    response: Buffer.from(response, 'hex'),
  };
  checkChallenge(submission);
  if (submission.size > MAX_TREE || submission.index >= submission.size) refuse('the entry is beyond the log');
  return submission;
}

// checkSubmission compares someone's submission with what an answer to the same
// challenge has shown.
export function checkSubmission(submission, result) {
  const own = result.submission;
  if (!submission.seed.equals(own.seed) || submission.count !== own.count) refuse('it answers another challenge');
  if (submission.index !== own.index) refuse(`it is of entry ${submission.index}, the node answers for entry ${own.index}`);
  if (submission.size === own.size && !submission.checkpoint.equals(own.checkpoint)) {
    refuse(`it names another checkpoint of size ${own.size}`);
  }
  if (!submission.response.equals(result.response(submission.checkpoint))) {
    refuse('its response is not that of the bytes which the node holds');
  }
}
