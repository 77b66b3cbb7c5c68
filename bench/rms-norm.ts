import type { Device } from '../src/device.ts';
import { launch } from '../src/kernel.ts';
import { fillInplace } from '../src/ops/elementwise.ts';
import type { MachinePeaks } from './machine.ts';
import { timeInterleaved } from './timing.ts';

/** rms_norm forward and backward over activations larger than the caches: GB/s, and the share of the measured copy rate. */
export async function benchRmsNorm(device: Device, peaks: MachinePeaks): Promise<unknown> {
  const [rows, cols] = [8192, 2048];
  using x = device.empty([rows, cols]);
  using y = device.empty([rows, cols]);
  using dy = device.empty([rows, cols]);
  using r = device.empty([rows]);
  using w = device.empty([cols]);
  for (const tensor of [x, y, dy, w]) fillInplace(tensor, 1);
  launch('rms_norm', y, r, x, w, 1e-5);
  // A wrong result is not worth timing: a row of ones has norm one.
  const first = (await y.data())[0] as number;
  if (Math.abs(first - 1) > 1e-4) throw new Error(`rms_norm: y[0] must be 1 (found ${first})`);
  const times = await timeInterleaved(device, {
    rms_norm: () => launch('rms_norm', y, r, x, w, 1e-5),
    rms_norm_grad: () => launch('rms_norm_grad', y, dy, x, w, r, null),
  });
  const tensors: Readonly<Record<string, number>> = { rms_norm: 2, rms_norm_grad: 3 };
  const rowsOut = Object.entries(times).map(([kernel, { median, low, high }]) => {
    const rate = ((tensors[kernel] as number) * 4 * rows * cols) / median / 1e6;
    return { kernel, ms: +median.toFixed(2), quartiles: `${low.toFixed(2)}-${high.toFixed(2)}`, 'GB/s': +rate.toFixed(1), 'of copy rate': +(rate / peaks.copyRate).toFixed(2) };
  });
  console.table(rowsOut);
  return { rows, cols, copyRate: peaks.copyRate, kernels: rowsOut };
}
