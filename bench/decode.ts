import path from 'node:path';
import { noise } from '../src/cli/noise.ts';
import { deviceParty, type Party, ratioSpread, spread, takeTurns } from '../src/cli/turns.ts';
import type { Device } from '../src/device.ts';
import { type Adapter, attachLora, generate, generateBatch, loadModel, mergeAdapter, type Model, setAdapter } from '../src/index.ts';
import { cast } from '../src/ops/elementwise.ts';
import { launch } from '../src/kernel.ts';
import { scope } from '../src/scope.ts';
import type { Bench, BenchContext } from './bench.ts';
import { peakParty } from './peak.ts';
import { type PeerWorks, startPeerWorker } from './peers.ts';
import { withRandomModel } from './random-model.ts';
import { chosenModels, type ModelShape } from './shapes.ts';
import { digits, type Row, withQuartiles } from './table.ts';

const [rank, promptLength, tokens, texts] = [16, 32, 32, 16];
const prompt = Array.from({ length: promptLength }, (_, i) => 3 + 7 * i);

/** Greedy tokens of `generate` beside PEFT: the base, an adapter (r16 on all linears) beside it, merged, and of many texts at a time; then products of few rows. */
export const decode: Bench = {
  about: 'a token of generate() beside PEFT: base, adapter, merged, 16 texts; products of 1 to 48 rows (--all); --shape tiny, smollm or gpt2',
  usual: true,
  async run(context) {
    const tables: Record<string, Row[]> = {};
    for (const [, shape] of chosenModels('decode', context.options.shape, context.options.all ? ['smollm', 'gpt2'] : ['smollm'])) {
      tables[`${shape.name}, bf16, ${tokens} tokens behind ${promptLength}, r${rank} on all linears`] = await measureModel(shape, context);
    }
    if (context.options.all) tables[`x [rows, in] by a frozen ${context.options.dtype} weight: µs by rows`] = await measureRows(context);
    return { tables };
  },
};

/** One that decodes: how many bytes of weights it reads for a token. */
interface Decoder {
  readonly party: Party;
  readonly bytes: number;
}

async function measureModel(shape: ModelShape, { device, peers, peak, options }: BenchContext): Promise<Row[]> {
  return withRandomModel(shape, async (folder) => {
    const [model, merged] = [await loadModel(folder, { device }), await loadModel(folder, { device })];
    const worker = peers === null ? null : startPeerWorker(peers);
    try {
      const adapter = addAdapter(model);
      const saved = path.join(folder, 'adapter');
      await adapter.save(saved);
      mergeAdapter(merged, addAdapter(merged)).dispose();
      const theirs = worker === null ? null : await worker.setUp('decode', { folder, adapter: saved, prompt, tokens, texts });
      const decoders = { ...ourDecoders(model, merged, adapter), ...(theirs === null ? {} : theirDecoders(theirs, model, adapter)) };
      if (theirs !== null) await check(model, theirs);
      const parties = Object.fromEntries(Object.entries(decoders).map(([who, { party }]): [string, Party] => [who, party]));
      const metered: Record<string, Party> = peak === null ? {} : { read: peakParty(peak, 'read', device.info.threads) };
      for (const party of Object.values(parties)) await party.sample(1);
      const samples = await takeTurns({ ...parties, ...metered }, { rounds: options.rounds ?? 5, rest: worker === null ? 0 : 15 });
      return Object.entries(decoders).map(([who, { bytes }]) => rowOf(who, bytes, samples));
    } finally {
      for (const each of [model, merged]) each.dispose();
      await worker?.stop();
    }
  });
}

function addAdapter(model: Model): Adapter {
  const adapter = attachLora(model, { rank, alpha: 2 * rank, targets: 'all-linear' });
  for (const [i, { b }] of adapter.modules.entries()) b.upload(noise(b.size, i + 1).map((value) => value / 16));
  return adapter;
}

function ourDecoders(model: Model, merged: Model, adapter: Adapter): Record<string, Decoder> {
  const party = (of: Model, name: string | null): Party => ({ once: true, sample: () => (setAdapter(of, name), timeToken(of)) });
  const [base, extra] = [2 * model.facts.parameters, 4 * adapter.parameters().size];
  return {
    'lowrank, base': { party: party(model, null), bytes: base },
    'lowrank, adapter': { party: party(model, adapter.name), bytes: base + extra },
    'lowrank, merged': { party: { once: true, sample: () => timeToken(merged) }, bytes: base },
    [`lowrank, adapter of ${texts} texts`]: { party: { once: true, sample: () => (setAdapter(model, adapter.name), timeTexts(model)) }, bytes: (base + extra) / texts },
  };
}

function theirDecoders(theirs: PeerWorks, model: Model, adapter: Adapter): Record<string, Decoder> {
  return Object.fromEntries(Object.keys(theirs.facts).map((who): [string, Decoder] => {
    const shared = who.endsWith('texts') ? texts : 1;
    const bytes = (who.includes('f32') ? 4 : 2) * model.facts.parameters + (who.includes('adapter') ? 4 * adapter.parameters().size : 0);
    return [who, { party: { once: true, sample: async () => (await theirs.party(who).sample(1)) / (tokens - 1) / shared }, bytes: bytes / shared }];
  }));
}

/** Milliseconds from a token to the next, on average; the prompt and the first token are not timed. */
async function timeToken(model: Model): Promise<number> {
  let [first, last] = [0, 0];
  const onToken = (): void => void ([first, last] = first === 0 ? [performance.now(), 0] : [first, performance.now()]);
  await greedyIds(model, onToken);
  return (last - first) / (tokens - 1);
}

