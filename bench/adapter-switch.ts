import path from 'node:path';
import { deviceParty, type Party, spread, takeTurns } from '../src/cli/turns.ts';
import { type Adapter, attachLora, loadAdapter, loadModel, makeBatch, type Model, setAdapter } from '../src/index.ts';
import { noise } from '../src/cli/noise.ts';
import { scope } from '../src/scope.ts';
import { uploadBatch } from '../src/train/token-loss.ts';
import type { Bench } from './bench.ts';
import { startPeerWorker } from './peers.ts';
import { withRandomModel } from './random-model.ts';
import { chosenModels } from './shapes.ts';
import { type Row, withQuartiles } from './table.ts';

const rank = 16;

/** Switching between two adapters of a loaded model, and bringing one from its folder. */
export const adapterSwitch: Bench = {
  about: 'switching adapters (r16 on all linears) on a loaded model beside PEFT; --shape tiny, smollm or gpt2',
  usual: true,
  async run({ device, peers, options }) {
    const tables: Record<string, Row[]> = {};
    for (const [, shape] of chosenModels('adapter-switch', options.shape, ['smollm'])) {
      await withRandomModel(shape, async (folder) => {
        const model = await loadModel(folder, { device });
        const worker = peers === null ? null : startPeerWorker(peers);
        try {
          const adapters = ['one', 'two'].map((name, i) => addAdapter(model, name, i));
          await check(model);
          const saved = path.join(folder, 'adapter');
          await adapters[0]?.save(saved);
          const parties: Record<string, Party> = { 'lowrank, setAdapter': deviceParty(device, switcher(model)), 'lowrank, from its PEFT folder': { sample: () => timeLoad(model, saved), once: true } };
          if (worker !== null) parties['PEFT f32, set_adapter'] = (await worker.setUp('adapter_switch', { folder, rank })).party('switch');
          const samples = await takeTurns(parties, { rounds: options.rounds ?? 9, rest: worker === null ? 0 : 15 });
          tables[shape.name] = Object.entries(samples).map(([what, ms]) => ({ what, ms: withQuartiles(spread(ms), 4) }));
        } finally {
          model.dispose();
          await worker?.stop();
        }
      });
    }
    return { tables };
  },
};

function addAdapter(model: Model, name: string, seed: number): Adapter {
  const adapter = attachLora(model, { name, rank, alpha: 2 * rank, targets: 'all-linear', seed });
  for (const { b } of adapter.modules) b.upload(noise(b.size, seed + 1));
  return adapter;
}

/** One turn switches there and back. */
function switcher(model: Model): () => void {
  let other = false;
  return () => setAdapter(model, (other = !other) ? 'one' : 'two');
}

async function timeLoad(model: Model, folder: string): Promise<number> {
  const start = performance.now();
  const adapter = await loadAdapter(model, folder, { name: 'from its folder', trainable: false });
  const ms = performance.now() - start;
  adapter.dispose();
  setAdapter(model, 'one');
  return ms;
}

/** Each adapter gives states of its own, and the same bits again after a switch there and back. */
async function check(model: Model): Promise<void> {
  const states: Record<string, Float32Array[]> = { one: [], two: [] };
  for (const name of ['one', 'two', 'one', 'two']) {
    setAdapter(model, name);
    states[name]?.push(await hiddenStates(model));
  }
  const [[first, again], [other]] = [states['one'] as [Float32Array, Float32Array], states['two'] as [Float32Array]];
  const same = (a: Float32Array, b: Float32Array): boolean => a.every((value, i) => value === b[i]);
  if (!same(first, again)) throw new Error('adapter-switch: an adapter must give the same states after a switch there and back');
  if (same(first, other)) throw new Error('adapter-switch: two adapters must give different states');
}

async function hiddenStates(model: Model): Promise<Float32Array> {
  const inputIds = Int32Array.from({ length: 8 }, (_, i) => 3 + i);
  const hidden = scope(() => model.hidden(uploadBatch(model.device, makeBatch([{ inputIds, labels: inputIds }]))));
  try {
    return await hidden.data();
  } finally {
    hidden.dispose();
  }
}
