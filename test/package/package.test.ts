import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { faultsOf, isNewer, type Needs } from '../../scripts/package/elf.ts';
import { consume, faultOf, installInto, type Project } from '../../scripts/package/consume.ts';
import { packInto, type Tarball } from '../../scripts/package/pack.ts';
import { root } from '../../scripts/package/prebuild.ts';
import { distIsNew } from '../built.ts';

describe('a binary is held to its floor', () => {
  const fine: Needs = { libraries: ['libc.so.6'], versions: { GLIBC: '2.27' }, exports: ['lowrank_backend'], finds: [] };
  const plugin = { exports: /^lowrank_backend$/ };

  it.each<[string, Partial<Needs>, string[]]>([
    ['nothing', {}, []],
    ['a newer glibc', { versions: { GLIBC: '2.34' } }, ['needs GLIBC_2.34, above the floor of 2.28']],
    ['a newer libstdc++', { versions: { GLIBCXX: '3.4.30' } }, ['needs GLIBCXX_3.4.30, above the floor of 3.4.25']],
    ['an unknown family', { versions: { OPENSSL: '3.0' } }, ['needs OPENSSL_3.0, a family that is not known here']],
    ['a library', { libraries: ['libcudart.so.13'] }, ['needs libcudart.so.13, which not every system has']],
    ['an export too many', { exports: ['main'] }, ['exports main']],
    ['a name that nobody has', { finds: ['cudaMalloc'] }, ['needs cudaMalloc, which nothing defines']],
  ])('%s', (_, change, faults) => {
    expect(faultsOf(plugin, { ...fine, ...change })).toEqual(faults);
  });

  it('versions are numbers, not text', () => {
    expect([isNewer('2.9', '2.28'), isNewer('3.4.30', '3.4.4'), isNewer('2.28', '2.28'), isNewer('2', '1.9')]).toEqual([false, true, false, true]);
  });
});

describe('the tarball', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-package-'));
  let tarball: Tarball;
  let project: Project;
  beforeAll(() => {
    if (!distIsNew()) execFileSync('npm', ['run', 'build:ts'], { cwd: root });
    tarball = packInto(folder);
    project = installInto(path.join(folder, 'project'), tarball.file);
    console.log([`tarball: ${(tarball.size / 2 ** 20).toFixed(1)} MiB, ${tarball.files.length} files; installed in ${project.seconds.toFixed(1)} s`, ...tarball.binaries].join('\n'));
  }, 300_000);
  afterAll(() => rmSync(folder, { recursive: true }));

  it('is under 60 MB and holds what it should', () => {
    expect(tarball.size).toBeLessThan(60e6);
    const known = /^(package\.json|README\.md|LICENSE|ARCHITECTURE\.md|CMakeLists\.txt|dist\/.+\.(js|d\.ts)|demo\/.+\.(md|json|jsonl|safetensors)|(native|cuda)\/.+\.(h|cuh|cpp|c|cu|def|txt|map|in)|bench\/native\/(boundary\.cpp|device\.cpp|device\.h)|prebuilds\/linux-\w+\/\S+\.(node|so[.\d]*))$/;
    expect(tarball.files.map((file) => file.path).filter((name) => !known.test(name))).toEqual([]);
    const names = tarball.files.map((file) => file.path);
    expect(names).toEqual(expect.arrayContaining(['dist/index.js', 'dist/index.d.ts', 'dist/cli/main.js', 'cuda/CMakeLists.txt', `prebuilds/${process.platform}-${process.arch}/lowrank.node`]));
  });

  it.each([['an ES module', 'esm.mjs'], ['CommonJS', 'common.cjs'], ['worker threads, one of them ended midway', 'worker.mjs']])('trains without a compiler from %s', async (_, script) => {
    const told = await consume(project, script);
    expect(told.length).toBeGreaterThan(0);
    expect(told.map(faultOf).filter((fault) => fault !== undefined)).toEqual([]);
  }, 120_000);

  it('brings its command', () => {
    const text = execFileSync(path.join(project.folder, 'node_modules/.bin/lowrank'), ['doctor'], { cwd: project.folder, env: project.env, encoding: 'utf8' });
    expect(text).toContain(path.join('node_modules/lowrank/prebuilds', `${process.platform}-${process.arch}`, 'lowrank.node'));
    expect(text).toContain('fine: the CPU backend works');
  });
});
