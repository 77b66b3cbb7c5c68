// Run as a process of its own and killed at a random moment: replaces argv[2] for ever by whole folders of a few files
// that all hold the same number.
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { replaceFolder, writeFileAtomic } from '../../src/io/atomic.ts';

const target = process.argv[2] ?? '';
for (let turn = Number(process.argv[3]); ; turn++) {
  await replaceFolder(target, async (folder) => {
    await mkdir(path.join(folder, 'inner'));
    for (const name of ['a', 'b', 'inner/c']) await writeFileAtomic(path.join(folder, name), String(turn));
  });
  if (turn === Number(process.argv[3])) process.stdout.write('turning\n');
}
