import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { openDevice, probeDevices } from '../../src/device.ts';

const { count, why } = probeDevices('cusim');
if (count === 0) console.warn(`what auto passes over: not tested (${why.split(':')[0]})`);
const emulator = fileURLToPath(new URL('../../build/Release/liblowrank_cusim.so', import.meta.url));

/** The emulator stands for CUDA: the driver finds a device, whatever opening it comes to. */
describe.skipIf(count === 0)('openDevice auto, where CUDA finds a device', () => {
  afterEach(() => vi.unstubAllEnvs());

  it('takes it, with nothing to note', async () => {
    vi.stubEnv('LOWRANK_CUDA_PLUGIN', emulator);
    await using device = await openDevice('auto');
    expect([device.kind, device.note]).toEqual(['cusim', '']);
  });

  it('falls back to the CPU when the device does not open, and notes why', async () => {
    vi.stubEnv('LOWRANK_CUDA_PLUGIN', emulator);
    vi.stubEnv('LOWRANK_CUSIM_MEMORY', '1000');
    await using device = await openDevice('auto');
    expect([device.kind, device.note]).toEqual(['cpu', expect.stringMatching(/^cuda did not open: memory for reports: .*memory/i) as string]);
  });

  it('tells of options that no device takes as it would of any', async () => {
    vi.stubEnv('LOWRANK_CUDA_PLUGIN', emulator);
    await expect(openDevice('auto', { threads: -1 })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    await expect(openDevice('auto', { activations: 'f8' as 'f16' })).rejects.toMatchObject({ code: 'ERR_ARGUMENT', message: expect.stringContaining('found f8') as string });
  });
});
