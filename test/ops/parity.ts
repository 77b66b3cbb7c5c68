import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ActivationDtype, type Device, type MatmulPrecision, openDevice, probeDevices } from '../../src/device.ts';
import type { DType, Tensor } from '../../src/tensor.ts';
import type { Numbers } from '../reference/numbers.ts';
import { Bench, type Misalign, type Placement } from './bench.ts';

/** Unit roundoff of f32: what one operation may be off, relatively. */
export const epsilon = 2 ** -24;

/** One output of a case: what the kernel wrote, what the oracle says, and how far apart they may be at element i. */
export interface Output {
  readonly name: string;
  readonly got: Tensor;
  readonly want: Numbers;
  /**
   * Absolute, of the arithmetic in f32: from the reduction's length and the magnitude of what was added, see {@link bound}. What storing
   * the number in 16 bits costs is added by the harness. 0: this very number.
   */
  readonly within: (i: number) => number;
}

/**
 * A bound for a result that was summed from `length` terms whose absolute values add up to `magnitude` (a number, or one for each
 * element), in f32 and in any order, with `steps` roundings of its own on the way (an exp, a division). Higham's (1 + u)^n - 1 with the
 * blocked summation of the kernels; 1e-30 covers flushed denormals.
 */
export function bound(length: number, magnitude: number | Numbers, steps = 8): (i: number) => number {
  const roundings = steps + Math.min(length, 16 + Math.ceil(length / 16));
  return (i) => 1e-30 + roundings * epsilon * Math.abs(typeof magnitude === 'number' ? magnitude : (magnitude[i] ?? NaN));
}

interface Variant {
  readonly name: string;
  readonly device: 'cpu' | 'cusim' | 'cuda';
  /** What the addon finds in the environment when the device is opened. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly matmulPrecision?: MatmulPrecision;
  readonly activations?: ActivationDtype;
  /** Devices a case runs on: thread counts on the CPU, schedules in the emulator. */
  readonly devices: readonly number[];
  /** `each`, as without it: every device has every alignment. `in turn`: the first alignment is for the first device, the second for the second. */
  readonly alignments?: 'each' | 'in turn';
}

const isas = process.arch === 'x64' ? ['avx512', 'avx2', 'base'] : process.arch === 'arm64' ? ['neon'] : ['base'];
const checkedPlugin = fileURLToPath(new URL('../../build/Release/liblowrank_cusim_checked.so', import.meta.url));
const variants: readonly Variant[] = [
  ...isas.map((isa): Variant => ({ name: `cpu ${isa}`, device: 'cpu', environment: { LOWRANK_ISA: isa }, devices: [1, 2, 4] })),
  { name: 'cusim', device: 'cusim', environment: {}, devices: [1, 3] },
  // What this mode reports it reports in any schedule: planted defects are found in 20 of 20. The same bits in all: seen in the line above.
  { name: 'cusim checked', device: 'cusim', environment: { LOWRANK_CUSIM_PLUGIN: checkedPlugin }, devices: [1, 3], alignments: 'in turn' },
  { name: 'cuda', device: 'cuda', environment: {}, devices: [1, 3] },
];

// For ops with activations, in 16 bits. In the emulator each dtype has one schedule and one mode: that the order of threads changes nothing,
// and that nothing is touched that mustn't be, was seen in f32, and bf16 is checked once more for the ways of its own.
const halves: readonly Variant[] = [
  { name: 'cusim checked bf16', device: 'cusim', environment: { LOWRANK_CUSIM_PLUGIN: checkedPlugin }, activations: 'bf16', devices: [5] },
  { name: 'cusim f16', device: 'cusim', environment: {}, activations: 'f16', devices: [7] },
  { name: 'cuda bf16', device: 'cuda', environment: {}, activations: 'bf16', devices: [1, 3] },
  { name: 'cuda f16', device: 'cuda', environment: {}, activations: 'f16', devices: [1, 3] },
];

// For ops with frozen products: they may round to bf16 here.
const medium: readonly Variant[] = [
  { name: 'cpu avx512 medium', device: 'cpu', environment: { LOWRANK_ISA: 'avx512' }, matmulPrecision: 'medium', devices: [1, 2, 4] },
  ...(process.arch === 'x64' ? ['avx512', 'avx2'] : []).map((isa): Variant => (
    { name: `cpu ${isa} emulated AMX`, device: 'cpu', environment: { LOWRANK_ISA: isa, LOWRANK_AMX: 'emulated' }, matmulPrecision: 'medium', devices: [1, 2] })),
];

const multipliesBf16 = await hasMedium({ LOWRANK_ISA: 'avx512' });

