import { cpus } from 'node:os';
import type { Dataset } from '../data/dataset.ts';
import { writeFileAtomic } from '../io/atomic.ts';
import type { Adapter } from '../lora/adapter.ts';
import { renderReport, type Facts, type ReportSample } from '../train/report.ts';
import type { RunLog } from '../train/run-log.ts';
import { bytes, count } from './format.ts';
import type { Session } from './session.ts';

export interface RunReport {
  readonly title: string;
  readonly seconds: number;
  readonly log: RunLog;
  readonly session: Session;
  readonly adapter: Adapter;
  readonly dataset: Dataset;
  readonly settings: Facts;
  readonly notes: readonly string[];
  readonly samples?: readonly ReportSample[];
}

/** Writes `report.html` of a run. @throws LowrankError ERR_FILE */
export async function writeRunReport(file: string, { title, seconds, log, session, adapter, dataset, settings, notes, samples = [] }: RunReport): Promise<void> {
  const { steps, evals } = log;
  const html = renderReport({
    title, seconds, steps, evals, samples, notes,
    subtitle: `${adapter.modules.length} layers of ${session.model.facts.folder}`,
    finishedAt: new Date(),
    settings: { ...settings, samples: dataset.length },
    model: modelFacts(session),
    adapter: adapterFacts(adapter),
    machine: machineFacts(session),
  });
  await writeFileAtomic(file, html);
}

function modelFacts({ model: { facts } }: Session): Facts {
  return {
    folder: facts.folder, family: facts.family, parameters: facts.parameters, weights: facts.dtype, layers: facts.layers, 'hidden size': facts.hiddenSize,
    heads: facts.heads === facts.kvHeads ? facts.heads : `${facts.heads} (${facts.kvHeads} for keys and values)`, vocabulary: facts.vocabSize,
  };
}

function adapterFacts(adapter: Adapter): Facts {
  const { rank, alpha, targets, dropout, useRslora } = adapter.config;
  return {
    rank, alpha, dropout, rsLoRA: useRslora,
    targets: Array.isArray(targets) ? targets.join(', ') : (targets ?? "the family's usual ones"),
    layers: adapter.modules.length, 'trained parameters': adapter.parameters().size,
  };
}

function machineFacts({ device }: Session): Facts {
  const { name, kind, kernels, threads } = device.info;
  return {
    device: name || kind, kernels, threads, processor: cpus()[0]?.model.trim() ?? '?', platform: `${process.platform}-${process.arch}`, node: process.version,
    'most device memory': bytes(device.stats().peakBytes + device.stats().kernelBytes), 'resident memory': bytes(process.memoryUsage.rss()),
  };
}

/** What is about to run, in two lines. */
export function describeRun({ session, adapter, dataset, steps }: Pick<RunReport, 'session' | 'adapter' | 'dataset'> & { steps: number }): string {
  const { facts } = session.model;
  const { kind, kernels, threads } = session.device.info;
  const trained = adapter.parameters().size;
  const share = ((100 * trained) / facts.parameters).toPrecision(2);
  return [
    `${facts.family}, ${count(facts.parameters)} parameters in ${facts.dtype} · ${kind} ${kernels}, ${threads} threads`,
    `adapter on ${adapter.modules.length} layers, ${count(trained)} trained parameters (${share}%) · ${count(dataset.length)} samples · ${steps} steps`,
  ].join('\n');
}
