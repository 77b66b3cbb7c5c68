// npm run symbols: what each binary of build/Release offers, which libraries it needs, and the newest version of each that it asks for.
import { existsSync, realpathSync } from 'node:fs';
import path from 'node:path';
import { binaries } from './binaries.ts';
import { describeNeeds } from './elf.ts';
import { root } from './prebuild.ts';

// The emulator's plugin is for tests, and isn't shipped.
for (const file of [...binaries.map((each) => each.file), 'liblowrank_cusim.so']) {
  const built = path.join(root, 'build/Release', file);
  console.log(existsSync(built) ? describeNeeds(realpathSync(built)) : `${file} was not built`);
}
