// A model and a training loop of one's own on lowrank's layers: y = gelu(x W1ᵀ) W2ᵀ with an adapter on each frozen matrix.
//
//   npx tsx examples/embed-typescript/train.ts
//
// Prints loss and gradient norm of each step; PEFT's for the same numbers are in test/golden/embed.json.
import { AdamW, type Device, LoraLinear, openDevice, ops, type Optimizer, scope, Tape, type Tensor } from 'lowrank';

const [tokens, inFeatures, hidden, classes] = [24, 20, 36, 10];
const lora = { rank: 3, alpha: 6 };

/** Numbers in [-scale/2, scale/2), the same for the same seed in every language. */
function noise(count: number, seed: number, scale = 1): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return ((state >>> 8) / 2 ** 24 - 0.5) * scale;
  });
}

interface Mlp {
  readonly layers: readonly LoraLinear[];
  forward(x: Tensor): Tensor;
}

function makeMlp(device: Device): Mlp {
  const first = new LoraLinear(noise(hidden * inFeatures, 2), { device, inFeatures, ...lora, name: 'first' });
  const second = new LoraLinear(noise(classes * hidden, 3), { device, inFeatures: hidden, ...lora, name: 'second' });
  const layers = [first, second];
  for (const [i, layer] of layers.entries()) {
    layer.a.upload(noise(layer.a.size, 10 + i, 0.5)); // one's own initialisation; B is zero
    layer.mode = 'train';
  }
  // Any op of `ops` goes here, and ops of one's own by `defineOp`. The tape takes down what has a gradient.
  return { layers, forward: (x) => second.forward(ops.gelu(first.forward(x), 'erf')) };
}

/** Queues one step; nothing waits here. */
function queueStep(model: Mlp, optimizers: readonly Optimizer[], x: Tensor, targets: Tensor, loss: Tensor): void {
  for (const layer of model.layers) layer.parameters().zeroGradients();
  scope(() => {
    using tape = new Tape();
    tape.record(() => ops.crossEntropyInplace(model.forward(x), { targets, loss, scale: 1 / tokens }));
    tape.backward(loss, x.device.empty([1]));
  });
  for (const optimizer of optimizers) optimizer.step({ losses: loss });
}

await using device = await openDevice('auto');
const model = makeMlp(device);
const optimizers = model.layers.map((layer) => new AdamW(layer.parameters(), { lr: 0.02, weightDecay: 0.01 }));
using x = device.tensor(noise(tokens * inFeatures, 1), [tokens, inFeatures]);
using targets = device.tensor(Int32Array.from({ length: tokens }, (_, t) => (t * 7) % classes));
using loss = device.empty([1]);
for (let step = 0; step < 20; step++) {
  queueStep(model, optimizers, x, targets, loss);
  const [sum] = await loss.data();
  const squares = await Promise.all(optimizers.map(({ sumSquares }) => sumSquares.data()));
  console.log((sum ?? NaN) / tokens, Math.sqrt(squares.reduce((all, [square]) => all + (square ?? NaN), 0)));
}
for (const each of [...optimizers, ...model.layers]) each.dispose();
