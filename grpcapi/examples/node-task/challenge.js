// Asking a node for an audit, and judging what it answers.

import { Answer } from './audit.js';
import { Refused } from './bytes.js';
import { receive } from './node.js';

const MAX_MANIFEST = 256 * 1024 * 1024;

// challenge asks the node for count samples of a dataset and returns what they
// have shown: see Answer. Where it has several files, the list of these is asked
// for too.
export async function challenge(node, ref, { seed, count }, trust) {
  let answer;
  for await (const { head, sample } of receive(node.audits, 'challenge', { ref, seed, count })) {
    if (head) {
      if (answer) throw new Refused('audit', 'a second head');
      const parts = { entry: head.entry, checkpoint: head.checkpoint.note };
      answer = new Answer({ seed, count }, parts, trust);
      if (answer.entry.files > 1n) answer.useManifest(await getManifest(node, ref));
    }
    if (sample) {
      if (!answer) throw new Refused('audit', 'a sample before the head');
      answer.add(sample);
    }
  }
  if (!answer) throw new Refused('audit', 'the answer is empty');
  return answer.end();
}

async function getManifest(node, ref) {
  const pieces = [];
  let size = 0;
  for await (const { proof } of receive(node.proofs, 'prove', { ref, manifest: true })) {
    size += proof.length;
    if (size > MAX_MANIFEST) throw new Refused('manifest', `more than ${MAX_MANIFEST} bytes`);
    pieces.push(proof);
  }
  return Buffer.concat(pieces);
}