const misalignments: readonly Misalign[] = [0, 1, 3];
const emulatedMisalignments: readonly Misalign[] = [0, 1]; // kernels for CUDA have an aligned form and one for the rest

export interface ParityOptions<Case> {
  readonly cases: readonly Case[];
  /** Queues the kernel on `bench` and returns what to compare. Called several times for one case, with the same seed. */
  readonly run: (bench: Bench, testCase: Case) => readonly Output[];
  readonly seed?: number;
  /** The op multiplies a frozen weight, and `run` heeds `bench.frozenFactor`: it is held to the oracle with `matmulPrecision: 'medium'` too. */
  readonly frozen?: boolean;
  /**
   * `run` makes the op's activations with `bench.activation` and its like, so that it can be held to the oracle in 16 bits too. `any rows`:
   * also without spare columns and misaligned; `bordered`: only as a device lays activations out.
   */
  readonly halves?: 'any rows' | 'bordered';
  /** The cases that say something new in 16 bits; all, unless it is given. */
  readonly inHalves?: (testCase: Case) => boolean;
  /** Cases that the emulator can't do in a second; everything else runs there too. */
  readonly tooBigToEmulate?: (testCase: Case) => boolean;
}

/** The claim that a kernel agrees with the oracle: on every backend and instruction set that is here, for every case. */
export function parity<Case>(op: string, options: ParityOptions<Case>): void {
  const shares = new Shares<Case>();
  for (const variant of [...variants, ...(options.frozen === true ? medium : []), ...(options.halves === undefined ? [] : halves)]) {
    const missing = unavailable(variant);
    const cases = someOf(variant.activations === undefined ? options.cases : options.cases.filter(options.inHalves ?? (() => true)));
    if (missing === null) describe(`${op} on ${variant.name}`, () => checkVariant(op, variant, shares, { ...options, cases }));
    else console.warn(`${variant.name}: ${cases.length} cases of ${op} not run (${missing})`);
  }
}

/** What the runs of a case have in common, on whatever device: the oracle is asked once for each arithmetic. */
class Shares<Case> {
  readonly #known = new Map<string, Map<Case, unknown[]>>();

  of({ activations = 'f32', matmulPrecision = 'highest' }: Variant, testCase: Case): unknown[] {
    const arithmetic = `${activations} ${matmulPrecision}`;
    const cases = this.#known.get(arithmetic) ?? new Map<Case, unknown[]>();
    const shared = cases.get(testCase) ?? [];
    this.#known.set(arithmetic, cases.set(testCase, shared));
    return shared;
  }
}

// LOWRANK_PARITY_CASES: about so many of each op, from the first to the last, for a run under a tool that slows everything down.
function someOf<Case>(cases: readonly Case[]): readonly Case[] {
  const wanted = Number(process.env['LOWRANK_PARITY_CASES'] ?? Infinity);
  const stride = Math.max(1, Math.floor(cases.length / wanted));
  return cases.filter((_, i) => i % stride === 0);
}

function checkVariant<Case>(op: string, variant: Variant, shares: Shares<Case>, options: ParityOptions<Case>): void {
  const { cases, run, seed = 1, halves: layout = 'any rows', tooBigToEmulate = () => false } = options;
  const devices: Device[] = [];
  let tooBig = 0;
  beforeAll(async () => {
    for (const number of variant.devices) devices.push(await openVariant(variant, number));
  });
  afterAll(() => {
    devices.forEach((device) => device.close());
    if (tooBig > 0) console.warn(`${variant.name}: ${tooBig} cases of ${op} not run (too big to emulate)`);
  });
  for (const testCase of cases) {
    it(`agrees with the oracle: ${JSON.stringify(testCase)}`, async (context) => {
      if (variant.device === 'cusim' && tooBigToEmulate(testCase)) {
        tooBig++;
        context.skip();
      }
      const shared = shares.of(variant, testCase);
      for (const [i, misalign] of (variant.device === 'cusim' ? emulatedMisalignments : misalignments).entries()) {
        const chosen = variant.alignments === 'in turn' ? devices.filter((_, j) => j === i % devices.length) : devices;
        await checkCase(chosen, { misalign, seed, layout, shared }, (bench) => run(bench, testCase));
      }
    });
  }
}

// The same case with 1, 2 and 4 threads (in the emulator: in its schedules): right, in bounds, the same bits, nothing left behind.
async function checkCase(devices: readonly Device[], placement: Placement, run: (bench: Bench) => readonly Output[]): Promise<void> {
  let first: Uint8Array[] | undefined;
  for (const device of devices) {
    const live = device.stats().tensors;
    const bench = new Bench(device, placement);
    try {
      const outputs = run(bench);
      const bits = await Promise.all(outputs.map(async ({ got }) => new Uint8Array(await got.bytes())));
      // What has the bits of the first device's output agrees with the oracle as that one did.
      if (first === undefined) for (const output of outputs) checkOutput(output, await output.got.data());
      await bench.checkBounds();
      first ??= bits;
      bits.forEach((own, i) => expect(Buffer.compare(own, first?.[i] ?? own), `${outputs[i]?.name}: same bits for any thread count`).toBe(0));
    } finally {
      bench.dispose();
    }
    expect(device.stats().tensors, 'live tensors').toBe(live);
  }
}

