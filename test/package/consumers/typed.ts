// Compiled, not run: the declarations stand by themselves, and say what the package does.
import { type Adapter, type AttachConfig, attachLora, type Device, LowrankError, type Model, openDevice, ops, scope, Tensor, Trainer, type TrainerOptions } from 'lowrank';

export async function run(load: (device: Device) => Promise<Model>, options: Omit<TrainerOptions, 'model' | 'adapter'>): Promise<void> {
  await using device = await openDevice('auto');
  const model = await load(device);
  const config: AttachConfig = { rank: 8, targets: ['q_proj'] };
  const adapter: Adapter = attachLora(model, config);
  const doubled: Tensor = scope(() => ops.add(device.tensor(new Float32Array(4), [4]), device.tensor(new Float32Array(4), [4])));
  // @ts-expect-error a rank is a number
  attachLora(model, { rank: '8' });
  try {
    await new Trainer({ ...options, model, adapter });
  } catch (error) {
    if (error instanceof LowrankError && error.code === 'ERR_NONFINITE') doubled.dispose();
  }
}
