// usage: once.ts DEVICE [T]. Every kernel of a LoRA layer a few times and no more, for a profiler: Llama-3-8B's linears, forward and backward,
// without dropout and with.
import { makeLayerWork } from '../../src/cli/layer-work.ts';
import { openDevice } from '../../src/device.ts';
import { shapes, type ModelShape } from '../shapes.ts';
import { layerLinears } from './layer-parts.ts';

const [name = 'cuda', tokens = '8192'] = process.argv.slice(2);
await using device = await openDevice(name);
for (const linear of layerLinears(shapes[name === 'cuda' ? 'llama8b' : 'micro'] as ModelShape, Number(tokens), 16)) {
  const layer = makeLayerWork(device, linear, { stored: 'bf16' });
  for (const work of [layer.lora(0), layer.lora(0.1)]) work();
  await device.fence();
  layer.dispose();
}
