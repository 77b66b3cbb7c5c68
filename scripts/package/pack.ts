import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { prebuild, root } from './prebuild.ts';

/** A packed tarball. */
export interface Tarball {
  readonly file: string;
  /** Bytes packed and unpacked. */
  readonly size: number;
  readonly unpackedSize: number;
  readonly files: readonly { path: string; size: number }[];
  /** A line about each binary. */
  readonly binaries: readonly string[];
}

/** Lays out in `folder` what the package is made of, with prebuilds of build/Release, and packs it. The working tree is only read. */
export function packInto(folder: string): Tarball {
  const stage = path.join(folder, 'stage');
  const { files } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { files: string[] };
  mkdirSync(stage, { recursive: true });
  for (const name of ['package.json', 'README.md', 'LICENSE', ...files.filter((each) => each !== 'prebuilds')]) {
    if (!existsSync(path.join(root, name))) throw new Error(`pack: ${name} must be there; run npm run build:all`);
    cpSync(path.join(root, name), path.join(stage, name), { recursive: true });
  }
  const binaries = prebuild(stage, true);
  const [told] = JSON.parse(execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], { cwd: stage, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })) as [Tarball & { filename: string }];
  return { file: path.join(folder, told.filename), size: told.size, unpackedSize: told.unpackedSize, files: told.files, binaries };
}
