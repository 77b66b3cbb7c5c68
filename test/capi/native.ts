import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));
/** Where the build leaves libraries and programs. */
export const built = path.join(root, 'build/Release');
export const header = path.join(root, 'native/include/lowrank.h');

/** What a command prints; a failure throws with all it said. */
export function run(command: string, args: readonly string[], options: { readonly cwd?: string; readonly env?: Readonly<Record<string, string>> } = {}): string {
  const { status, error, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 64 << 20, ...options, env: { ...process.env, ...options.env } });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? `ended with ${status}`}\n${stdout}${stderr}`);
  return stdout;
}

export const hasProgram = (name: string, ...args: string[]): boolean => spawnSync(name, args.length === 0 ? ['--version'] : args).status === 0;

/** As hasProgram; where the program is missing, it is told what is not run without it. */
export function findsProgram(name: string, without: string): boolean {
  const there = hasProgram(name);
  if (!there) console.warn(`${name} is not installed (Debian: apt-get install ${name}): ${without}`);
  return there;
}

/** Whether the C library has been built and there is a C compiler to use it with; told once where not. */
export const hasLibrary = process.platform === 'linux' && existsSync(path.join(built, 'liblowrank.a')) && hasProgram('cc');
if (!hasLibrary) console.warn('capi: build/Release/liblowrank.a or a C compiler is missing; the tests of the C ABI are not run');

const sanitizers = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all'];

/** Compiles a C program against the archive, with every warning an error; `sanitized` by ASan and UBSan. Returns its path. */
export function compileC(source: string, program: string, how: 'plain' | 'sanitized' = 'plain'): string {
  const flags = ['-std=c99', '-O1', '-g', '-Wall', '-Wextra', '-Wpedantic', '-Werror', ...(how === 'sanitized' ? sanitizers : [])];
  run('cc', [...flags, '-I', path.dirname(header), path.join(root, source), path.join(built, 'liblowrank.a'), '-lstdc++', '-lm', '-ldl', '-lpthread', '-o', program]);
  return program;
}
