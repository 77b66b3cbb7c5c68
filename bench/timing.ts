import type { Device } from '../src/device.ts';

/** Median and quartiles of repeated measurements. */
export interface Spread {
  readonly median: number;
  readonly low: number;
  readonly high: number;
}

export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN;
  return { median: at(0.5), low: at(0.25), high: at(0.75) };
}

/** What is timed: queues its work and returns; the fence is the timer's. */
export type Work = () => void;

/**
 * Milliseconds of each piece of work, interleaved (A B A B …) so that a noisy moment hits all alike. Each sample repeats its work until
 * it lasts about 20 ms, which makes the 40 µs of a fence vanish.
 */
export async function timeInterleaved(device: Device, works: Readonly<Record<string, Work>>, rounds = 9): Promise<Record<string, Spread>> {
  const names = Object.keys(works);
  const repeats: Record<string, number> = {};
  for (const name of names) {
    await sample(device, works[name] as Work, 2);
    repeats[name] = Math.max(1, Math.ceil(20 / (await sample(device, works[name] as Work, 2))));
  }
  const samples: Record<string, number[]> = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const name of names) samples[name]?.push(await sample(device, works[name] as Work, repeats[name] as number));
  }
  return Object.fromEntries(names.map((name) => [name, spread(samples[name] ?? [])]));
}

async function sample(device: Device, work: Work, repeats: number): Promise<number> {
  const start = performance.now();
  for (let i = 0; i < repeats; i++) work();
  await device.fence();
  return (performance.now() - start) / repeats;
}
