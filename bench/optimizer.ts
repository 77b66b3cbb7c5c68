import { deviceParty, type Party, ratioSpread, spread, takeTurns } from '../src/cli/turns.ts';
import type { Device } from '../src/device.ts';
import { adamwInplace, sumSquares, type AdamwNumbers } from '../src/ops/optimizer.ts';
import type { Tensor } from '../src/tensor.ts';
import type { Bench } from './bench.ts';
import { peakParty } from './peak.ts';
import { startPeerWorker } from './peers.ts';
import { digits, type Row, withQuartiles } from './table.ts';

const numbers: AdamwNumbers = { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.01, step: 1 };

/** Parameters, gradients and moments, flat, as an adapter's arena holds them. */
interface Arena {
  readonly p: Tensor;
  readonly m: Tensor;
  readonly v: Tensor;
  readonly g: Tensor;
  readonly gate: { readonly sumSquares: Tensor; readonly losses: Tensor };
}

// The same numbers as in peers/optimizer.py.
const parameter = (i: number): number => Math.sin(i);
const gradient = (i: number): number => Math.cos(i) / 16;

function makeArena(device: Device, count: number): Arena {
  const filled = (value: (i: number) => number): Tensor => device.tensor(Float32Array.from({ length: count }, (_, i) => value(i)));
  const gate = { sumSquares: device.tensor(new Float32Array([1])), losses: device.tensor(new Float32Array([1])) };
  return { p: filled(parameter), m: filled(() => 0), v: filled(() => 0), g: filled(gradient), gate };
}

function update({ p, m, v, g, gate }: Arena, clip: number): void {
  if (clip > 0) sumSquares(gate.sumSquares, g);
  adamwInplace(p, m, v, g, { ...gate, clip }, numbers);
}

/** One step of a parameter from m = v = 0: the corrections cancel the betas, so the direction is g / (|g| + eps). */
const wanted = (i: number): number => parameter(i) * (1 - numbers.lr * numbers.weightDecay) - (numbers.lr * gradient(i)) / (Math.abs(gradient(i)) + numbers.eps);

function check(who: string, first: readonly number[]): void {
  for (const [i, found] of first.entries()) {
    if (!(Math.abs(found - wanted(i)) < 1e-6)) throw new Error(`optimizer: parameter ${i} of ${who} must be ${wanted(i)} after a step (found ${found})`);
  }
}

/** AdamW over 8.4 M parameters (or --shape N) in one arena, beside torch's fused AdamW over 128 tensors and over one. */
export const optimizer: Bench = {
  about: "AdamW over 8.4 M parameters (--shape: another number) beside torch's fused one; GB/s against the copy rate",
  usual: true,
  async run({ device, peers, peak, options }) {
    const count = Number(options.shape ?? 8_388_608);
    if (!(Number.isInteger(count) && count >= 128)) throw new Error(`optimizer: --shape must be a number of parameters of at least 128 (found ${options.shape})`);
    const arena = makeArena(device, count);
    const worker = peers === null ? null : startPeerWorker(peers);
    try {
      update(arena, 0);
      check('lowrank', [...(await arena.p.data()).slice(0, 16)]);
      const parties: Record<string, Party> = {
        lowrank: deviceParty(device, () => update(arena, 0)),
        'lowrank, with clipping': deviceParty(device, () => update(arena, 1)),
      };
      if (worker !== null) {
        const theirs = await worker.setUp('optimizer', { count, ...numbers });
        for (const [work, first] of Object.entries(theirs.facts['first'] as Record<string, number[]>)) check(work, first);
        for (const work of theirs.facts['works'] as string[]) parties[work] = theirs.party(work);
      }
      const threads = device.info.threads;
      const metered: Record<string, Party> = peak === null ? {} : { copy: peakParty(peak, 'copy', threads), stream: peakParty(peak, 'stream', threads) };
      const samples = await takeTurns({ ...parties, ...metered }, { rounds: options.rounds ?? 9, rest: worker === null ? 0 : 15 });
      return { tables: { [`AdamW, ${count.toLocaleString('en')} parameters`]: Object.keys(parties).map((who) => rowOf(who, samples, count)) } };
    } finally {
      await worker?.stop();
      const { gate, ...flat } = arena;
      for (const tensor of Object.values({ ...flat, ...gate })) tensor.dispose();
    }
  },
};

function rowOf(who: string, samples: Readonly<Record<string, readonly number[]>>, count: number): Row {
  const own = samples[who] ?? [];
  // Parameters and moments are read and written, gradients read (and once more for their norm).
  const bytes = (who.includes('clipping') ? 8 : 7) * 4 * count;
  const rate = bytes / spread(own).median / 1e6;
  const share = (kind: string): number | null => (samples[kind] === undefined ? null : digits(rate / spread(samples[kind]).median, 2));
  const peer = samples[who.includes('clipping') ? 'torch fused, 128 tensors, with clipping' : 'torch fused, 128 tensors'];
  return {
    who,
    ms: withQuartiles(spread(own), 2),
    'GB/s': digits(rate, 1),
    'of copy rate': share('copy'),
    'of copy rate around the caches': share('stream'),
    ...(peer === undefined ? {} : { 'speed over torch, 128 tensors': withQuartiles(ratioSpread(peer, own), 2) }),
  };
}
