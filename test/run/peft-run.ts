import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** A run of PEFT: `run.json` of test/golden/runs and of the shared data set, as far as the command line needs it. */
export interface PeftRun {
  readonly config: {
    readonly steps: number; readonly micro: number; readonly B: number; readonly lr: number; readonly betas: readonly [number, number];
    readonly wd: number; readonly clip: number | null; readonly sched: string; readonly warmup: number; readonly loraplus_lr_ratio?: number;
  };
  readonly log: readonly { readonly step: number; readonly loss: number; readonly grad_norm: number; readonly lr: number; readonly tokens?: number }[];
}

export function readPeftRun(folder: string): PeftRun {
  return JSON.parse(readFileSync(path.join(folder, 'run.json'), 'utf8')) as PeftRun;
}

interface Entry {
  readonly dtype: string;
  readonly shape: number[];
  readonly data_offsets: [number, number];
}

/** Raw tensors of a safetensors file that is trusted; shares nothing with the reader under test. */
export function rawTensors(file: string): Map<string, { shape: number[]; dtype: string; bytes: Uint8Array }> {
  const content = readFileSync(file);
  const headerBytes = Number(content.readBigUInt64LE(0));
  const header = JSON.parse(content.toString('utf8', 8, 8 + headerBytes)) as Record<string, Entry>;
  return new Map(
    Object.entries(header).flatMap(([name, entry]) => {
      if (name === '__metadata__') return [];
      const [from, to] = entry.data_offsets;
      return [[name, { shape: entry.shape, dtype: entry.dtype, bytes: new Uint8Array(content.subarray(8 + headerBytes + from, 8 + headerBytes + to)) }] as const];
    }),
  );
}

/** Writes a run's training rows, in their order, as `input_ids`, `labels`, `attention_mask`. */
export function writeRows(folder: string, file: string): void {
  const tensors = rawTensors(path.join(folder, 'batches.safetensors'));
  const column = (name: string): number[][] => {
    const { shape, bytes } = tensors.get(name)!;
    const T = shape.at(-1)!;
    const flat = new Int32Array(bytes.buffer);
    return Array.from({ length: flat.length / T }, (_, row) => Array.from(flat.subarray(row * T, (row + 1) * T)));
  };
  const [ids, labels, masks] = [column('input_ids'), column('labels'), column('attention_mask')];
  writeFileSync(file, ids.map((input_ids, row) => `${JSON.stringify({ input_ids, labels: labels[row], attention_mask: masks[row] })}\n`).join(''));
}

/** The flags of `lowrank train` that repeat a run. */
export function flagsOf({ config }: PeftRun): string[] {
  const { steps, micro, B, lr, betas, wd, clip, sched, warmup, loraplus_lr_ratio: ratio = 1 } = config;
  return [
    '--steps', `${steps}`, '--batch-size', `${B}`, '--accumulate', `${micro}`, '--lr', `${lr}`, '--betas', betas.join(','), '--weight-decay', `${wd}`,
    '--clip', `${clip ?? 0}`, '--schedule', sched, '--warmup', `${warmup}`, '--lora-plus', `${ratio}`, '--no-shuffle', '--json',
  ];
}

/** ‖a − b‖ / ‖b‖ over all tensors of two adapter files, which must have the same names. */
export function relativeDistance(a: string, b: string): number {
  const [ours, theirs] = [rawTensors(a), rawTensors(b)];
  if ([...ours.keys()].sort().join() !== [...theirs.keys()].sort().join()) throw new Error(`${a} and ${b} hold different tensors`);
  let [difference, size] = [0, 0];
  for (const [name, { bytes }] of theirs) {
    const [x, y] = [new Float32Array(ours.get(name)!.bytes.buffer), new Float32Array(bytes.buffer)];
    y.forEach((value, i) => {
      difference += (value - x[i]!) ** 2;
      size += value ** 2;
    });
  }
  return Math.sqrt(difference / size);
}
