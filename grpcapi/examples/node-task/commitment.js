// What a dataset commits to, computed from what is put, so that a node cannot
// record other data than it was given: dag/SPEC.md, "Commitment".

import { Chunker } from './chunk.js';
import { chunkHash, EMPTY_DIRECTORY, FILE, fileHash, LINK } from './leaf.js';
import { Tree } from './merkle.js';

const NO_PATH = Buffer.alloc(0);
const SLASH = Buffer.from('/');

export class Commitment {
  #leaves = new Tree();
  #file = null; // the one whose data may follow
  #directory = null; // the last entry, if it is a directory: nothing is known to be in it yet
  size = 0n;
  files = 0n;

  // add takes the messages of DatasetService.Put, one after the other.
  add({ header, entry, data }) {
    if (header?.kind === 'KIND_FILE') this.#begin(NO_PATH);
    if (header?.kind === 'KIND_DIRECTORY') this.#directory = NO_PATH;
    if (entry) this.#entry(entry);
    const bytes = data ?? entry?.data;
    if (bytes) this.#file.chunker.write(bytes);
  }

  #entry({ path = NO_PATH, kind, target }) {
    this.#endFile();
    if (path.length > 0) this.#endDirectory(path);
    if (kind === 'KIND_FILE') this.#begin(path);
    if (kind === 'KIND_DIRECTORY') this.#directory = path;
    if (kind === 'KIND_LINK') this.#leaf({ kind: LINK, path, size: BigInt(target.length), chunks: 0n, target });
  }

  #begin(path) {
    const file = { path, size: 0n, chunks: new Tree() };
    file.chunker = new Chunker((chunk) => {
      file.chunks.add(chunkHash(file.size, chunk));
      file.size += BigInt(chunk.length);
    });
    this.#file = file;
  }

  #endFile() {
    if (!this.#file) return;
    const { path, chunks, chunker } = this.#file;
    chunker.end();
    this.#leaf({ kind: FILE, path, size: this.#file.size, chunks: chunks.size, root: chunks.root() });
    this.size += this.#file.size;
    this.files++;
    this.#file = null;
  }

  // endDirectory is told the path of the entry that follows, if there is one.
  #endDirectory(next) {
    const directory = this.#directory;
    this.#directory = null;
    if (!directory) return;
    const inside = Buffer.concat([directory, directory.length > 0 ? SLASH : NO_PATH]);
    if (next?.subarray(0, inside.length).equals(inside)) return;
    this.#leaf({ kind: EMPTY_DIRECTORY, path: Buffer.concat([directory, SLASH]), size: 0n, chunks: 0n });
  }

  #leaf(leaf) {
    this.#leaves.add(fileHash(leaf));
  }

  // end returns the fields that the entry of the dataset must have.
  end() {
    this.#endFile();
    this.#endDirectory(null);
    return { commitment: this.#leaves.root(), leaves: this.#leaves.size, size: this.size, files: this.files };
  }
}
