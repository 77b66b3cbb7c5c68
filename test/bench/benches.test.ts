import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { Bench, BenchContext, BenchOptions } from '../../bench/bench.ts';
import { loraLinear } from '../../bench/lora-linear.ts';
import { optimizer } from '../../bench/optimizer.ts';
import { block } from '../../bench/cuda/block.ts';
import { attention } from '../../bench/cuda/attention.ts';
import { skinny } from '../../bench/cuda/skinny.ts';
import { stream } from '../../bench/stream.ts';
import { findPeers } from '../../bench/peers.ts';
import { withRandomModel } from '../../bench/random-model.ts';
import type { ModelShape } from '../../bench/shapes.ts';
import { renderTable } from '../../bench/table.ts';
import { checkLosses, type MemoryAnswer, ourTrainer, type StepAnswer } from '../../bench/trainers.ts';
import { openDevice, probeDevices } from '../../src/device.ts';
import { onCpu } from '../on-cpu.ts';

const usual: BenchOptions = { all: false, shape: null, dtype: 'bf16', precision: 'highest', rounds: 1, seconds: null, peersRun: 'eager', limit: null };

describe('a bench', () => {
  const cpu = onCpu();
  const context = (options: Partial<BenchOptions>): BenchContext => ({ options: { ...usual, ...options }, device: cpu.device, activations: 'f32', medium: null, peers: null, peak: null });

  const cases: readonly { readonly name: string; readonly bench: Bench; readonly options: Partial<BenchOptions>; readonly columns: readonly string[]; readonly rows: number }[] = [
    { name: 'lora-linear', bench: loraLinear, options: { shape: '17x24x40x4' }, columns: ['frozen ms', 'p=0 / frozen', 'p=0.1 / frozen', 'FLOP floor'], rows: 1 },
    { name: 'lora-linear in f16', bench: loraLinear, options: { shape: '3x8x8x2', dtype: 'f16' }, columns: ['GFLOP/s'], rows: 1 },
    { name: 'skinny', bench: skinny, options: { shape: '17x24x4' }, columns: ['product', 'GB/s', 'of copy rate'], rows: 6 },
    { name: 'attention', bench: attention, options: { shape: '2x12x2x1x8' }, columns: ['pass', 'µs', 'TFLOP/s'], rows: 2 },
    { name: 'block', bench: block, options: { shape: 'micro' }, columns: ['who', 'ms', 'over ours, frozen'], rows: 6 },
    { name: 'optimizer', bench: optimizer, options: { shape: '1000' }, columns: ['ms', 'GB/s'], rows: 2 },
  ];
  it.each(cases)('$name: gives a table that is JSON and can be printed, ours alone without peers', async ({ bench, options, columns, rows }) => {
    const { tables } = await bench.run(context(options));
    expect(JSON.parse(JSON.stringify(tables))).toEqual(tables);
    const [table = []] = Object.values(tables);
    expect(Object.keys(tables)).toHaveLength(1);
    expect(table).toHaveLength(rows);
    for (const row of table) expect(Object.keys(row)).toEqual(expect.arrayContaining([...columns]));
    expect(renderTable(table).split('\n')).toHaveLength(rows + 2);
  });

  it.each([
    { bench: loraLinear, shape: '17x24' },
    { bench: loraLinear, shape: 'large' },
    { bench: optimizer, shape: '1.5' },
    { bench: skinny, shape: '17x24' },
    { bench: attention, shape: '2x12x2x1' },
    { bench: attention, shape: '2x4x2x1x8' },
    { bench: block, shape: 'llama9b' },
    { bench: stream, shape: 'cpu', found: 'cpu; bench large asks the same of a CPU' },
  ])('refuses --shape $shape and tells what it may be', async ({ bench, shape, found = shape }) => {
    await expect(bench.run(context({ shape }))).rejects.toThrow(`(found ${found})`);
  });

  it('without PyTorch + PEFT says so and why', () => {
    const said: string[] = [];
    expect(findPeers('/nowhere/python', { threads: 2, gpu: false }, (line) => said.push(line))).toBeNull();
    expect(findPeers(process.execPath, { threads: 2, gpu: false }, (line) => said.push(line))).toBeNull();
    expect(said).toHaveLength(2);
    for (const line of said) expect(line).toMatch(/^peers: no Python with torch, transformers and peft \(.+timing lowrank alone$/);
    expect(said[0]).toContain('/nowhere/python does not exist');
  });
});

const { count: emulators } = probeDevices('cusim');

describe.skipIf(emulators === 0)('on a device with memory of its own (the emulator)', () => {
  it('stream: the same step with all weights there and with 40 % of them, and what was brought', async () => {
    await using device = await openDevice('cusim', { activations: 'bf16' });
    const { tables } = await stream.run({ options: usual, device, activations: 'bf16', medium: null, peers: null, peak: null });
    const [there, turns] = Object.values(tables)[0] as [Record<string, number>, Record<string, number>];
    expect([there['who'], turns['who']]).toEqual(['all weights there', 'weights in turns']);
    expect(Object.keys(there)).toEqual(expect.arrayContaining(['speed over all there', 'GB/s brought', 'GPU MiB at most']));
    expect([there['MB a step'], turns['MB a step']! > 0, turns['MiB of weights']! < there['MiB of weights']!]).toEqual([0, true, true]);
  });

  it.each([
    { program: 'once.ts', what: 'the linears of a layer', args: ['0', 'micro', '20'] },
    { program: 'once.ts', what: 'with dropout', args: ['0.1', 'micro', '20'] },
    { program: 'step-once.ts', what: 'a step', args: ['micro', '20'] },
  ])('$program does its work once, for a profiler: $what', ({ program, args }) => {
    const file = fileURLToPath(new URL(`../../bench/cuda/${program}`, import.meta.url));
    const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx', file, 'cusim', ...args], { encoding: 'utf8' });
    expect([status, stderr]).toEqual([0, '']);
  });
});

describe('training beside others', () => {
  const small = { hidden: 32, layers: 2, heads: 4, kvHeads: 4, intermediate: 48, vocab: 64, positions: 32 };
  const models: readonly ModelShape[] = [{ ...small, family: 'llama', name: 'llama' }, { ...small, family: 'gpt2', name: 'gpt2' }];

  it.each(models)('$name of random weights: trains in a process that answers lines, at the loss of guessing', async (shape) => {
    const answers = await withRandomModel(shape, async (folder) => {
      const worker = ourTrainer().start(folder, { rank: 4, batch: 2, tokens: 16 });
      try {
        const load = (await worker.ask('load')) as MemoryAnswer;
        return { load, step: (await worker.ask('step')) as StepAnswer, memory: (await worker.ask('memory')) as MemoryAnswer };
      } finally {
        await worker.stop();
      }
    });
    expect(answers.step.loss).toBeCloseTo(Math.log(shape.vocab), 0);
    expect(answers.load.savedMiB).toBe(0);
    expect(answers.memory.savedMiB).toBeGreaterThan(0);
    expect(answers.memory.peakMiB).toBeGreaterThanOrEqual(answers.load.importsMiB);
  });

  it('is refused when the first losses differ, 16-bit arithmetic by its rounding', () => {
    const run = (who: string, firstLoss: number) => ({ trainer: { ...ourTrainer(), who }, firstLoss });
    checkLosses('step', [run('lowrank', 4), run('PEFT f32', 4.0005), run('PEFT bf16', 4.01)]);
    expect(() => checkLosses('step', [run('lowrank', 4.01), run('PEFT f32', 4)])).toThrow('the first loss of lowrank must be 4 ');
    expect(() => checkLosses('step', [run('lowrank', 4), run('PEFT bf16', NaN)])).toThrow('PEFT bf16');
  });
});
