import type { LayerShape } from '../../src/cli/layer-work.ts';
import type { ModelShape } from '../shapes.ts';

/** The linears of a decoder layer in order, q|k|v, o, gate|up, down. */
export function layerLinears({ hidden, heads, kvHeads, intermediate }: ModelShape, T: number, r: number): readonly [LayerShape, LayerShape, LayerShape, LayerShape] {
  const keys = (hidden / heads) * kvHeads;
  const linear = (K: number, ...parts: number[]): LayerShape => ({ T, K, r, parts, N: parts.reduce((sum, rows) => sum + rows, 0) });
  return [linear(hidden, hidden, keys, keys), linear(hidden, hidden), linear(hidden, intermediate, intermediate), linear(intermediate, hidden)];
}
