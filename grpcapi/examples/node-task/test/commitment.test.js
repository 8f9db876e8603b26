// Chunks and commitments against the vectors of the specifications.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { sha256, u64 } from '../bytes.js';
import { Chunker, PROFILE } from '../chunk.js';
import { Commitment } from '../commitment.js';

const read = (path) => JSON.parse(readFileSync(new URL(`../../../../dag/${path}`, import.meta.url)));

// random returns the first bytes of the stream that a seed gives.
const streams = new Map();
function random(seed, size) {
  const blocks = streams.get(seed) ?? [];
  streams.set(seed, blocks);
  while (blocks.length * 32 < size) blocks.push(sha256(seed, u64(blocks.length)));
  return Buffer.concat(blocks.slice(0, Math.ceil(size / 32))).subarray(0, size);
}

// pieces cuts bytes like an awkward network.
function* pieces(bytes) {
  for (let at = 0, size = 1; at < bytes.length; at += size, size = (size * 7 + 3) % 300_000) {
    yield bytes.subarray(at, at + size);
  }
}

test('cuts', () => {
  // The one of 8 MiB takes long to generate, and begins like the others.
  const cuts = read('chunk/testdata/cuts.json').cuts.filter(({ ends }) => (ends.at(-1) ?? 0) < 4e6);
  assert.ok(cuts.length > 12);
  for (const { name, segments, ends } of cuts) {
    const stream = Buffer.concat(segments.map(({ seed, size, and }) => random(seed, size).map((b) => b & and)));
    const found = [];
    let at = 0;
    const chunker = new Chunker((chunk) => found.push((at += chunk.length)));
    for (const piece of pieces(stream)) chunker.write(piece);
    chunker.end();
    assert.deepEqual(found, ends, name);
  }
});

// The member with the suffix _b64 has what is not text.
const bytesOf = (e, key) => (e[`${key}_b64`] ? Buffer.from(e[`${key}_b64`], 'base64') : Buffer.from(e[key] ?? ''));

function expand(entries) {
  const list = entries.flatMap((e) => {
    const kind = { file: 'KIND_FILE', dir: 'KIND_DIRECTORY', link: 'KIND_LINK' }[e.kind];
    return Array.from({ length: e.repeat ?? 1 }, (_, i) => {
      const number = e.repeat ? String(i).padStart(6, '0') : '';
      const path = Buffer.concat([bytesOf(e, 'path'), Buffer.from(number)]);
      const key = kind === 'KIND_DIRECTORY' && path.length > 0 ? Buffer.concat([path, Buffer.from('/')]) : path;
      return { key, entry: { path, kind, target: bytesOf(e, 'target') }, seed: (e.seed ?? '') + number, size: e.size ?? 0 };
    });
  });
  return list.sort((a, b) => Buffer.compare(a.key, b.key));
}

test('commitments', () => {
  // Where only digests of chunks are given, there is nothing to cut; the largest takes long.
  const suits = (e) => !e.chunks && (e.size ?? 0) <= 1e6;
  const all = read('testdata/vectors.json').datasets;
  const datasets = all.filter(({ profile, entries }) => profile === PROFILE && entries.every(suits));
  assert.ok(datasets.length > 12);
  for (const { name, entries, result } of datasets) {
    const commitment = new Commitment();
    const [{ entry: root }, ...rest] = expand(entries);
    commitment.add({ header: { kind: root.kind } });
    if (root.kind === 'KIND_DIRECTORY') commitment.add({ entry: { kind: root.kind } });
    else for (const data of pieces(random(entries[0].seed ?? '', entries[0].size ?? 0))) commitment.add({ data });
    for (const { entry, seed, size } of rest) {
      commitment.add({ entry });
      if (size > 0) commitment.add({ data: random(seed, size) });
    }
    const end = commitment.end();
    assert.equal(end.commitment.toString('hex'), result.commitment, name);
    assert.deepEqual([end.size, end.files, end.leaves], [result.size, result.files, result.leaves].map(BigInt), name);
  }
});
