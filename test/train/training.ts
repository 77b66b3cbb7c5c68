import type { Dataset } from '../../src/data/dataset.ts';
import type { Sample } from '../../src/data/sample.ts';
import type { Device } from '../../src/device.ts';
import type { Adapter } from '../../src/lora/adapter.ts';
import { attachLora, type AttachConfig } from '../../src/lora/attach.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Model } from '../../src/models/model.ts';
import { AdamW, type AdamWOptions } from '../../src/optim/adamw.ts';
import type { TrainEvent, StepEvent } from '../../src/train/run-events.ts';
import type { Trainer } from '../../src/train/trainer.ts';
import { goldenPath } from '../golden/read.ts';

/** A data set in memory. */
export function datasetOf(samples: readonly Sample[]): Dataset {
  return { length: samples.length, source: 'memory', truncated: 0, skipped: 0, get: (index) => samples[index]! };
}

/** `rows` sequences of different lengths with regular content, ids below 96; the first labels of each take no part. */
export function waveDataset(rows: number): Dataset {
  return datasetOf(Array.from({ length: rows }, (_, s) => {
    const inputIds = Int32Array.from({ length: 5 + ((7 * s) % 9) }, (_, t) => 3 + ((5 * s + (1 + (s % 4)) * t) % 90));
    return { inputIds, labels: inputIds.map((id, t) => (t < 1 + (s % 3) ? -100 : id)) };
  }));
}

/** What a run needs, freshly made. */
export interface Workplace {
  readonly model: Model;
  readonly adapter: Adapter;
  readonly optimizer: AdamW;
}

/** A tiny Llama with a new adapter; everything is given back in the end, also when `body` throws. */
export async function withWorkplace<T>(device: Device, settings: AttachConfig & { readonly optimizer?: Partial<AdamWOptions> }, body: (workplace: Workplace) => Promise<T>): Promise<T> {
  const { optimizer: options, ...config } = settings;
  const model = await loadModel(goldenPath('families', 'llama_tied'), { device });
  const adapter = attachLora(model, { rank: 4, alpha: 8, targets: 'all-linear', seed: 3, ...config });
  const optimizer = new AdamW(adapter.parameters(), { lr: 0.01, weightDecay: 0.01, ...options });
  try {
    return await body({ model, adapter, optimizer });
  } finally {
    optimizer.dispose();
    adapter.dispose();
    model.dispose();
  }
}

/** All events of a run. */
export async function eventsOf(trainer: Trainer): Promise<TrainEvent[]> {
  const events: TrainEvent[] = [];
  for await (const event of trainer) events.push(event);
  return events;
}

export function stepsOf(events: readonly TrainEvent[]): StepEvent[] {
  return events.filter((event) => event.type === 'step');
}
