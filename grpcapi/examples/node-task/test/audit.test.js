// Audits against the vectors of the specification.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { Answer, checkSubmission, formatSubmission, parseSubmission, positions } from '../audit.js';
import { Refused } from '../bytes.js';
import { parseLogKey } from '../note.js';

const vectors = JSON.parse(readFileSync(new URL('../../../../dag/audit/testdata/vectors.json', import.meta.url)));
const hex = (text) => Buffer.from(text, 'hex');

test('positions', () => {
  for (const v of vectors.positions) {
    const found = positions({ seed: hex(v.seed), count: v.positions.length }, hex(v.entry), BigInt(v.size));
    assert.deepEqual(found.map(String), v.positions, v.size);
  }
});

function judge(v) {
  const challenge = { seed: hex(v.seed), count: v.count };
  const head = { entry: hex(v.entry), checkpoint: Buffer.from(v.checkpoint) };
  const answer = new Answer(challenge, head, { log: parseLogKey(vectors.vkey) });
  if (v.manifest) answer.useManifest(Buffer.from(v.manifest));
  for (const s of v.samples ?? []) {
    answer.add({
      draw: s.draw,
      position: s.position,
      path: hex(s.path),
      fileStart: s.file_start,
      chunkStart: s.chunk_start,
      proof: Buffer.from(s.proof),
      data: hex(s.data),
    });
  }
  return { answer, result: answer.end() };
}

test('answers', () => {
  for (const v of vectors.answers) {
    if (v.class !== 'ok') {
      assert.throws(() => judge(v), Refused, v.name);
      continue;
    }
    const { answer, result } = judge(v);
    assert.equal(result.filesProven, v.files_proven ?? false, v.name);
    assert.equal(answer.checkpointHash.toString('hex'), v.checkpoint_hash, v.name);
    assert.equal(answer.key.toString('hex'), v.key, v.name);
    assert.equal(result.submission.response.toString('hex'), v.response, v.name);
    assert.equal(formatSubmission(result.submission), v.submission, v.name);
  }
});

test('submissions', () => {
  for (const v of vectors.submissions) {
    if (v.class === 'ok') assert.equal(formatSubmission(parseSubmission(v.text)), v.text, v.name);
    else assert.throws(() => parseSubmission(v.text), Refused, v.name);
  }
});

test('a submission that another answer gives is refused', () => {
  const { result } = judge(vectors.answers.find((v) => v.name === 'several files, with manifest'));
  const sound = result.submission;
  checkSubmission(sound, result);
  // Under another checkpoint, of a smaller log, the same answer is given.
  const earlier = { ...sound, size: sound.size - 1n, checkpoint: Buffer.alloc(32), response: result.response(Buffer.alloc(32)) };
  checkSubmission(earlier, result);
  for (const change of [
    { seed: Buffer.alloc(32) },
    { count: sound.count + 1 },
    { index: sound.index + 1n },
    { checkpoint: Buffer.alloc(32) },
    { checkpoint: Buffer.alloc(32), response: result.response(Buffer.alloc(32)) },
    { response: Buffer.alloc(32) },
  ]) {
    assert.throws(() => checkSubmission({ ...sound, ...change }, result), Refused);
  }
});
