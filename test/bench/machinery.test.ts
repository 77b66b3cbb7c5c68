import { describe, expect, it } from 'vitest';
import type { Bench } from '../../bench/bench.ts';
import { fitLine } from '../../bench/fit.ts';
import { linePlots } from '../../bench/line-plot.ts';
import { helpText, readCommandLine } from '../../bench/options.ts';
import { profileRows } from '../../bench/profile.ts';
import { renderTable } from '../../bench/table.ts';
import { opFlops, parseTrace, stepsOf } from '../../bench/trace.ts';
import { startLineWorker } from '../../src/cli/line-worker.ts';
import { ratioSpread, spread, takeTurns } from '../../src/cli/turns.ts';

describe('taking turns', () => {
  it('samples every party once a round, in order, after it was warmed', async () => {
    const calls: string[] = [];
    const party = (name: string) => ({ sample: async (repeats: number) => (calls.push(`${name}${repeats}`), 10) });
    const samples = await takeTurns({ a: party('a'), b: party('b'), rate: { ...party('r'), once: true } }, { rounds: 2, sample: 35 });
    expect(calls).toEqual(['a1', 'a1', 'b1', 'b1', 'a4', 'b4', 'r1', 'a4', 'b4', 'r1']);
    expect(samples).toEqual({ a: [10, 10], b: [10, 10], rate: [10, 10] });
  });
  it('gives median and quartiles, and those of quotients round by round', () => {
    expect(spread([4, 1, 3, 2, 5])).toEqual({ median: 3, low: 2, high: 4 });
    expect(spread([1, 2])).toEqual({ median: 1.5, low: 1.25, high: 1.75 });
    expect(ratioSpread([2, 40, 6], [1, 10, 2])).toEqual({ median: 3, low: 2.5, high: 3.5 });
  });
});

describe('a worker that answers lines', () => {
  const node = (script: string) => startLineWorker({ file: process.execPath, args: ['-e', script] });
  const echo = "require('readline').createInterface({ input: process.stdin }).on('line', (line) => console.log(JSON.stringify(line === 'bad' ? { error: 'no' } : { line })))";

  it('answers each line; an error rejects and it goes on', async () => {
    const worker = node(echo);
    expect(await worker.ask('one')).toEqual({ line: 'one' });
    await expect(worker.ask('bad')).rejects.toThrow('no');
    expect(await worker.ask('two')).toEqual({ line: 'two' });
    await worker.stop();
  });
  it('that ends tells what it wrote on stderr', async () => {
    await expect(node("process.stdin.once('data', () => { console.error('out of luck'); process.exit(3); })").ask('one')).rejects.toThrow('out of luck');
  });
});

describe('a table', () => {
  it('is Markdown: numbers to the right, what is missing empty', () => {
    expect(renderTable([{ who: 'a', ms: 1.5 }, { who: 'bcde', ms: null, note: 'x' }])).toBe(['| who  |  ms | note |', '| ---- | --: | ---- |', '| a    | 1.5 |      |', '| bcde |     | x    |'].join('\n'));
    expect(renderTable([])).toBe('');
  });
});

describe('a line through points', () => {
  const points = [1, 2, 4, 8].map((x) => ({ x, y: 3 * x }));
  it('finds slope, intercept, R² and exponent', () => {
    const fit = fitLine(points);
    expect(fit.slope).toBeCloseTo(3, 10);
    expect(fit.intercept).toBeCloseTo(0, 10);
    expect(fit.r2).toBeCloseTo(1, 10);
    expect(fit.exponent).toBeCloseTo(1, 10);
    expect(fitLine(points.map(({ x }) => ({ x, y: x * x }))).exponent).toBeCloseTo(2, 10);
    expect(fitLine(points.map(({ x }) => ({ x, y: x * x }))).r2).toBeLessThan(0.99);
  });
  it('is drawn with every point, and text that is no markup', () => {
    const svg = linePlots('a & b', [{ title: '<T>', xLabel: 'T', yLabel: 'ms', points, fit: fitLine(points) }]);
    expect(svg.match(/<circle /g)).toHaveLength(points.length);
    expect(svg).toContain('&#38;');
    expect(svg).toContain('&#60;T&#62;');
    expect(svg).not.toContain('NaN');
  });
});

