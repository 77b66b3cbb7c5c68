import { flopFloor, frozenFlops, layerName, type LayerShape, type LayerWork, makeLayerWork } from '../../src/cli/layer-work.ts';
import { deviceParty, type Party, ratioSpread, type Spread, spread, takeTurns, type Work } from '../../src/cli/turns.ts';
import type { Bench, BenchContext } from '../bench.ts';
import { peakParty } from '../peak.ts';
import { phase } from '../phase.ts';
import { startPeerWorker } from '../peers.ts';
import { chosenModels, type ModelShape } from '../shapes.ts';
import { digits, type Row, withQuartiles } from '../table.ts';
import { timer } from '../time-left.ts';
import { makeGatedWork } from './gated-work.ts';
import { layerLinears } from './layer-parts.ts';

const works = ['frozen', 'p=0', 'p=0.1'] as const;
const rank = 16;

/**
 * All linears of one decoder layer, forward and backward: what adapters on all of them cost over the frozen products. Once each linear for
 * itself, and once as a model runs them, with the gated MLP as one op (`fused`, swiglu included).
 */
export const block: Bench = {
  about: 'the linears of a decoder layer with adapters on all, over the frozen ones and beside PEFT; --shape tiny, llama1b, llama8b',
  usual: false,
  anyDevice: true,
  async run(context) {
    const { device, options } = context;
    const time = timer('block', options.seconds);
    const tables: Record<string, readonly Row[]> = {};
    const emulated = device.kind === 'cusim';
    for (const [, shape] of chosenModels('block', options.shape, [emulated ? 'micro' : device.kind === 'cpu' ? 'tiny' : 'llama8b'])) {
      for (const T of emulated ? [20] : device.kind === 'cpu' ? [512] : options.all ? [8192, 4096, 16384] : [8192]) {
        const title = `linears of a layer of ${shape.name}, ${T} tokens, r${rank}, W0 ${options.dtype}, activations ${context.activations}`;
        if (time.allows(title)) tables[title] = await measure(context, shape, T);
      }
    }
    return { tables };
  },
};

async function measure(context: BenchContext, shape: ModelShape, T: number): Promise<readonly Row[]> {
  const { device, options, peak, peers, activations } = context;
  const linears = layerLinears(shape, T, rank);
  const worker = peers === null ? null : startPeerWorker(peers);
  const [layers, gated]: [LayerWork[], LayerWork[]] = [[], []];
  try {
    for (const linear of linears) {
      const layer = await phase('block', `making ${layerName(linear)}`, () => makeLayerWork(device, linear, { stored: options.dtype, activations }));
      layers.push(layer);
      await phase('block', `checking ${layerName(linear)}`, () => layer.check());
    }
    const [, , gateUp, down] = linears;
    const mlp = await phase('block', 'making the gated MLP', () => makeGatedWork(device, { gateUp, down }, { stored: options.dtype, activations }));
    gated.push(mlp);
    await phase('block', 'checking the gated MLP', () => mlp.check());
    const parties: Record<string, Party> = {};
    const fused = [...layers.slice(0, 2), mlp]; // q|k|v, o
    for (const work of works) {
      const of = (layer: LayerWork): Work => (work === 'frozen' ? layer.frozen : layer.lora(Number(work.slice(2))));
      parties[work] = inTurn(context, layers.map(of));
      parties[`fused ${work}`] = inTurn(context, fused.map(of));
    }
    if (worker !== null && peers !== null) {
      const asked = { T, r: rank, dtype: peers.gpu ? 'bf16' : 'f32', device: peers.gpu ? 'cuda' : 'cpu' };
      const theirs = await phase('block', "making PEFT's layers", () => worker.setUp('block', { ...asked, layers: linears.map(({ K, parts }) => ({ K, parts })) }));
      for (const work of works) parties[`PEFT ${work}`] = theirs.party(work);
    }
    if (peak !== null) parties['peak'] = peakParty(peak, device.kind === 'cpu' ? 'f32' : 'bf16', device.info.threads);
    const samples = await phase('block', 'turns', () => takeTurns(parties, { rounds: options.rounds ?? 7, sample: 50 }));
    return Object.keys(parties).filter((who) => who !== 'peak').map((who) => rowOf(who, linears, samples));
  } finally {
    await worker?.stop();
    for (const layer of [...layers, ...gated]) layer.dispose();
  }
}

function inTurn({ device }: BenchContext, layers: readonly (() => void)[]): Party {
  return deviceParty(device, () => layers.forEach((layer) => layer()));
}

function rowOf(who: string, linears: readonly LayerShape[], samples: Readonly<Record<string, readonly number[]>>): Row {
  const own = samples[who] ?? [];
  const flops = linears.reduce((sum, linear) => sum + frozenFlops(linear), 0);
  const floor = linears.reduce((sum, linear) => sum + frozenFlops(linear) * flopFloor(linear), 0) / flops;
  const rate = flops / spread(own).median / 1e6; // of the frozen products alone
  const peak = samples['peak'] === undefined ? null : spread(samples['peak']).median;
  const theirs = samples[`PEFT ${who}`];
  return {
    who,
    ms: withQuartiles(spread(own), 2),
    'over ours, frozen': withQuartiles(overFrozen(who, samples), 3),
    'FLOP floor': who.endsWith('frozen') ? 1 : digits(floor, 3),
    'GFLOP/s of the frozen products': Math.round(rate),
    'of peak': peak === null ? null : digits(rate / peak, 3),
    ...(theirs === undefined ? {} : { 'over PEFT': withQuartiles(ratioSpread(own, theirs), 3) }),
  };
}

/** 1, and what the adapters add as a share of the frozen products' time: swiglu, which the fused ones have in both, is no part of it. */
function overFrozen(who: string, samples: Readonly<Record<string, readonly number[]>>): Spread {
  const products = samples['frozen'] ?? [];
  if (!who.startsWith('fused')) return ratioSpread(samples[who] ?? [], products);
  const [own, frozen] = [samples[who] ?? [], samples['fused frozen'] ?? []];
  return spread(own.map((ms, i) => 1 + (ms - (frozen[i] ?? NaN)) / (products[i] ?? NaN)));
}