function checkOutput(output: Output, got: Numbers): void {
  expect(got.length, `${output.name}: elements`).toBe(output.want.length);
  const fault = firstFault(output, got);
  expect(fault, fault ?? '').toBeNull();
  spoilOne(output, got);
}

/** What element i may be off by, its rounding to the output's dtype included. */
function limitOf({ got, want, within }: Output, i: number): number {
  const [own, exact] = [within(i), want[i] as number];
  if (own === 0 || !Number.isFinite(exact)) return own;
  return own + rounding(got.dtype, Math.abs(exact) + own);
}

/** Half of the distance between neighbours of this size in a dtype of 16 bits: the most that storing a number costs. f16 overflows. */
function rounding(dtype: DType, size: number): number {
  if (dtype !== 'f16' && dtype !== 'bf16') return 0;
  const [digits, least, most] = dtype === 'f16' ? [10, -14, 65504] : [7, -126, Infinity];
  if (size > most) return Infinity;
  return 2 ** (Math.max(least, Math.floor(Math.log2(size))) - digits - 1);
}

/** The first element out of bounds, from element `begin` on, in words, or null. */
function firstFault(output: Output, got: Numbers, begin = 0): string | null {
  const { name, want } = output;
  for (let i = begin; i < want.length; i++) {
    const [a, b] = [got[i] as number, want[i] as number];
    if (a === b || (Number.isNaN(a) && Number.isNaN(b))) continue;
    const limit = limitOf(output, i);
    if (Math.abs(a - b) <= limit) continue;
    return `${name}[${i}] must be ${b} within ${limit} (found ${a}, ${Math.abs(a - b)} off)`;
  }
  return null;
}

// A check that can't fail is worth nothing: one element, off by twice its bound, must be noticed. Those before it were seen to be right.
function spoilOne(output: Output, got: Numbers): void {
  const i = Math.floor(got.length / 2);
  const want = output.want[i];
  if (want === undefined || !Number.isFinite(want) || limitOf(output, i) === Infinity) return;
  const spoiled = Float64Array.from(got);
  spoiled[i] = want + 2 * limitOf(output, i) + Math.abs(want) * 2 ** -50 + Number.MIN_VALUE;
  expect(firstFault(output, spoiled, i), `${output.name}: a spoiled element must be noticed`).not.toBeNull();
}

function unavailable({ device, environment, matmulPrecision }: Variant): string | null {
  return withEnvironment(environment, () => {
    const { count, why } = probeDevices(device);
    if (count === 0) return device === 'cpu' ? why : (why.split(':')[0] ?? why);
    const emulated = environment['LOWRANK_AMX'] === 'emulated';
    return matmulPrecision === 'medium' && !emulated && !multipliesBf16 ? 'there is neither AVX512-BF16 nor AMX here' : null;
  });
}

/** The processor may lack it, and the system may keep AMX from us. */
async function hasMedium(environment: Variant['environment']): Promise<boolean> {
  if (withEnvironment(environment, () => probeDevices('cpu').count) === 0) return false;
  await using device = await withEnvironment(environment, () => openDevice('cpu', { threads: 1, matmulPrecision: 'medium' }));
  return device.info.matmulPrecision === 'medium';
}

/** Opens a device as a variant wants it: the addon reads these variables when a device is opened. */
async function openVariant(variant: Variant, number: number): Promise<Device> {
  const { matmulPrecision = 'highest', activations = 'f32' } = variant;
  const environment = { ...variant.environment, LOWRANK_CUSIM_SEED: String(number) };
  const device = await withEnvironment(environment, () => openDevice(variant.device, { threads: number, matmulPrecision, activations }));
  expect(device.info.matmulPrecision).toBe(matmulPrecision);
  return device;
}

function withEnvironment<T>(variables: Readonly<Record<string, string | undefined>>, body: () => T): T {
  const before = Object.fromEntries(Object.keys(variables).map((name) => [name, process.env[name]]));
  setEnvironment(variables);
  try {
    return body();
  } finally {
    setEnvironment(before);
  }
}

function setEnvironment(variables: Readonly<Record<string, string | undefined>>): void {
  for (const [name, value] of Object.entries(variables)) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
}
