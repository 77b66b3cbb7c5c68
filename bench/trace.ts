/** An op that ran, from a file of LOWRANK_TRACE. Milliseconds. */
export interface TracedOp {
  readonly name: string;
  /** `y [1024,576], x [1024,576], …`, operands by the names of the contract. */
  readonly shapes: string;
  readonly begin: number;
  readonly end: number;
}

interface TraceLine {
  readonly name?: string;
  readonly ts: number;
  readonly dur: number;
  readonly args: { readonly shapes: string };
}

export function parseTrace(text: string): TracedOp[] {
  const lines = (JSON.parse(text) as TraceLine[]).filter(({ name }) => name !== undefined);
  return lines.map(({ name = '', ts, dur, args }) => ({ name, shapes: args.shapes, begin: ts / 1e3, end: (ts + dur) / 1e3 }));
}

/** Cut behind each optimizer step; what follows the last is left out. */
export function stepsOf(ops: readonly TracedOp[]): readonly (readonly TracedOp[])[] {
  const ends = ops.flatMap(({ name }, i) => (name === 'adamw' ? [i + 1] : []));
  return ends.map((end, i) => ops.slice(i === 0 ? 0 : ends[i - 1], end));
}

/** Dimensions of each operand that was given. */
function operands(shapes: string): Readonly<Record<string, readonly number[]>> {
  return Object.fromEntries([...shapes.matchAll(/(\w+) \[([\d,]*)\]/g)].map(([, name = '', dims = '']) => [name, dims.split(',').map(Number)]));
}

/** Multiplications and additions of an op's matrix products; 0 for ops that have none. Attention is causal inside each sequence. */
export function opFlops({ name, shapes }: TracedOp, { tokens }: { readonly tokens: number }): number {
  const of = operands(shapes);
  const [rows, cols, count] = [
    (operand: string): number => of[operand]?.slice(0, -1).reduce((n, dim) => n * dim, 1) ?? 0,
    (operand: string): number => of[operand]?.at(-1) ?? 0,
    (operand: string): number => of[operand]?.reduce((n, dim) => n * dim, 1) ?? 0,
  ];
  const adapter = (T: number): number => 2 * T * (count('a') + count('b'));
  switch (name) {
    case 'linear': return 2 * rows('x') * cols('x') * cols('y');
    case 'linear_grad': return 2 * rows('dy') * cols('dy') * cols('dx');
    case 'lora_linear': return 2 * rows('x') * cols('x') * cols('y') + adapter(rows('x'));
    case 'swiglu_then_lora_linear': return 2 * rows('h') * cols('h') * cols('y') + adapter(rows('h'));
    case 'lora_linear_grad':
    case 'swiglu_grad_then_lora_linear_grad': return 2 * rows('dx') * cols('dx') * cols('dy') + 2 * adapter(rows('dy')) - (of['dx'] === undefined ? 2 * rows('dy') * count('a') : 0);
    case 'linear_cross_entropy': return (of['dx'] === undefined ? 2 : 4) * rows('x') * cols('x') * rows('w');
    // Scores and weighted values; on the way back scores again, dv, dp, dq, dk. Half of each square.
    case 'attention': return 2 * rows('y') * cols('y') * (tokens + 1);
    case 'attention_grad': return 5 * rows('y') * cols('y') * (tokens + 1);
    default: return 0;
  }
}
