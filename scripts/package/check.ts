// npm run check:package: what a release must pass. Packs what is built, lints the tarball, and trains with it as an installed package: with
// every Node version named below, bundled, and compiled against its declarations; builds the C library without Node, and under sanitizers.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { build, type BuildOptions } from 'esbuild';
import { consume, faultOf, installInto, type Project, versionOf } from './consume.ts';
import { checkLibrary } from './library.ts';
import { packInto } from './pack.ts';
import { root } from './prebuild.ts';

const nodeVersions = ['20', '22', '24'];
const bin = (name: string): string => path.join(root, 'node_modules/.bin', name);
const say = (text: string): void => console.log(text);

/** The ways to bundle that work, and what has to lie beside the result. */
const bundles: readonly { name: string; out: string; options: BuildOptions; beside: boolean }[] = [
  { name: 'lowrank stays in node_modules', out: 'external.mjs', options: { format: 'esm', external: ['lowrank'] }, beside: false },
  { name: 'all in one ES module', out: 'whole/app.mjs', options: { format: 'esm' }, beside: true },
  { name: 'all in one CommonJS file', out: 'whole/app.cjs', options: { format: 'cjs', logOverride: { 'empty-import-meta': 'silent' } }, beside: true },
];

async function main(): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-check-'));
  try {
    const tarball = packInto(folder);
    say(`${(tarball.size / 1e6).toFixed(2)} MB packed, ${(tarball.unpackedSize / 1e6).toFixed(2)} MB unpacked, ${tarball.files.length} files`);
    say(tarball.binaries.join('\n'));
    say(listing(tarball.files));
    say(run(bin('publint'), ['--strict', tarball.file]));
    say(run(bin('attw'), [tarball.file, '--profile', 'esm-only', '--format', 'ascii']));
    const project = installInto(path.join(folder, 'project'), tarball.file);
    say(`installed without scripts in ${project.seconds.toFixed(1)} s`);
    compile(project);
    for (const version of nodeVersions) await tryNode(project, path.join(folder, `node-${version}`), version);
    for (const bundle of bundles) await tryBundle(project, path.join(folder, 'bundled'), bundle);
    await tryBuild(project);
    mkdirSync(path.join(folder, 'library'));
    checkLibrary(path.join(folder, 'library'), say);
    say('the package is fit to be published');
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Every file of the tarball with its size, largest first. */
function listing(files: readonly { path: string; size: number }[]): string {
  return [...files].sort((a, b) => b.size - a.size).map(({ path: name, size }) => `${(size / 1024).toFixed(1).padStart(9)} KiB  ${name}`).join('\n');
}

function run(command: string, args: readonly string[], cwd = root): string {
  try {
    return execFileSync(command, args, { cwd, encoding: 'utf8' }).trim();
  } catch (error) {
    throw new Error(`${path.basename(command)} ${args.join(' ')}\n${(error as { stdout?: string }).stdout ?? ''}`, { cause: error });
  }
}

/** With the library's own declarations checked, in both readings of the package. A bundler knows no `import = require`. */
function compile({ folder }: Project): void {
  for (const name of ['@types/node', 'undici-types']) cpSync(path.join(root, 'node_modules', name), path.join(folder, 'node_modules', name), { recursive: true });
  const strict = ['--noEmit', '--strict', '--exactOptionalPropertyTypes', '--target', 'es2022', '--lib', 'es2023,esnext.disposable', '--types', 'node'];
  const readings = [
    { files: ['typed.ts', 'typed-common.cts'], resolution: ['--module', 'nodenext'] },
    { files: ['typed.ts'], resolution: ['--module', 'esnext', '--moduleResolution', 'bundler'] },
  ];
  for (const { files, resolution } of readings) {
    run(bin('tsc'), [...strict, ...resolution, '--ignoreConfig', ...files], folder);
    say(`${files.join(' and ')} compile${files.length === 1 ? 's' : ''} with ${resolution.join(' ')}`);
  }
}

async function tryNode(project: Project, folder: string, version: string): Promise<void> {
  const name = `node-${process.platform}-${process.arch}`;
  mkdirSync(folder);
  writeFileSync(path.join(folder, 'package.json'), '{ "private": true }');
  run('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', `${name}@${version}`], folder);
  for (const script of ['esm.mjs', 'common.cjs', 'worker.mjs']) await expectTraining(`Node ${versionOf(folder, name)}, ${script}`, project, script, path.join(folder, 'node_modules', name, 'bin/node'));
}

async function tryBundle(project: Project, folder: string, { name, out, options, beside }: (typeof bundles)[number]): Promise<void> {
  const entry = out.endsWith('.cjs') ? 'common.cjs' : 'esm.mjs';
  await build({ entryPoints: [path.join(project.folder, entry)], outfile: path.join(beside ? folder : project.folder, out), bundle: true, platform: 'node', target: 'node20', logLevel: 'warning', ...options });
  const installed = path.join(project.folder, 'node_modules/lowrank');
  if (beside) {
    // What the consumer reads, and the addon: nothing else of the package.
    cpSync(path.join(installed, 'demo'), path.join(folder, 'node_modules/lowrank/demo'), { recursive: true });
    cpSync(path.join(installed, 'prebuilds'), path.join(folder, path.dirname(out), 'prebuilds'), { recursive: true });
  }
  await expectTraining(`bundled, ${name}`, beside ? { ...project, folder } : project, out);
}

/** The package's own sources, by the tools of this machine; what is built is looked for before what came ready. */
async function tryBuild(project: Project): Promise<void> {
  const began = performance.now();
  const told = run(path.join(project.folder, 'node_modules/.bin/lowrank'), ['build', '--no-cuda'], project.folder);
  const addon = path.join('node_modules/lowrank/build/Release/lowrank.node');
  if (!/^addon .*build.Release.lowrank\.node/m.test(told)) throw new Error(`lowrank build: doctor must find ${addon}\n${told.slice(-2000)}`);
  say(`built from source in ${((performance.now() - began) / 1000).toFixed(0)} s`);
  await expectTraining('built from source', project, 'esm.mjs');
}

async function expectTraining(what: string, project: Project, script: string, node?: string): Promise<void> {
  for (const told of await consume(project, script, node)) {
    const fault = faultOf(told);
    if (fault !== undefined) throw new Error(`${what}: ${fault}`);
    say(`${what}: trains (loss ${told.first.toFixed(3)} to ${told.last.toFixed(3)}, ${told.node})`);
  }
}

await main();
