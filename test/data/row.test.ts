import { describe, expect, it } from 'vitest';
import { rowToSample } from '../../src/data/row-to-sample.ts';

const reading = { tokenizer: null, vocabSize: null };

describe('rows as Parquet gives them', () => {
  it('typed arrays and bigints are ids like others', () => {
    const { inputIds, labels } = rowToSample({ input_ids: BigInt64Array.of(1n, 2n, 3n), labels: [-100n, 2, 3n] }, reading);
    expect([inputIds, labels]).toEqual([Int32Array.of(1, 2, 3), Int32Array.of(-100, 2, 3)]);
  });

  it.each([[[1n << 40n], '1099511627776'], [Float32Array.of(0.5), '0.5'], [[undefined], 'nothing']])('%s is refused', (ids, found) => {
    expect(() => rowToSample({ input_ids: ids }, reading)).toThrow(`whole numbers (found ${found} at 0)`);
  });
});
