// usage: once.ts DEVICE [P [SHAPE [T]]]. The kernels of a decoder layer's linears, forward and backward, and of its gated MLP as a model runs it,
// each once with dropout P (0): for a profiler.
import { makeLayerWork } from '../../src/cli/layer-work.ts';
import { openDevice } from '../../src/device.ts';
import { shapes, type ModelShape } from '../shapes.ts';
import { makeGatedWork } from './gated-work.ts';
import { layerLinears } from './layer-parts.ts';

const [name = 'cuda', p = '0', shape = 'llama8b', tokens = '8192'] = process.argv.slice(2);
await using device = await openDevice(name, { activations: 'bf16' });
const linears = layerLinears(shapes[shape] as ModelShape, Number(tokens), 16);
const [, , gateUp, down] = linears;
for (const make of [...linears.map((linear) => () => makeLayerWork(device, linear, { stored: 'bf16' })), () => makeGatedWork(device, { gateUp, down }, { stored: 'bf16' })]) {
  const layer = make();
  layer.lora(Number(p))();
  await device.fence();
  layer.dispose();
}
