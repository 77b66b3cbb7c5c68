import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { linkTools } from '../../scripts/package/consume.ts';
import { buildTools } from '../../scripts/package/library.ts';
import { root } from '../../scripts/package/prebuild.ts';

// npm run check:package builds it, installs it, and compiles a program against it.
describe('cmake -DLOWRANK_NODE=OFF', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-without-node-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  it('needs no node in reach, and is of nothing but the C library: no addon, no emulator, no test program', () => {
    const env = { PATH: path.join(folder, 'bin'), HOME: folder };
    linkTools(env.PATH, buildTools);
    expect(spawnSync('node', ['--version'], { env }).error?.message).toContain('ENOENT');
    const settings = ['-DLOWRANK_NODE=OFF', '-DLOWRANK_CUDA=OFF', '-DCMAKE_EXPORT_COMPILE_COMMANDS=ON'];
    const { status, stderr } = spawnSync('cmake', ['-S', root, '-B', path.join(folder, 'build'), ...settings], { env, encoding: 'utf8' });
    expect(status, stderr).toBe(0);
    const commands = JSON.parse(readFileSync(path.join(folder, 'build/compile_commands.json'), 'utf8')) as { file: string }[];
    const compiled = new Set(commands.map(({ file }) => path.relative(root, file).replace(/^native\/(cpu|capi|floor)\/.*/, 'native/$1')));
    const core = ['backend', 'copy_crew', 'dlpack', 'frozen_weight', 'mapped_file', 'staging'].map((stem) => `native/core/${stem}.cpp`);
    expect([...compiled].sort()).toEqual(['native/capi', ...core, 'native/cpu', 'native/floor']);
  }, 60_000);
});
