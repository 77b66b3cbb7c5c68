import { describe, expect, test } from 'vitest';
import { of, opCases } from '../golden/read.ts';
import { bf16Bits, bf16Value, f16Bits, f16Value } from './half.ts';

const formats = [
  { name: 'f16', bits: f16Bits, value: f16Value, infinity: 0x7c00 },
  { name: 'bf16', bits: bf16Bits, value: bf16Value, infinity: 0x7f80 },
];

describe.each(formats)('$name', ({ name, bits, value, infinity }) => {
  test('every 16-bit pattern comes back through f32', () => {
    for (let pattern = 0; pattern < 0x10000; pattern++) {
      const x = value(pattern);
      expect(Math.fround(x)).toBe(x);
      if ((pattern & 0x7fff) > infinity) expect(bits(x) & 0x7fff).toBeGreaterThan(infinity);
      else if (bits(x) !== pattern) throw new Error(`0x${pattern.toString(16)} became 0x${bits(x).toString(16)}`);
    }
  });

  test('halfway between neighbours goes to the even one, and a hair off goes to the nearer', () => {
    for (let low = 0; low + 1 < infinity; low += 7) {
      const [a, b] = [value(low), value(low + 1)];
      const middle = (a + b) / 2;
      const even = low % 2 === 0 ? low : low + 1;
      if (Math.fround(middle) !== middle) continue; // below f32's own resolution
      expect(bits(middle)).toBe(even);
      expect(bits(-middle)).toBe(even | 0x8000);
      const hair = (b - a) / 64;
      if (Math.fround(middle - hair) !== middle - hair) continue;
      expect([bits(middle - hair), bits(middle + hair)]).toEqual([low, low + 1]);
    }
  });

  test.each(opCases('half'))('gives the bits that PyTorch gives: $name', ({ arrays }) => {
    expect(of(arrays, 'x').map(bits)).toEqual(of(arrays, name));
  });
});
