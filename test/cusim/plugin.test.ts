import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Device, openDevice, probeDevices } from '../../src/device.ts';
import { launch } from '../../src/kernel.ts';
import { kernelTable, readKernels } from '../../scripts/cuda-kernels.ts';

const { count, why } = probeDevices('cusim');
if (count === 0) console.warn(`the emulator's plugin: not tested (${why.split(':')[0]})`);

/** 0 or 1/(1-p) for each of [rows, cols] elements: u = x A^T of ones and the unit matrix, under dropout. */
async function maskOf(device: Device, rows: number, cols: number, seed: readonly [number, number], step: number): Promise<Float32Array> {
  const unit = new Float32Array(cols * cols).map((_, i) => (i % (cols + 1) === 0 ? 1 : 0));
  const x = device.tensor(new Float32Array(rows * cols).fill(1), [rows, cols]);
  const [y, u] = [device.empty([rows, 1]), device.empty([rows, cols])];
  const weight = device.weight([device.tensor(new Float32Array(cols), [1, cols])]);
  const b = device.tensor(new Float32Array(cols), [1, cols]);
  launch('lora_linear', y, u, x, weight, null, null, device.tensor(unit, [cols, cols]), b, cols, 0, 0, 1, 0, 0, 77, 0, 0, 0.3, ...seed, step);
  return (await u.data()) as Float32Array;
}

describe.skipIf(count === 0)("the emulator's plugin", () => {
  it('dropout masks are those of the CPU, bit for bit', async () => {
    await using cpu = await openDevice('cpu');
    await using device = await openDevice('cusim');
    for (const [seed, step] of [[[1, 0], 1], [[0xdeadbeef, 0xffffffff], 0xffffffff]] as const) {
      const mask = await maskOf(device, 61, 37, seed, step);
      expect(mask).toEqual(await maskOf(cpu, 61, 37, seed, step));
      expect(mask.filter((factor) => factor === 0).length / mask.length).toBeCloseTo(0.3, 1);
    }
  });

  it('offsets that do not rise from 0 to T are an error that names the element, and the device goes on', async () => {
    await using device = await openDevice('cusim');
    const tensor = (rows: number, cols: number) => device.tensor(new Float32Array(rows * cols), [rows, cols]);
    for (const [offsets, says] of [[[0, 3, 2, 4], 'element 2 is 2'], [[1, 4], 'element 0 is 1'], [[0, 5], 'element 1 is 5'], [[0, -1, 4], 'element 1 is -1'], [[0, 3], 'element 1 is 3']] as const) {
      const at = device.tensor(Int32Array.from(offsets));
      launch('attention', tensor(4, 4), tensor(4, 2), tensor(4, 8), at, 2, 1, 0, 1);
      await expect(device.fence()).rejects.toMatchObject({ code: 'ERR_RANGE', message: expect.stringContaining(`attention: offsets must rise from 0 to T = 4 (${says})`) as string });
      launch('attention_grad', tensor(4, 8), tensor(4, 4), tensor(4, 8), tensor(4, 4), tensor(4, 2), at, 2, 1, 0, 1);
      await expect(device.fence()).rejects.toMatchObject({ code: 'ERR_RANGE', message: expect.stringContaining(says) as string });
    }
  });

  it('an index out of range names the first row, and an optimizer step behind it changes nothing', async () => {
    await using device = await openDevice('cusim');
    const start = Float32Array.from({ length: 5 }, (_, i) => i + 1);
    const [p, m, v, g] = [device.tensor(start), device.tensor(start), device.tensor(start), device.tensor(start)];
    const embed = (...ids: number[]): void => launch('embedding', device.empty([ids.length, 2]), device.tensor(Int32Array.from(ids)), device.tensor(new Float32Array(8), [4, 2]), null, null);
    embed(0, 3);
    embed(1, 4, -1);
    launch('adamw', p, m, v, g, device.tensor(Float32Array.of(1)), device.tensor(Float32Array.of(1)), 1, 1, 0.1, 0.9, 0.999, 1e-8, 0.1, 0.1, 0.001);
    await expect(device.fence()).rejects.toMatchObject({ code: 'ERR_RANGE', message: expect.stringContaining('embedding: id 4 at row 1 is outside [0, 4)') as string });
    expect(await p.data()).toEqual(start);
    launch('adamw', p, m, v, g, device.tensor(Float32Array.of(1)), device.tensor(Float32Array.of(1)), 1, 1, 0.1, 0.9, 0.999, 1e-8, 0.1, 0.1, 0.001);
    expect(await p.data()).not.toEqual(start);
  });

  it('a device that is not there is refused by its index', async () => {
    await expect(openDevice('cusim:2')).rejects.toMatchObject({ code: 'ERR_DEVICE', message: expect.stringContaining('found index 2') as string });
  });
});

