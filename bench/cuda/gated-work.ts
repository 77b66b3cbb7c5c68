import type { LayerShape, LayerTypes, LayerWork } from '../../src/cli/layer-work.ts';
import { rowOf } from '../../src/cli/layer-check.ts';
import { makeNoise } from '../../src/cli/noise.ts';
import type { Work } from '../../src/cli/turns.ts';
import type { Device, Weight } from '../../src/device.ts';
import { fillInplace } from '../../src/ops/elementwise.ts';
import { type AdaptedOperands, gatedMlp } from '../../src/ops/gated_mlp.ts';
import { linear } from '../../src/ops/linear.ts';
import { loraLinear } from '../../src/ops/lora_linear.ts';
import type { LoraOperands } from '../../src/ops/lora_operands.ts';
import { swiglu } from '../../src/ops/swiglu.ts';
import { scope } from '../../src/scope.ts';
import { Tape } from '../../src/tape.ts';
import type { Tensor } from '../../src/tensor.ts';

/** gate|up [2F, K] and down [N, F] of one MLP. */
export interface GatedShape {
  readonly gateUp: LayerShape;
  readonly down: LayerShape;
}

/** A gated MLP as a model runs it, its linears and swiglu as one op: frozen (y, dx) and with adapters on all three (y, dx, all dA and dB). */
export function makeGatedWork(device: Device, { gateUp, down }: GatedShape, { stored, activations = device.info.activations }: LayerTypes): LayerWork {
  const made: { dispose(): void }[] = [];
  const own = <D extends { dispose(): void }>(thing: D): D => (made.push(thing), thing);
  const [data, layer] = [makeNoise(1), makeNoise(2)];
  const [x, dy] = [own(data.activation(device, [gateUp.T, gateUp.K], activations)), own(data.activation(device, [down.T, down.N], activations))];
  const layers = [gateUp, down].map(({ K, N, r, parts = [N] }, i) => {
    const rows = parts.map((count) => own(layer.tensor(device, [count, K], stored)));
    const weight: Weight = own(device.weight(rows));
    const [a, b] = [own(layer.tensor(device, [r * parts.length, K], 'f32')), own(layer.tensor(device, [N * r], 'f32'))];
    const [da, db] = [own(a.like()), own(b.like())];
    for (const gradient of [da, db]) fillInplace(gradient, 0);
    const lora = (p: number): LoraOperands => ({ a, b, da, db, ranks: parts.map(() => r), scales: parts.map(() => 1), dropout: { p, seed: 1, layers: parts.map((_, part) => 2 * i + part), step: 0 } });
    return { weight, lora };
  });
  const adapted = (p: number | null): readonly AdaptedOperands[] => layers.map(({ weight, lora }) => ({ weight, bias: null, lora: p === null ? null : lora(p) }));
  const pass = (p: number | null): void => {
    using tape = new Tape();
    tape.watch(x);
    const [first, second] = adapted(p) as [AdaptedOperands, AdaptedOperands];
    const y = tape.record(() => gatedMlp(x, first, second));
    tape.backward(y, dy.view(dy.shape)).get(x)?.dispose();
    y.dispose();
  };
  const work = (p: number | null): Work => () => scope(() => pass(p));
  return {
    frozen: work(null),
    lora: work,
    async check() {
      const [first, second] = adapted(0) as [AdaptedOperands, AdaptedOperands];
      const apart = (layer: AdaptedOperands, input: Tensor): Tensor => (layer.lora === null ? linear(input, layer) : loraLinear(input, layer, layer.lora));
      const [found, wanted] = scope(() => [gatedMlp(x, first, second), apart(second, swiglu(apart(first, x)))]) as [Tensor, Tensor];
      try {
        for (const row of checkedRows(gateUp.T)) expectSameRow(row, await rowOf(found, row), await rowOf(wanted, row));
      } finally {
        for (const y of [found, wanted]) y.dispose();
      }
    },
    dispose: () => made.forEach((thing) => thing.dispose()),
  };
}

/** Spread over all blocks of rows that a kernel may make: reading all of y takes seconds. */
const checkedRows = (T: number): readonly number[] => [...new Set(Array.from({ length: 16 }, (_, i) => Math.floor((i * (T - 1)) / 15)))];

function expectSameRow(row: number, found: Float32Array, wanted: Float32Array): void {
  const greatest = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const at = found.findIndex((value, i) => !(Math.abs(value - (wanted[i] as number)) <= 0.01 * greatest));
  if (at >= 0 || greatest === 0) throw new Error(`block: a gated MLP must give what its parts give (row ${row}, column ${at}: ${found[at]}, not ${wanted[at]})`);
}