/** The same of many texts at a time, for each token of any: from when all have their first one. */
async function timeTexts(model: Model): Promise<number> {
  let [first, count] = [0, 0];
  for await (const _ of generateBatch(model, null, Array<number[]>(texts).fill(prompt), { maxTokens: tokens, stopIds: [], batchSize: texts })) {
    if (++count === texts) first = performance.now();
  }
  return (performance.now() - first) / (tokens - 1) / texts;
}

async function greedyIds(model: Model, onToken: () => void = () => {}): Promise<number[]> {
  const ids: number[] = [];
  for await (const { id } of generate(model, null, prompt, { maxTokens: tokens, stopIds: [], onToken })) ids.push(id);
  return ids;
}

/** The same logits behind the prompt and the same tokens as PEFT in f32, without and with the adapter. */
async function check(model: Model, theirs: PeerWorks): Promise<void> {
  for (const [name, who] of [[null, 'PEFT f32, base'], ['default', 'PEFT f32, adapter']] as const) {
    setAdapter(model, name);
    const wanted = theirs.facts[who] as { ids: number[]; logits: number[] };
    const cache = model.newCache(promptLength);
    const logits = scope(() => {
      const hidden = model.decode(prompt, cache);
      return model.logits(hidden.view([1, hidden.cols], (promptLength - 1) * hidden.cols));
    });
    const found = await logits.data();
    for (const owner of [logits, cache]) owner.dispose();
    const size = Math.max(...wanted.logits.map(Math.abs));
    const wrong = wanted.logits.findIndex((logit, i) => !(Math.abs(logit - (found[i] as number)) <= 1e-3 * size));
    if (wrong >= 0) throw new Error(`decode: logit ${wrong} must be that of ${who}, ${wanted.logits[wrong]} (found ${found[wrong]})`);
    const ids = await greedyIds(model);
    if (ids.join() !== wanted.ids.join()) throw new Error(`decode: the tokens must be those of ${who}, ${wanted.ids.join()} (found ${ids.join()})`);
  }
}

function rowOf(who: string, bytes: number, samples: Readonly<Record<string, readonly number[]>>): Row {
  const own = samples[who] ?? [];
  const variant = who.split(', ')[1] ?? '';
  const [peer, base, read] = [samples[`PEFT f32, ${variant}`], samples[who.replace(variant, 'base')] ?? own, samples['read']];
  const rate = bytes / spread(own).median / 1e6;
  return {
    who,
    'ms/token': withQuartiles(spread(own), 2),
    'tokens/s': digits(1000 / spread(own).median, 1),
    'time over its base': withQuartiles(ratioSpread(own, base), 3),
    ...(peer === undefined ? {} : { 'speed over PEFT f32': withQuartiles(ratioSpread(peer, own), 2) }),
    'weights MB': Math.round(bytes / 1e6),
    'GB/s': digits(rate, 1),
    'of read rate': read === undefined ? null : digits(rate / spread(read).median, 2),
  };
}

const weights: readonly (readonly [inFeatures: number, out: number])[] = [[576, 960], [576, 3072], [1536, 576], [576, 49152], [4096, 4096]];
const rowCounts = [1, 2, 4, 6, 8, 12, 16, 24, 32, 33, 48];

/** By shape, out of memory: so many copies of the weight that no cache holds them. */
async function measureRows({ device, peak, options }: BenchContext): Promise<Row[]> {
  const rows: Row[] = [];
  for (const [K, N] of weights) {
    const bytes = K * N * (options.dtype === 'f32' ? 4 : 2);
    const copies = Math.max(2, Math.ceil(200e6 / bytes));
    const own = [...Array(copies)].map(() => frozen(device, K, N, options.dtype));
    try {
      const us = await timeRows(device, own, K, N, options.rounds ?? 5);
      const read = (await peak?.rate('read', device.info.threads)) ?? null;
      const rate = bytes / (us[0] as number) / 1e3;
      rows.push({ 'in × out': `${K}×${N}`, ...Object.fromEntries(rowCounts.map((T, i) => [`${T}`, digits(us[i] as number, 0)])), 'GB/s at 1': digits(rate, 1), 'of read rate': read === null ? null : digits(rate / read, 2) });
    } finally {
      for (const weight of own) weight.dispose();
    }
  }
  return rows;
}

function frozen(device: Device, K: number, N: number, dtype: BenchContext['options']['dtype']) {
  using wide = device.tensor(noise(N * K, 1), [N, K]);
  using stored = cast(wide, dtype);
  return device.weight([stored]);
}

async function timeRows(device: Device, own: readonly ReturnType<typeof frozen>[], K: number, N: number, rounds: number): Promise<number[]> {
  const parties: Record<string, Party> = {};
  const operands = rowCounts.map((T) => ({ x: device.tensor(noise(T * K, 2), [T, K]), y: device.empty([T, N]) }));
  for (const [i, { x, y }] of operands.entries()) parties[`rows ${rowCounts[i]}`] = deviceParty(device, () => own.forEach((weight) => launch('linear', y, x, weight, null, null)));
  const samples = await takeTurns(parties, { rounds });
  for (const { x, y } of operands) [x, y].forEach((tensor) => tensor.dispose());
  return rowCounts.map((T) => (1000 * spread(samples[`rows ${T}`] ?? []).median) / own.length);
}
