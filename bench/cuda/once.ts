// usage: once.ts DEVICE [SHAPE [T]]. The kernels of a decoder layer's linears, forward and backward, once without dropout and once with: for a
// profiler.
import { makeLayerWork } from '../../src/cli/layer-work.ts';
import { openDevice } from '../../src/device.ts';
import { shapes, type ModelShape } from '../shapes.ts';
import { layerLinears } from './layer-parts.ts';

const [name = 'cuda', shape = 'llama8b', tokens = '8192'] = process.argv.slice(2);
await using device = await openDevice(name);
for (const linear of layerLinears(shapes[shape] as ModelShape, Number(tokens), 16)) {
  const layer = makeLayerWork(device, linear, { stored: 'bf16' });
  for (const work of [layer.lora(0), layer.lora(0.1)]) work();
  await device.fence();
  layer.dispose();
}
