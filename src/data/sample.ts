/** The label of a token that is read but not learned (the value PyTorch and Hugging Face use). */
export const IGNORE = -100;

/** One training sequence. Labels are not shifted: `labels[t]` is what position t-1 has to predict (the Hugging Face convention). */
export interface Sample {
  readonly inputIds: Int32Array; // [T]
  readonly labels: Int32Array; // [T], IGNORE where nothing is learned; the very same array as inputIds when all is learned
  /** `[T]`: the column of each token in its row, given only where dropped tokens make it differ from 0, 1, 2, … */
  readonly positions?: Int32Array;
}

/** How many targets a sample gives: labels that are not IGNORE, but for the first, which nothing predicts. */
export function trainableTokens(sample: Sample): number {
  let count = 0;
  for (let t = 1; t < sample.labels.length; t++) if (sample.labels[t] !== IGNORE) count++;
  return count;
}

/** The first `maxLength` tokens of a sample, copied, so that the long arrays can go; the sample itself when it fits. */
export function truncateSample(sample: Sample, maxLength: number): Sample {
  if (sample.inputIds.length <= maxLength) return sample;
  const inputIds = sample.inputIds.slice(0, maxLength);
  const labels = sample.labels === sample.inputIds ? inputIds : sample.labels.slice(0, maxLength);
  return sample.positions ? { inputIds, labels, positions: sample.positions.slice(0, maxLength) } : { inputIds, labels };
}
