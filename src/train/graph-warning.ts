import type { Device } from '../device.ts';

const warned = new WeakSet<Device>();

/** Says so, once for a device, when its driver refused to capture steps as CUDA graphs: they are right, but each kernel is launched by itself. */
export function warnOfRefusedGraphs(device: Device): void {
  if (warned.has(device)) return;
  const graphs = device.stats().graphs;
  if (graphs === undefined || graphs.refused === 0) return;
  warned.add(device);
  process.emitWarning(`${device.info.kind}: work that comes again can't be captured as CUDA graphs (${graphs.why}), so its ops are launched one by one`, { code: 'LOWRANK_GRAPHS' });
}