const cudaPlugin = fileURLToPath(new URL('../../build/Release/liblowrank_cuda.so', import.meta.url));
const hasTools = existsSync(cudaPlugin) && spawnSync('nm', ['--version']).status === 0;
if (!hasTools) console.warn('the CUDA plugin: not tested (no nvcc has built it, or there are no binutils)');
const run = (command: string, ...args: string[]): string => execFileSync(command, args, { encoding: 'utf8', maxBuffer: 64 << 20 });

/** What leaves a multiprocessor's 65,536 registers to as many blocks as the kernel is made for: two of 256 threads, two of 128, or half of all threads. */
function registersOf(name: string): number {
  if (/^(masked_tiles|skinny_swiglu_tiles|multiply_tiles)/.test(name)) return 128;
  return /flash|_tiles|^multiply_halves/.test(name) ? 255 : 64;
}

describe.skipIf(!hasTools)('the CUDA plugin', () => {
  it('exports one symbol and needs nothing but the C and C++ runtime', () => {
    const exported = run('nm', '-D', '--defined-only', cudaPlugin).trim().split('\n').map((line) => line.split(' ').at(-1));
    expect(exported).toEqual(['lowrank_backend']);
    const needed = [...run('readelf', '-d', cudaPlugin).matchAll(/\(NEEDED\).*\[(.+?)\]/g)].map((match) => match[1] as string);
    expect(needed.filter((name) => !/^(libc|libm|libstdc\+\+|libgcc_s|libpthread|libdl|librt|ld-linux[-\w]*)\.so/.test(name))).toEqual([]);
  });

  it.each([80, 86, 89, 90, 100, 120])('has for sm_%d kernels without a stack, and the products of 16 bits on tensor cores: the table', (arch) => {
    const kernels = readKernels(cudaPlugin, arch);
    if (arch === 90) console.log(`sm_90a\n${kernelTable(kernels)}`);
    for (const { name, registers, stack } of kernels) expect([name, registers > 0 && registers <= registersOf(name), stack]).toEqual([name, true, 0]);
    for (const product of ['attend_flash', 'query_grad_flash', 'key_grad_flash', 'key_grad_flash_in_pairs', 'multiply_halves', 'skinny_tiles']) {
      const cases = kernels.filter(({ name }) => name.startsWith(`${product}<`));
      expect([product, cases.length > 0 && cases.every(({ tensor }) => tensor > 0)]).toEqual([product, true]);
    }
  });

  it('is opened here, or says in a sentence why not', async () => {
    const cuda = probeDevices('cuda');
    if (cuda.count > 0) return (await openDevice('cuda')).close();
    expect(cuda.why).toMatch(/driver|device|too old/);
    await expect(openDevice('cuda')).rejects.toMatchObject({ code: 'ERR_DEVICE', message: `cuda: ${cuda.why}` });
  });
});

describe.skipIf(!hasTools || spawnSync('c++', ['--version']).status !== 0)('what multiplies matrices of 16 bits', () => {
  let folder: string;
  let program: string;
  beforeAll(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'lowrank-lt-'));
    program = path.join(folder, 'status');
    const search = fileURLToPath(new URL('../../cuda/gemm/lt_library.cpp', import.meta.url));
    writeFileSync(path.join(folder, 'main.cpp'), `#include <stdio.h>\n#include "${search}"\nint main() { puts(lowrank::cuda::lt_status()); }\n`);
    run('c++', '-std=c++20', '-O0', path.join(folder, 'main.cpp'), '-o', program, '-ldl');
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const told = (env: Readonly<Record<string, string>>): string => execFileSync(program, { encoding: 'utf8', env: { HOME: folder, ...env } }).trim();

  it('is the own kernel where cublasLt was not found, which tells where it was looked for', () => {
    const text = told({ CUDA_HOME: '/nowhere/cuda', VIRTUAL_ENV: '/nowhere/venv' });
    if (text.startsWith('cublasLt 13.')) return console.warn(`cublasLt is installed here (${text}): not tested what is told where it isn't`);
    expect(text).toMatch(/^own kernel \(libcublasLt\.so\.13 was not found by the linker, nor in .*\/nowhere\/cuda\/lib64.*\/usr\/local\/cuda\/lib64.*\/nowhere\/venv\/lib\/python3.*; LOWRANK_CUBLASLT may name it\)$/);
    expect(text.length).toBeLessThan(1024);
  });

  it('is the own kernel where the variable says so, or names what is no cublasLt', () => {
    expect(told({ LOWRANK_CUBLASLT: 'off' })).toBe('own kernel (LOWRANK_CUBLASLT=off)');
    expect(told({ LOWRANK_CUBLASLT: '/nowhere/lt.so' })).toBe('own kernel (LOWRANK_CUBLASLT: there is no /nowhere/lt.so)');
    expect(told({ LOWRANK_CUBLASLT: cudaPlugin })).toBe(`own kernel (LOWRANK_CUBLASLT: ${cudaPlugin} has no cublasLtGetVersion)`);
  });
});
