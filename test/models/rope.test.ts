import { describe, expect, test } from 'vitest';
import { ConfigReader, type Json } from '../../src/models/config-reader.ts';
import { readRope } from '../../src/models/rope-config.ts';
import { ropeFrequencies, type RopeSettings, ropeTable } from '../../src/models/rope.ts';
import { readJson } from '../golden/read.ts';

interface RopeGolden {
  name: string;
  config: Json;
  at: { length: number; inverse: number[]; attentionFactor: number; rows: number[] }[];
}

const { cases } = readJson<{ cases: RopeGolden[] }>('rope.json');

function settings(json: Json): RopeSettings {
  const config = new ConfigReader('config.json', json);
  const headSize = (json['hidden_size'] as number) / (json['num_attention_heads'] as number);
  const rope = readRope(config, { maxPositions: json['max_position_embeddings'] as number, headSize });
  config.finish();
  return rope;
}

// One unit in the last place of pow, cos and sin is all that may differ between libraries; a table row adds the angle's own
// rounding, times the position.
function worstRelative(got: ArrayLike<number>, want: readonly number[]): number {
  return Math.max(...want.map((value, i) => Math.abs(got[i]! - value) / Math.abs(value)));
}

describe.each(cases)('rope, $name', ({ config, at }) => {
  test.each(at)('has the frequencies of transformers at length $length', ({ length, inverse, attentionFactor }) => {
    const got = ropeFrequencies(settings(config), length);
    expect(got.inverse).toHaveLength(inverse.length);
    expect(worstRelative(got.inverse, inverse)).toBeLessThan(5e-7);
    expect(got.attentionFactor).toBeCloseTo(attentionFactor, 12);
  });

  test.each(at.filter(({ rows }) => rows.length > 0))('has the cos and sin of transformers at length $length', ({ length, rows }) => {
    const rope = settings(config);
    const table = ropeTable(ropeFrequencies(rope, length), length);
    const got = [0, 1, Math.floor(length / 2), length - 1].flatMap((row) => [...table.subarray(row * rope.size, (row + 1) * rope.size)]);
    expect(got).toHaveLength(rows.length);
    expect(Math.max(...rows.map((value, i) => Math.abs(value - got[i]!)))).toBeLessThan(1e-7 * length + 2e-7);
  });
});

describe('rope settings', () => {
  const base = { hidden_size: 64, num_attention_heads: 2, max_position_embeddings: 64 };
  test.each([
    { what: 'an unknown type', rope_scaling: { type: 'su', factor: 2 }, code: 'ERR_UNSUPPORTED', says: '"rope_scaling.rope_type" must be one of default, linear' },
    { what: 'a layered rope', rope_parameters: { full_attention: { rope_type: 'default' } }, code: 'ERR_UNSUPPORTED', says: 'the same in all layers' },
    { what: 'linear without factor', rope_scaling: { type: 'linear' }, code: 'ERR_FORMAT', says: '"rope_scaling.factor" must be a number above 0' },
    { what: 'longrope with short lists', rope_scaling: { type: 'longrope', short_factor: [1], long_factor: 7 }, code: 'ERR_FORMAT', says: 'must be 16 numbers above 0' },
    { what: 'a theta of text', rope_theta: '10000', code: 'ERR_FORMAT', says: '"rope_theta" must be a number above 0' },
    { what: 'settings that are no object', rope_scaling: 'linear', code: 'ERR_FORMAT', says: '"rope_scaling" must be an object' },
    { what: 'an odd share of the head', rope_scaling: { type: 'linear', factor: 2, partial_rotary_factor: 0.1 }, code: 'ERR_FORMAT', says: 'even number' },
  ])('refuse $what', ({ code, says, what: _, ...config }) => {
    expect(() => settings({ ...base, ...config })).toThrow(expect.objectContaining({ code, message: expect.stringContaining(says) as string }));
  });
});
