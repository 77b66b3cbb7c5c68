import { readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

/** Which rooms the files of a room may reach, besides their own. What is not listed is forbidden. */
const mayReach: Readonly<Record<string, readonly string[]>> = {
  // TypeScript. `src` is the floor of files that lie in src/ itself: error, native, device, tensor, scope, tape, op, kernel.
  src: [],
  'src/ops': ['src'],
  'src/nn': ['src', 'src/ops'],
  'src/io': ['src', 'src/lora/config'],
  'src/data': ['src'],
  'src/optim': ['src', 'src/ops', 'src/lora/arena'],
  'src/lora': ['src', 'src/ops', 'src/nn', 'src/io', 'src/data/random', 'src/models/model'],
  'src/models': ['src', 'src/ops', 'src/nn', 'src/io'],
  'src/train': ['src', 'src/ops', 'src/nn', 'src/models', 'src/lora', 'src/optim', 'src/io', 'src/data'],
  'src/generation': ['src', 'src/ops', 'src/models', 'src/data'],
  'src/cli': ['src', 'src/ops', 'src/nn', 'src/models', 'src/lora', 'src/optim', 'src/io', 'src/data', 'src/train', 'src/generation', 'src/index'],
  // Native. Kernels see contracts and the plain-data headers of the core, never each other's rooms, never Node.
  'native/core': ['native/ops', 'native/cpu/backend'],
  'native/ops': ['native/core/tensor', 'native/core/dtype'],
  'native/cpu': ['native/ops', 'native/core/context', 'native/core/tensor', 'native/core/dtype', 'native/core/backend', 'native/core/failure', 'native/core/signals_blocked'],
  'native/addon': ['native/core', 'native/ops'],
  'native/include': [],
  'native/capi': ['native/core/backend', 'native/core/dlpack', 'native/core/frozen_weight', 'native/ops', 'native/include'],
  'native/floor': [],
  cuda: ['native/ops', 'native/core'],
};

/** Files in src/ itself that stand above the rooms. */
const upstairs = new Set(['src/index']);

const nativeRooms = ['native/addon', 'native/core', 'native/ops', 'native/cpu', 'native/include', 'native/capi', 'native/floor', 'cuda'];

function filesUnder(folder: string): string[] {
  const at = path.join(root, folder);
  return readdirSync(at).flatMap((name) => {
    const inside = `${folder}/${name}`;
    return statSync(path.join(root, inside)).isDirectory() ? filesUnder(inside) : [inside];
  });
}

const isSource = (file: string): boolean => /\.(ts|mjs|c|h|cc|cpp|hpp|cu|cuh)$/.test(file);
const folders = ['src', 'native', 'cuda', 'test', 'bench', 'scripts', 'examples'];
const sources = folders.flatMap((folder) => (existsFolder(folder) ? filesUnder(folder) : [])).filter(isSource);
const text = (file: string): string => readFileSync(path.join(root, file), 'utf8');

function existsFolder(folder: string): boolean {
  return statSync(path.join(root, folder), { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function roomOf(file: string): string | null {
  const rooms = Object.keys(mayReach).filter((room) => room !== 'src' && file.startsWith(`${room}/`));
  if (rooms.length > 0) return rooms[0] as string;
  return file.startsWith('src/') ? 'src' : null;
}

/** Own files that a file imports or includes, without extension. */
function reached(file: string): string[] {
  const pattern = file.endsWith('.ts') ? /(?:from|import)\s*\(?\s*'(\.[^']+)'/g : /^\s*#include\s+"([^"]+)"/gm;
  return [...text(file).matchAll(pattern)].map((match) => path.posix.join(path.posix.dirname(file), match[1] as string).replace(/\.\w+$/, ''));
}

function isAllowed(room: string, target: string): boolean {
  const targetRoom = roomOf(`${target}.x`);
  if (targetRoom === room && !upstairs.has(target)) return true;
  return (mayReach[room] ?? []).some((allowed) => {
    if (allowed === 'src') return targetRoom === 'src' && !upstairs.has(target);
    return target === allowed || (Object.hasOwn(mayReach, allowed) && target.startsWith(`${allowed}/`));
  });
}

const writtenByProgram = 'native/include/lowrank.h';

describe('the rooms', () => {
  it('no import or include points upward', () => {
    const upward = sources.flatMap((file) => {
      const room = roomOf(file);
      if (room === null || upstairs.has(file.replace(/\.\w+$/, ''))) return [];
      return reached(file).filter((target) => !isAllowed(room, target)).map((target) => `${file} -> ${target}`);
    });
    expect(upward).toEqual([]);
  });

  it('only src/native.ts knows that there is an addon', () => {
    const others = sources.filter((file) => file.startsWith('src/') && file !== 'src/native.ts' && /require\('bindings'\)|\.node'/.test(text(file)));
    expect(others).toEqual([]);
  });

  it('only native/addon knows Node', () => {
    const others = sources.filter((file) => nativeRooms.some((room) => file.startsWith(`${room}/`)) && !file.startsWith('native/addon/') && /napi|node_api/.test(text(file)));
    expect(others).toEqual([]);
  });

  it('kernel files use nothing of the C++ library', () => {
    // A std:: inline function compiled for AVX-512 would be a weak symbol that the linker may keep for everybody.
    const kernels = sources.filter((file) => /^native\/cpu\/(gemm\/)?[^/]+\.(cpp|h)$/.test(file) && !/\/(backend|table)\.h$/.test(file));
    const users = kernels.filter((file) => /std::|#include <(vector|string|algorithm|memory|functional|array|utility|cmath)>/.test(text(file).replace(/\/\/.*/g, '')));
    expect(users).toEqual([]);
  });

  it('no file has more than 500 lines', () => {
    const long = sources.map((file) => [file, text(file).split('\n').length] as const).filter(([file, lines]) => lines > 500 && file !== writtenByProgram);
    expect(long).toEqual([]);
  });

  it('no file is a drawer for everything', () => {
    expect(sources.filter((file) => /(^|\/)(utils?|helpers?|common|misc)\.\w+$/.test(file))).toEqual([]);
  });

  it('every op of list.def has a TypeScript caller', () => {
    const ops = [...text('native/ops/list.def').matchAll(/^OP\((\w+),/gm)].map((match) => match[1] as string);
    const callers = sources.filter((file) => file.startsWith('src/')).map(text).join('\n');
    expect(ops.filter((op) => !callers.includes(`launch('${op}'`))).toEqual([]);
  });
});
