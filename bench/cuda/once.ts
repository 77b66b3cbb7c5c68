// usage: once.ts DEVICE [SHAPE [T]]. The kernels of a decoder layer's linears, forward and backward, once without dropout and once with, and of
// its gated MLP as a model runs it: for a profiler.
import { makeLayerWork } from '../../src/cli/layer-work.ts';
import { openDevice } from '../../src/device.ts';
import { shapes, type ModelShape } from '../shapes.ts';
import { makeGatedWork } from './gated-work.ts';
import { layerLinears } from './layer-parts.ts';

const [name = 'cuda', shape = 'llama8b', tokens = '8192'] = process.argv.slice(2);
await using device = await openDevice(name, { activations: 'bf16' });
const linears = layerLinears(shapes[shape] as ModelShape, Number(tokens), 16);
const [, , gateUp, down] = linears;
for (const make of [...linears.map((linear) => () => makeLayerWork(device, linear, { stored: 'bf16' })), () => makeGatedWork(device, { gateUp, down }, { stored: 'bf16' })]) {
  const layer = make();
  for (const work of [layer.lora(0), layer.lora(0.1)]) work();
  await device.fence();
  layer.dispose();
}
