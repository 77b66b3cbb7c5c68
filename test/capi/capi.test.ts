import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { built, compileC, hasLibrary, findsProgram, header, root, run } from './native.ts';

const text = readFileSync(header, 'utf8');
const declared = [...text.matchAll(/^LOWRANK_API [\w\s*]*?\b(lowrank_\w+)\(/gm)].map((match) => match[1] as string).sort();
const ops = [...readFileSync(path.join(root, 'native/ops/list.def'), 'utf8').matchAll(/^OP\((\w+),/gm)].map((match) => `lowrank_${match[1]}`);
const { version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { version: string };
// Before 1.0 a minor version is an interface of its own.
const interfaceVersion = version.split('.').slice(0, 2).join('.');
const library = path.join(built, 'liblowrank.so');
const emulator = path.join(built, 'liblowrank_cusim.so');

/** Every claim of a C program as a test of its own would say it: what failed, with what the program told. */
function failedClaims(output: string): string[] {
  expect(output.match(/^ok /gm)?.length ?? 0).toBeGreaterThan(5);
  return [...output.matchAll(/^FAILED .*(?:\n {2}.*)*/gm)].map(([claim]) => claim);
}

describe.skipIf(!hasLibrary)('the C ABI', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'lowrank-capi-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('lowrank.h is what the contracts make of it (cmake --build build --target header writes it anew)', () => {
    const made = run(path.join(built, 'write_header'), [path.join(root, 'native/capi/lowrank.h.in'), path.join(root, 'native/ops'), version]);
    expect(text).toBe(made);
  });

  it('lowrank.h has every op of list.def', () => {
    expect(declared).toEqual(expect.arrayContaining(ops));
  });

  it.each([['c', 'c99'], ['c', 'c17'], ['c++', 'c++11'], ['c++', 'c++20']])('lowrank.h compiles as %s, %s, without a warning', (language, standard) => {
    run('cc', ['-x', language, `-std=${standard}`, '-Wall', '-Wextra', '-Wpedantic', '-Wc++-compat', '-Werror', '-fsyntax-only', header].filter((flag) => language === 'c' || flag !== '-Wc++-compat'));
  });

  it('the library exports what the header declares, versioned, and nothing else', () => {
    const symbols = run('nm', ['-D', '--defined-only', '--with-symbol-versions', library]).trim().split('\n').map((line) => line.split(' ').at(-1) as string);
    expect(symbols.filter((symbol) => !symbol.startsWith('LOWRANK_')).sort()).toEqual(declared.map((name) => `${name}@@LOWRANK_${interfaceVersion}`));
  });

  it('is another library, by soname, for programs linked with another minor version', () => {
    expect(/SONAME.*\[(.+?)\]/.exec(run('readelf', ['-d', library]))?.[1]).toBe(`liblowrank.so.${interfaceVersion}`);
  });

  it('the archive has the same names, and no other of ours to meet a name of the program', () => {
    const strong = run('nm', ['--defined-only', path.join(built, 'liblowrank.a')]).split('\n').flatMap((line) => /^\w+ [TDBR] (\S+)$/.exec(line)?.[1] ?? []);
    expect(strong.sort()).toEqual(declared);
  });

  it('the library needs nothing but the C and C++ runtime', () => {
    const needed = [...run('readelf', ['-d', library]).matchAll(/\(NEEDED\).*\[(.+?)\]/g)].map((match) => match[1] as string);
    expect(needed.filter((name) => !/^(libc|libm|libstdc\+\+|libgcc_s|libpthread|libdl|librt|ld-linux[-\w]*)\.so/.test(name))).toEqual([]);
  });

  it('keeps its promises, under ASan and UBSan', () => {
    const program = compileC('test/capi/checks.c', path.join(folder, 'checks'), 'sanitized');
    expect(failedClaims(run(program, []))).toEqual([]);
  });

  it('every op gives the same bits on rows with gaps, and leaves the gaps', () => {
    const output = run(compileC('test/capi/gaps.c', path.join(folder, 'gaps'), 'sanitized'), []);
    expect(failedClaims(output)).toEqual([]);
    expect(output.match(/^ok /gm)?.length).toBe(ops.length);
  });

  it('linked into a program found through PATH, looks for plugins where that lies and not where it was called', () => {
    compileC('test/capi/own_memory.c', path.join(folder, 'called'));
    expect(() => run('called', [], { cwd: tmpdir(), env: { PATH: `${folder}:${process.env.PATH}` } })).toThrow(`no cusim plugin: ${path.join(folder, 'liblowrank_cusim.so')}`);
  });

  it.skipIf(!existsSync(emulator)).each([
    ['computes on a device with memory of its own', {}],
    ['operands have CUDA\'s number of their device, which counts GPUs that are too old', { LOWRANK_CUSIM_OLD: '0' }],
  ])('%s', (_, env) => {
    const program = compileC('test/capi/own_memory.c', path.join(folder, 'emulated'));
    expect(failedClaims(run(program, [], { env: { LOWRANK_CUSIM_PLUGIN: emulator, ...env } }))).toEqual([]);
  });

  it.skipIf(!existsSync(emulator)).each(['bf16', 'f16'])('computes in %s on the caller\'s stream, with weights as they are and packed', (dtype) => {
    const program = compileC('test/capi/halves.c', path.join(folder, `halves-${dtype}`));
    expect(failedClaims(run(program, [dtype], { env: { LOWRANK_CUSIM_PLUGIN: emulator } }))).toEqual([]);
  });

  it('a plugin that is not there is an error with the path that was tried', () => {
    const program = compileC('test/capi/own_memory.c', path.join(folder, 'alone'));
    expect(() => run(program, [], { env: { LOWRANK_CUSIM_PLUGIN: path.join(folder, 'nowhere.so') } })).toThrow(/no cusim plugin: .*nowhere\.so/);
  });
});

