import type { Device } from '../device.ts';

/** Median and quartiles of repeated measurements. */
export interface Spread {
  readonly median: number;
  readonly low: number;
  readonly high: number;
}

export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number): number => {
    const place = share * (sorted.length - 1);
    const [below, above] = [sorted[Math.floor(place)] ?? NaN, sorted[Math.ceil(place)] ?? NaN];
    return below + (place % 1) * (above - below);
  };
  return { median: at(0.5), low: at(0.25), high: at(0.75) };
}

/** Of the quotient of what was measured in the same round. */
export function ratioSpread(values: readonly number[], over: readonly number[]): Spread {
  return spread(values.map((value, i) => value / (over[i] ?? NaN)));
}

/** One of those that take turns: does its work `repeats` times, resolves with the milliseconds of one. */
export interface Party {
  sample(repeats: number): Promise<number>;
  /** It decides itself how long it measures, and what: `repeats` is always 1. */
  readonly once?: boolean;
}

/** What is timed on a device: queues its work and returns; the fence is the timer's. */
export type Work = () => void;

export function deviceParty(device: Device, work: Work): Party {
  return {
    async sample(repeats) {
      const start = performance.now();
      for (let i = 0; i < repeats; i++) work();
      await device.fence();
      return (performance.now() - start) / repeats;
    },
  };
}

export interface TurnsOptions {
  readonly rounds?: number; // 9
  /** Milliseconds between two turns: another process's threads may look for work for a while before they sleep. 0 */
  readonly rest?: number;
  /** A sample repeats its work until it lasts about this many milliseconds, which makes the 40 µs of a fence vanish. 20 */
  readonly sample?: number;
}

/** Samples of each party, one a round, in turns (A B A B …), so that a noisy moment hits all alike. */
export async function takeTurns(parties: Readonly<Record<string, Party>>, { rounds = 9, rest = 0, sample = 20 }: TurnsOptions = {}): Promise<Record<string, number[]>> {
  const players: { readonly party: Party; readonly repeats: number; readonly samples: number[] }[] = [];
  for (const party of Object.values(parties)) {
    const repeats = party.once ? 1 : Math.max(1, Math.ceil(sample / (await warm(party))));
    players.push({ party, repeats, samples: [] });
  }
  for (let round = 0; round < rounds; round++) {
    for (const { party, repeats, samples } of players) {
      samples.push(await party.sample(repeats));
      if (rest > 0) await new Promise((resolve) => setTimeout(resolve, rest));
    }
  }
  return Object.fromEntries(Object.keys(parties).map((name, i) => [name, players[i]?.samples ?? []]));
}

async function warm(party: Party): Promise<number> {
  await party.sample(1);
  return party.sample(1);
}
