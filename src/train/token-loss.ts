import type { Batch } from '../data/batch.ts';
import type { Device } from '../device.ts';
import type { Model, TokenBatch } from '../models/model.ts';
import { crossEntropyInplace, linearCrossEntropy, type CrossEntropyOptions } from '../ops/cross_entropy.ts';
import type { Tensor } from '../tensor.ts';

/** A micro-batch on the device. */
export interface UploadedBatch extends TokenBatch {
  readonly targets: Tensor; // [T] i32
}

/** Four small uploads; the tensors are the enclosing scope's. */
export function uploadBatch(device: Device, { inputIds, positions, offsets, targets }: Batch): UploadedBatch {
  const length = positions.reduce((most, position) => Math.max(most, position + 1), 0);
  return { ids: device.tensor(inputIds), positions: device.tensor(positions), offsets: device.tensor(offsets), length, targets: device.tensor(targets) };
}

/**
 * Token-summed cross entropy of hidden states [T, C], into `options.loss`. The logits exist as a whole only where an adapter on the
 * output head makes them depend on more than one weight.
 */
export function tokenLoss(model: Model, hidden: Tensor, options: CrossEntropyOptions, gradient: 'wanted' | 'none'): Tensor {
  const { linear, weight } = model.head;
  if (linear !== null && linear.lora !== null) return crossEntropyInplace(model.logits(hidden), options);
  return linearCrossEntropy(hidden, linear?.weight ?? weight, options, gradient);
}