describe('a trace', () => {
  const op = (name: string, shapes: string, ts: number, dur: number): string => JSON.stringify({ name, ph: 'X', pid: 1, tid: 1, ts, dur, args: { shapes } });
  const step = (ts: number): string[] => [op('linear', 'y [4,6], x [4,5], w [6,5]', ts, 1000), op('adamw', 'p [9]', ts + 1500, 500)];
  const steps = stepsOf(parseTrace(`[\n${[...step(0), ...step(10_000), op('fill', 'y [1]', 20_000, 1)].join(',\n')},\n{}]\n`));

  it('is cut into steps, each with its share of time by op and what passed between', () => {
    expect(steps.map((ops) => ops.map(({ name }) => name))).toEqual([['linear', 'adamw'], ['linear', 'adamw']]);
    const rows = profileRows(steps, ({ name }) => name, { frozen: 1, f32: 1 });
    expect(rows.map(({ op: name, ms }) => [name, ms])).toEqual([['linear', 1], ['adamw', 0.5], ['between ops', 0.5], ['step', 2]]);
    expect(rows[0]).toMatchObject({ calls: 1, share: 0.5 });
  });

  const [T, K, N, r] = [7, 5, 6, 2];
  const lora = `a [${r},${K}], b [${N * r}]`;
  it.each([
    { name: 'linear', shapes: `y [${T},${N}], x [${T},${K}], w [${N},${K}]`, flops: 2 * T * K * N },
    { name: 'linear_grad', shapes: `dx [${T},${K}], dy [${T},${N}], w [${N},${K}]`, flops: 2 * T * K * N },
    { name: 'lora_linear', shapes: `y [${T},${N}], u [${T},${r}], x [${T},${K}], w [${N},${K}], ${lora}`, flops: 2 * T * (K * N + r * (K + N)) },
    { name: 'lora_linear_grad', shapes: `dx [${T},${K}], da [${r},${K}], db [${N * r}], dy [${T},${N}], x [${T},${K}], ${lora}`, flops: 2 * T * (K * N + 2 * r * (K + N)) },
    { name: 'lora_linear_grad', shapes: `da [${r},${K}], db [${N * r}], dy [${T},${N}], x [${T},${K}], ${lora}`, flops: 2 * T * (r * K + 2 * r * N) },
    { name: 'linear_cross_entropy', shapes: `loss [1], dx [${T},${K}], x [${T},${K}], w [${N},${K}], targets [${T}]`, flops: 4 * T * K * N },
    { name: 'attention', shapes: `y [${T},${K}], lse [${T},1], qkv [${T},${3 * K}], offsets [2]`, flops: 2 * T * K * (T + 1) },
    { name: 'rms_norm', shapes: 'y [4,4], x [4,4]', flops: 0 },
  ])('counts the arithmetic of $name ($shapes)', ({ name, shapes, flops }) => {
    expect(opFlops({ name, shapes, begin: 0, end: 1 }, { tokens: T })).toBe(flops);
  });
});

describe('the command line', () => {
  const bench = (usual: boolean): Bench => ({ about: 'something', usual, run: async () => ({ tables: {} }) });
  const benches = { quick: bench(true), long: bench(false) };

  it('runs the short set, all, or those it names', () => {
    const names = (...args: string[]): readonly string[] => readCommandLine(args, benches).names;
    expect(names()).toEqual(['quick']);
    expect(names('--all')).toEqual(['quick', 'long']);
    expect(names('--only', 'long,quick')).toEqual(['long', 'quick']);
    expect(helpText(benches)).toMatch(/\*  quick +something\n {3}long +something/);
  });
  it('runs PyTorch as it is unless it is to be compiled', () => {
    expect([[], ['--compiled']].map((args) => readCommandLine(args, benches).peersRun)).toEqual(['eager', 'compiled']);
  });
  it.each([
    { args: ['--only', 'other'], says: '--only must name some of quick, long (found other)' },
    { args: ['--dtype', 'i8'], says: '--dtype must be one of bf16, f16, f32 (found i8)' },
    { args: ['--rounds', '0'], says: '--rounds must be a whole number of at least 1 (found 0)' },
    { args: ['--precision', 'low'], says: '--precision must be one of highest, medium (found low)' },
  ])('refuses $args', ({ args, says }) => {
    expect(() => readCommandLine(args, benches)).toThrow(says);
  });
});
