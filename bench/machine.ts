import type { Device } from '../src/device.ts';
import { launch } from '../src/kernel.ts';
import { fillInplace } from '../src/ops/elementwise.ts';
import { timeInterleaved } from './timing.ts';

/** What this machine can do, measured in the same run as what is held against it. */
export interface MachinePeaks {
  /** GB/s read plus written by a copy of 256 MiB, far beyond any cache. */
  readonly copyRate: number;
}

export async function measurePeaks(device: Device): Promise<MachinePeaks> {
  const count = 64 << 20;
  using x = device.empty([count]);
  using y = device.empty([count]);
  fillInplace(x, 1);
  fillInplace(y, 1);
  const times = await timeInterleaved(device, { copy: () => launch('copy', y, x) }, 7);
  return { copyRate: (8 * count) / (times['copy'] as { median: number }).median / 1e6 };
}
