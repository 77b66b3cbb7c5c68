// The C library as a system without Node gets it: built with no node in reach, installed, found by find_package and by pkg-config; and built
// under ASan and UBSan. Each time the C example must come to PEFT's losses. `node --import tsx scripts/package/library.ts` does this alone.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { linkTools } from './consume.ts';
import { root } from './prebuild.ts';

/** What building C++ takes, and nothing more. */
export const buildTools = ['cmake', 'make', 'ninja', 'cc', 'c++', 'gcc', 'g++', 'as', 'ld', 'ar', 'ranlib', 'nm', 'objcopy', 'objdump', 'strip', 'sh', 'uname', 'pkg-config'];
// As on a machine without nvcc; the kernels for wider processors are the same sources, and `lowrank build` of the same check compiles them.
const small = ['-DLOWRANK_CUDA=OFF', '-DLOWRANK_BASE_ONLY=ON'];
const example = path.join(root, 'examples/embed-c/train.c');

/** Throws on the first thing that is not as it must be; tells `say` what was done. */
export function checkLibrary(folder: string, say: (line: string) => void): void {
  const env = { PATH: path.join(folder, 'bin'), HOME: folder };
  linkTools(env.PATH, buildTools);
  const run = runner(env);
  const prefix = path.join(folder, 'prefix');
  const seconds = build(run, path.join(folder, 'build'), ['-DCMAKE_BUILD_TYPE=Release', ...small, `-DCMAKE_INSTALL_PREFIX=${prefix}`]);
  run('cmake', ['--install', path.join(folder, 'build')]);
  say(`the C library, built without Node in ${seconds} s and installed`);
  for (const program of byFindPackage(run, folder, prefix)) expectLosses(run(program, []));
  say('found by find_package, shared and as an archive: PEFT\'s losses');
  if (spawnSync('pkg-config', ['--version'], { env }).status === 0) {
    const lib = path.join(prefix, 'lib');
    const flags = runner({ ...env, PKG_CONFIG_PATH: path.join(lib, 'pkgconfig') })('pkg-config', ['--cflags', '--libs', 'lowrank']);
    run('cc', ['-std=c99', example, ...flags.trim().split(/\s+/), '-lm', '-o', path.join(folder, 'by-pkg-config')]);
    expectLosses(runner({ ...env, LD_LIBRARY_PATH: lib })(path.join(folder, 'by-pkg-config'), []));
    say("found by pkg-config: PEFT's losses");
  } else say('pkg-config is not installed (Debian: pkg-config): not tried');
  sanitized(run, path.join(folder, 'sanitized'), say);
}

type Run = (command: string, args: readonly string[]) => string;

function runner(env: Readonly<Record<string, string>>): Run {
  return (command, args) => {
    const { status, error, stdout, stderr } = spawnSync(command, args, { env, encoding: 'utf8', maxBuffer: 64 << 20 });
    if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? `ended with ${String(status)}`}\n${(stdout + stderr).slice(-4000)}`);
    return stdout;
  };
}

function build(run: Run, folder: string, settings: readonly string[]): string {
  const began = performance.now();
  run('cmake', ['-S', root, '-B', folder, '-DLOWRANK_NODE=OFF', ...settings]);
  run('cmake', ['--build', folder, '--parallel', '2']);
  return ((performance.now() - began) / 1000).toFixed(0);
}

const consumer = `cmake_minimum_required(VERSION 3.22)
project(consumer LANGUAGES C CXX)
find_package(lowrank REQUIRED)
add_executable(shared train.c)
target_link_libraries(shared PRIVATE lowrank::lowrank m)
add_executable(static train.c)
target_link_libraries(static PRIVATE lowrank::lowrank_static)
`;

function byFindPackage(run: Run, folder: string, prefix: string): string[] {
  const source = path.join(folder, 'consumer');
  mkdirSync(source);
  writeFileSync(path.join(source, 'CMakeLists.txt'), consumer);
  cpSync(example, path.join(source, 'train.c'));
  run('cmake', ['-S', source, '-B', path.join(source, 'build'), `-DCMAKE_PREFIX_PATH=${prefix}`]);
  run('cmake', ['--build', path.join(source, 'build')]);
  return ['shared', 'static'].map((name) => path.join(source, 'build', name));
}

/** The whole library, not the example alone. */
function sanitized(run: Run, folder: string, say: (line: string) => void): void {
  const flags = '-fsanitize=address,undefined -fno-sanitize-recover=all';
  const seconds = build(run, folder, ['-DCMAKE_BUILD_TYPE=Debug', '-DLOWRANK_FLOOR=OFF', ...small, `-DCMAKE_CXX_FLAGS=${flags}`, `-DCMAKE_SHARED_LINKER_FLAGS=${flags}`]);
  const program = path.join(folder, 'train');
  run('cc', ['-std=c99', '-g', ...flags.split(' '), '-I', path.join(root, 'native/include'), example, path.join(folder, 'Release/liblowrank.a'), '-lstdc++', '-lm', '-ldl', '-lpthread', '-o', program]);
  expectLosses(run(program, []));
  say(`the library under ASan and UBSan, built in ${seconds} s, trains to PEFT's losses and they have nothing to say`);
}

/** "loss norm" a line, as test/golden/embed.py has them. */
function expectLosses(output: string): void {
  const { layer } = JSON.parse(readFileSync(path.join(root, 'test/golden/embed.json'), 'utf8')) as { layer: { losses: number[] } };
  const losses = output.trim().split('\n').map((line) => Number(line.split(' ')[0]));
  const furthest = Math.max(...layer.losses.map((loss, i) => Math.abs(loss - (losses[i] ?? NaN))));
  if (!(furthest < 1e-5)) throw new Error(`embed-c: losses must be PEFT's within 1e-5 (they are ${furthest} off)`);
}

if (import.meta.url === pathToFileURL(process.argv[1] as string).href) {
  const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-library-'));
  try {
    checkLibrary(folder, (line) => console.log(line));
  } finally {
    rmSync(folder, { recursive: true });
  }
}
