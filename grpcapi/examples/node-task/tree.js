// A file or a directory on disk as the messages of DatasetService.Put.

import { constants } from 'node:fs';
import { open, opendir, readlink, lstat } from 'node:fs/promises';

// A message may have 1 MiB. A quarter of that keeps what waits to be sent small.
const PIECE = 256 * 1024;
const PERMISSIONS = 0o7777;
const SLASH = Buffer.from('/');

// putMessages yields the header and all that belongs to it. Paths are bytes,
// because names on disk need not be text.
export async function* putMessages(name, root, profile) {
  const path = Buffer.from(root);
  const stat = await lstat(path);
  const mode = stat.mode & PERMISSIONS;
  if (stat.isFile()) {
    yield { header: { name, kind: 'KIND_FILE', profile, size: stat.size, mode } };
    yield* contents(path);
  } else if (stat.isDirectory()) {
    yield { header: { name, kind: 'KIND_DIRECTORY', profile } };
    yield { entry: { kind: 'KIND_DIRECTORY', mode } };
    yield* below(path, Buffer.alloc(0));
  } else {
    throw new Error(`${root} is neither a file nor a directory`);
  }
}

// below yields what is in a directory. A directory sorts as if its name ended
// in a slash, and comes before what is in it.
async function* below(directory, prefix) {
  const entries = [];
  for await (const entry of await opendir(directory, { encoding: 'buffer' })) {
    entries.push({ entry, key: entry.isDirectory() ? Buffer.concat([entry.name, SLASH]) : entry.name });
  }
  entries.sort((a, b) => Buffer.compare(a.key, b.key));
  for (const { entry, key } of entries) {
    const disk = Buffer.concat([directory, SLASH, entry.name]);
    const path = Buffer.concat([prefix, entry.name]);
    const mode = (await lstat(disk)).mode & PERMISSIONS;
    if (entry.isDirectory()) {
      yield { entry: { path, kind: 'KIND_DIRECTORY', mode } };
      yield* below(disk, Buffer.concat([prefix, key]));
    } else if (entry.isFile()) {
      yield { entry: { path, kind: 'KIND_FILE', mode } };
      yield* contents(disk);
    } else if (entry.isSymbolicLink()) {
      yield { entry: { path, kind: 'KIND_LINK', target: await readlink(disk, { encoding: 'buffer' }) } };
    } else {
      throw new Error(`${disk} is neither file, directory nor link`);
    }
  }
}

async function* contents(path) {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const before = await file.stat({ bigint: true });
    let size = 0n;
    for (;;) {
      const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(PIECE), 0, PIECE);
      if (bytesRead === 0) break;
      size += BigInt(bytesRead);
      yield { data: buffer.subarray(0, bytesRead) };
    }
    const after = await file.stat({ bigint: true });
    if (size !== before.size || before.mtimeNs !== after.mtimeNs) throw new Error(`${path} changed while it was read`);
  } finally {
    await file.close();
  }
}
