// npm run check:aarch64 begins here: builds for 64-bit Arm and fetches a Node for it; test/aarch64.test.ts then runs what there is.
import path from 'node:path';
import { cLibrary } from '../package/binaries.ts';
import { describeNeeds } from '../package/elf.ts';
import { build, fetchNode, missingTools, release } from './cross.ts';

const missing = missingTools();
if (missing.length > 0) throw new Error(`aarch64: ${missing.join(' and ')} must be installed`);
build();
fetchNode();
for (const file of ['lowrank.node', cLibrary]) console.log(describeNeeds(path.join(release, file), 'aarch64-linux-gnu-'));
