import { probeDevices } from '../../src/device.ts';

/** On what tests of the CUDA room run: the emulator, or a GPU where `LOWRANK_TEST_DEVICE` is `cuda` (scripts/gpu-check.sh). */
export const kind = process.env['LOWRANK_TEST_DEVICE'] === 'cuda' ? 'cuda' : 'cusim';
/** How many of them there are, and why there is none. */
export const { count, why } = probeDevices(kind);
