import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const addon = fileURLToPath(new URL('../../build/Release/lowrank.node', import.meta.url));
const objects = path.join(path.dirname(path.dirname(addon)), 'native/cpu/CMakeFiles');
const hasTools = spawnSync('nm', ['--version']).status === 0 && existsSync(objects);
if (!hasTools) console.warn('symbols: binutils or the build tree is missing; the symbol tests are not run');

const run = (command: string, ...args: string[]): string => execFileSync(command, args, { encoding: 'utf8', maxBuffer: 64 << 20 });

describe.skipIf(!hasTools)('the binary', () => {
  it('kernel objects have no weak symbols: code for a newer processor can not end up serving an older one', () => {
    const files = run('find', objects, '-name', '*.o', '-path', '*kernels_*').trim().split('\n');
    expect(files.length).toBeGreaterThan(3);
    const weak = files.flatMap((file) => run('nm', '-C', file).split('\n').filter((line) => /^[0-9a-f ]* [WVu] /.test(line)).map((line) => `${path.basename(file)}: ${line}`));
    expect(weak).toEqual([]);
  });
  it('needs nothing but libc, libm, libstdc++, libgcc and threads', () => {
    const needed = [...run('readelf', '-d', addon).matchAll(/\(NEEDED\).*\[(.+?)\]/g)].map((match) => match[1] as string);
    expect(needed.filter((name) => !/^(libc|libm|libstdc\+\+|libgcc_s|libpthread|libdl|librt|ld-linux[-\w]*)\.so/.test(name))).toEqual([]);
  });
});
