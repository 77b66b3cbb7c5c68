import type { ActivationDtype, Device, WeightOrder } from '../device.ts';

/** What frozen weights take in the memory of a device that can't read their files, in bytes. */
export interface WeightNeeds {
  /** Of each matrix that may take turns with others. */
  readonly matrices: readonly number[];
  /** Of tables, which stay. */
  readonly tables: number;
  /** Whether the table is also the output head, and lies in it as long as that stays. */
  readonly headIsTable: boolean;
}

/**
 * What kernels take beside activations: scratch for 512 MiB of logits (cuda/linear_cross_entropy_halves.h), as much again while it grows from
 * step to step, a product's workspace, and what libraries and graphs hold. `stats().kernelBytes` tells what it came to.
 */
const kernels = 1280 << 20;
const border = 64;
const bordered = (cols: number): number => 64 * Math.ceil((cols + border) / 64);
const widths = { f32: 4, f16: 2, bf16: 2 } as const;

/** What [out, in] numbers of a file take as a weight of the device (native/core/frozen_weight.cpp). */
export function placedBytes(out: number, width: number, { order, dtype, activations }: { order: WeightOrder; dtype: keyof typeof widths; activations: ActivationDtype }): number {
  if (activations === 'f32') return out * width * widths[dtype];
  return 2 * (order === 'out_in' ? (out + border) * bordered(width) : (width + border) * bordered(out));
}

/**
 * Lets weights take turns on a device that may choose so, if they don't all fit beside the work: in what that leaves free.
 *
 * @param reserve bytes that the work needs; a quarter of what is free
 */
export function chooseWeightMemory(device: Device, { matrices, tables, headIsTable }: WeightNeeds, reserve?: number): void {
  if (!device.choosesWeightMemory) return;
  const free = device.freeBytes();
  const work = (reserve ?? free / 4) + Math.min(kernels, free / 8);
  const all = matrices.reduce((sum, each) => sum + each, 0) + (headIsTable ? 0 : tables);
  if (all + work <= free) return;
  const left = 256 * Math.floor((free - work - tables) / 256);
  device.chooseWeightMemory(Math.max(...matrices.map((each) => 256 * Math.ceil(each / 256)), left));
}