const consumer = `cmake_minimum_required(VERSION 3.22)
project(consumer LANGUAGES C CXX)
find_package(lowrank ${version} REQUIRED)
add_executable(shared train.c)
target_link_libraries(shared PRIVATE lowrank::lowrank m)
add_executable(static train.c)
target_link_libraries(static PRIVATE lowrank::lowrank_static)
`;

describe.skipIf(!hasLibrary || !findsProgram('cmake', 'the C library is not installed and used'))('an installed library', () => {
  let folder: string;
  let losses: string;
  beforeAll(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'lowrank-install-'));
    run('cmake', ['--install', path.join(root, 'build'), '--prefix', path.join(folder, 'prefix')]);
    losses = run(compileC('examples/embed-c/train.c', path.join(folder, 'train')), []);
  }, 120_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('is found by find_package, as a shared library and as an archive', () => {
    writeFileSync(path.join(folder, 'CMakeLists.txt'), consumer);
    writeFileSync(path.join(folder, 'train.c'), readFileSync(path.join(root, 'examples/embed-c/train.c')));
    run('cmake', ['-S', folder, '-B', path.join(folder, 'build'), `-DCMAKE_PREFIX_PATH=${path.join(folder, 'prefix')}`]);
    run('cmake', ['--build', path.join(folder, 'build')]);
    for (const program of ['shared', 'static']) expect(run(path.join(folder, 'build', program), [])).toBe(losses);
  }, 120_000);

  it.skipIf(!findsProgram('pkg-config', 'the installed C library is not looked for by it'))('is found by pkg-config', () => {
    const lib = path.join(folder, 'prefix/lib');
    const flags = run('pkg-config', ['--cflags', '--libs', 'lowrank'], { env: { PKG_CONFIG_PATH: path.join(lib, 'pkgconfig') } });
    run('cc', ['-std=c99', path.join(root, 'examples/embed-c/train.c'), ...flags.trim().split(/\s+/), '-lm', '-o', path.join(folder, 'by-pkg-config')]);
    expect(run(path.join(folder, 'by-pkg-config'), [], { env: { LD_LIBRARY_PATH: lib } })).toBe(losses);
  });
});
