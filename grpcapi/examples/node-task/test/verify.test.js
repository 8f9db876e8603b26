// The verifier against the vectors of the specifications.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { cidText, keyText, printable, Refused } from '../bytes.js';
import { entryCid, isCuratorKey, parseEntry, signedBytes, verifyEntrySignature } from '../entry.js';
import { chunkHash, EMPTY_DIRECTORY, FILE, fileHash, LINK } from '../leaf.js';
import { leafHash, rootFromPath, rootOf } from '../merkle.js';
import { isOrigin, parseLogKey, verifyCheckpoint } from '../note.js';
import { verifyProof, verifyRangeData } from '../proof.js';

const vectors = (path) => JSON.parse(readFileSync(new URL(`../../../../dag/${path}/testdata/vectors.json`, import.meta.url)));
const hex = (text) => Buffer.from(text, 'hex');
const ledger = vectors('ledger');
const proofs = vectors('proof');
const log = parseLogKey(ledger.log.vkey);

// step returns the step that refuses, or "ok". Whatever else is thrown is a
// fault of the verifier.
function step(run) {
  try {
    run();
    return 'ok';
  } catch (e) {
    if (e instanceof Refused) return e.step;
    throw e;
  }
}

test('entries', () => {
  for (const v of ledger.entries) {
    const block = hex(v.block);
    const entry = parseEntry(block);
    verifyEntrySignature(entry, log);
    assert.equal(cidText(entryCid(block)), v.cid, v.name);
    assert.equal(leafHash(block).toString('hex'), v.leaf_hash, v.name);
    assert.equal(signedBytes(entry, log).toString('hex'), v.signed_bytes, v.name);
  }
  for (const v of ledger.entries_refused) {
    const found = step(() => verifyEntrySignature(parseEntry(hex(v.block)), log));
    // Names that are CIDs are for the ledger to refuse; verifiers may leave it to it.
    const want = /is a CID|CID as its name/.test(v.name) ? 'signature' : { format: 'entry', signature: 'signature' }[v.class];
    assert.equal(found, want, v.name);
  }
});

test('checkpoints', () => {
  for (const v of ledger.checkpoints) {
    const want = { ok: 'ok', format: 'checkpoint', signature: 'log' }[v.class];
    assert.equal(step(() => verifyCheckpoint(Buffer.from(v.text), log)), want, v.name);
  }
  for (const [name, allowed] of Object.entries(ledger.origins)) assert.equal(isOrigin(name), allowed, name);
  for (const [key, text] of Object.entries(ledger.curator_keys)) assert.equal(keyText(hex(key)), text);
  for (const v of ledger.public_keys) {
    // Under what is no point nothing holds, so a verifier need not look for it.
    if (v.name !== 'not on the curve') assert.equal(isCuratorKey(hex(v.key)), v.class === 'ok', v.name);
  }
});

test('trees', () => {
  for (const v of ledger.inclusion) {
    const root = rootFromPath(BigInt(v.from), BigInt(v.size), hex(v.old), v.path.map(hex));
    assert.equal(root?.toString('hex') === v.root, v.ok, `${v.name}, ${v.from} of ${v.size}`);
  }
  for (const [size, root] of Object.entries(ledger.roots)) {
    const leaves = Array.from({ length: Number(size) }, (_, i) => {
      const n = Buffer.alloc(8);
      n.writeBigUInt64BE(BigInt(i));
      return leafHash(n);
    });
    assert.equal(rootOf(leaves).toString('hex'), root, `size ${size}`);
  }
});

// leafOf builds the leaf that data has, from its chunks.
function leafOf({ path, kind, chunks = [], target = '' }) {
  if (kind === 'link') return { kind: LINK, path: hex(path), size: BigInt(target.length), chunks: 0n, target: Buffer.from(target) };
  if (kind !== 'file') return { kind: EMPTY_DIRECTORY, path: hex(path), size: 0n, chunks: 0n };
  let size = 0n;
  const hashes = chunks.map((chunk) => {
    const hash = chunkHash(size, hex(chunk));
    size += BigInt(chunk.length / 2);
    return hash;
  });
  return { kind: FILE, path: hex(path), size, chunks: BigInt(chunks.length), root: rootOf(hashes) };
}

// compare checks the data of a vector against what its proof has shown.
function compare(v, proof) {
  if (v.range !== undefined) return verifyRangeData(proof, hex(v.range));
  if (v.dataset === undefined) return undefined;
  const dataset = proofs.datasets[v.dataset];
  const found = v.file && proof.file ? leafOf(dataset.find((e) => e.path === v.file)) : null;
  const [got, want] = found
    ? [fileHash({ ...found, path: proof.file.leaf.path }), fileHash(proof.file.leaf)]
    : [rootOf(dataset.map((e) => fileHash(leafOf(e)))), proof.entry.commitment];
  if (!got.equals(want)) throw new Refused('data', 'other data');
  return undefined;
}

test('proofs', () => {
  // Policies with witnesses are not for this verifier: it trusts one log key.
  const ours = proofs.vectors.filter((v) => v.policy === undefined);
  assert.ok(ours.length > 70);
  for (const v of ours) {
    const trust = { log: v.key && parseLogKey(v.key), curators: v.curators };
    assert.equal(step(() => compare(v, verifyProof(Buffer.from(v.proof), trust))), v.class, v.name);
  }
});

test('no byte of a proof can change', () => {
  const { proof, key, range } = proofs.vectors.find((v) => v.name === 'range');
  const trust = { log: parseLogKey(key) };
  for (let i = 0; i < proof.length; i++) {
    const bytes = Buffer.from(proof);
    bytes[i] ^= 1;
    assert.notEqual(step(() => verifyRangeData(verifyProof(bytes, trust), hex(range))), 'ok', `byte ${i}`);
  }
});

test('text of a node', () => {
  assert.equal(printable('päth "файл" 文\\n'), 'päth "файл" 文\\n');
  assert.equal(printable('a\n\x1b]0;x\x07\x9b\u202e\u2066\u2028\ud800'), 'a\\u{a}\\u{1b}]0;x\\u{7}\\u{9b}\\u{202e}\\u{2066}\\u{2028}\\u{d800}');
  assert.equal(printable('x'.repeat(20_000)), `${'x'.repeat(1000)}…`);
});

test('keys', () => {
  const { vkey } = ledger.log;
  for (const bad of ['', 'a+b', vkey.slice(1), vkey.replace('348d8388', '348d8389'), `${vkey.slice(0, -2)}AA`]) {
    assert.throws(() => parseLogKey(bad), /key/, bad);
  }
});
