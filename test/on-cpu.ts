import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest';
import { openDevice, type Device } from '../src/device.ts';

/** A CPU device for the tests of a file; after each test as many tensors must be alive as before it. */
export function onCpu(): { readonly device: Device } {
  let device: Device;
  let live = 0;
  beforeAll(async () => {
    device = await openDevice('cpu');
  });
  beforeEach(() => {
    live = device.stats().tensors;
  });
  afterEach(() => {
    expect(device.stats().tensors, 'live tensors').toBe(live);
  });
  afterAll(() => device.close());
  return {
    get device() {
      return device;
    },
  };
}
