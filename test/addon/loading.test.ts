import { copyFileSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { addonFault, addonFile } from '../../src/native.ts';
import { explainFault, type LoadFacts } from '../../src/native-fault.ts';

const installed = '/app/node_modules/lowrank';
const debian: LoadFacts = {
  platform: 'linux', arch: 'x64', glibc: '2.36', node: 'v22.1.0', napi: '10', root: installed, chosen: undefined,
  places: [`${installed}/build/Release/lowrank.node`, `${installed}/prebuilds/linux-x64/lowrank.node`], present: [], reason: 'Could not locate the bindings file.',
};
const prebuilt = `${installed}/prebuilds/linux-x64/lowrank.node`;

/** A system, and what the person there must read. */
const systems: readonly [string, Partial<LoadFacts>, readonly RegExp[]][] = [
  ['Linux on arm64', { arch: 'arm64' }, [/no lowrank\.node for this platform/, /linux-arm64, glibc 2\.36/, /no addon comes ready for linux-arm64/, /npx lowrank build/, /libhwy-dev/]],
  ['musl', { glibc: null, present: [prebuilt], reason: 'Error loading shared library ld-linux-x86-64.so.2' }, [/musl/, /node:22-slim instead of node:22-alpine/, /npx lowrank build/]],
  ['an old glibc', { glibc: '2.17', present: [prebuilt], reason: "/lib64/libc.so.6: version `GLIBC_2.27' not found" }, [/GLIBC_2\.27/, /glibc 2\.17/, /older than the addon was built for \(glibc 2\.28/, /npx lowrank build/]],
  ['no C++ runtime', { present: [prebuilt], reason: 'libstdc++.so.6: cannot open shared object file: No such file or directory' }, [/apt-get install libstdc\+\+6/]],
  ['macOS', { platform: 'darwin', arch: 'arm64', glibc: null }, [/darwin-arm64, Node v22/, /no darwin build/, /container/]],
  ['Windows', { platform: 'win32', glibc: null }, [/WSL 2/]],
  ['a file that was cut short', { present: [prebuilt], reason: `${prebuilt}: file too short` }, [/file too short/, /install the package again/, new RegExp(`looked in: ${prebuilt}$`, 'm')]],
  ['a checkout', { root: '/home/me/lowrank' }, [/npm run build:native {3}\(in \/home\/me\/lowrank\)/]],
  ['a bundle without its prebuilds', { reason: "Cannot find module 'bindings'" }, [/a bundle needs the package's folder prebuilds\/linux-x64 beside it/, /external/]],
  ['a wrong LOWRANK_ADDON', { chosen: '/x.node', places: ['/x.node'] }, [/LOWRANK_ADDON names a file that is not there/, /or unset it/]],
];

describe('an addon that does not load is explained', () => {
  it.each(systems)('%s', (_, facts, words) => {
    const text = explainFault({ ...debian, ...facts });
    for (const word of words) expect(text).toMatch(word);
  });
});

describe('LOWRANK_ADDON', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-addon-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  afterEach(() => vi.unstubAllEnvs());
  const faultOf = (file: string): string => {
    vi.stubEnv('LOWRANK_ADDON', file);
    expect(addonFile()).toBe(existsSync(file) ? file : undefined);
    return addonFault()?.message ?? '';
  };

  it.each([
    ['is not there', 'gone.node', null, /names a file that is not there/],
    ['is no library', 'text.node', 'not a library', /must load \(.*(invalid ELF header|file too short)/],
  ] as const)('a file that %s is told of', (_, name, content, words) => {
    const file = path.join(folder, name);
    if (content !== null) writeFileSync(file, content);
    expect(faultOf(file)).toMatch(words);
  });

  it('chooses the file, wherever it lies', () => {
    const file = path.join(folder, 'mine.node');
    copyFileSync(fileURLToPath(new URL('../../build/Release/lowrank.node', import.meta.url)), file);
    expect(faultOf(file)).toBe('');
  });
});
