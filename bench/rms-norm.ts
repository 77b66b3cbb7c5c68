import { deviceParty, spread, takeTurns } from '../src/cli/turns.ts';
import { launch } from '../src/kernel.ts';
import { fillInplace } from '../src/ops/elementwise.ts';
import type { Bench } from './bench.ts';
import { peakParty } from './peak.ts';
import { digits, withQuartiles } from './table.ts';

const [rows, cols] = [8192, 2048];

/** Tensors of rows × cols that a kernel reads and writes. */
const passes: Readonly<Record<string, number>> = { rms_norm: 2, rms_norm_grad: 3 };

/** rms_norm forward and backward over activations larger than the caches: GB/s, and the share of the measured copy rate. */
export const rmsNorm: Bench = {
  about: 'rms_norm, forward and backward, at the rate at which memory is copied',
  usual: true,
  async run({ device, peak, options }) {
    using x = device.empty([rows, cols]);
    using y = device.empty([rows, cols]);
    using dy = device.empty([rows, cols]);
    using r = device.empty([rows]);
    using w = device.empty([cols]);
    for (const tensor of [x, y, dy, w]) fillInplace(tensor, 1);
    launch('rms_norm', y, r, x, w, 1e-5);
    const first = (await y.data())[0] as number;
    if (Math.abs(first - 1) > 1e-4) throw new Error(`rms_norm: a row of ones must have norm one (y[0] is ${first})`);
    const samples = await takeTurns({
      rms_norm: deviceParty(device, () => launch('rms_norm', y, r, x, w, 1e-5)),
      rms_norm_grad: deviceParty(device, () => launch('rms_norm_grad', y, dy, x, w, r, null)),
      ...(peak === null ? {} : { copy: peakParty(peak, 'copy', device.info.threads) }),
    }, { rounds: options.rounds ?? 9 });
    const copyRate = samples['copy'] === undefined ? null : spread(samples['copy']).median;
    const table = Object.entries(passes).map(([kernel, tensors]) => {
      const ms = spread(samples[kernel] ?? []);
      const rate = (tensors * 4 * rows * cols) / ms.median / 1e6;
      return { kernel, ms: withQuartiles(ms, 2), 'GB/s': digits(rate, 1), 'copy rate GB/s': digits(copyRate, 1), 'of copy rate': copyRate === null ? null : digits(rate / copyRate, 2) };
    });
    return { tables: { [`${rows}×${cols}`]: table } };
  },
};
