import { parseArgs } from 'node:util';
import { type ActivationDtype, activationDtypes, type MatmulPrecision, matmulPrecisions } from '../src/device.ts';
import type { DType } from '../src/tensor.ts';
import type { Bench, BenchOptions } from './bench.ts';

export interface CommandLine extends BenchOptions {
  readonly help: boolean;
  readonly save: boolean;
  /** Where each bench leaves its record besides; null: nowhere. */
  readonly json: string | null;
  /** cpu, cuda, cuda:N, or cusim, which is for tests of the benches. */
  readonly device: string;
  /** null: the device's own. */
  readonly activations: ActivationDtype | null;
  readonly peers: boolean;
  readonly python: string | undefined;
  readonly names: readonly string[];
}

const dtypes: readonly DType[] = ['bf16', 'f16', 'f32'];

/** @throws Error that tells which option is wrong and what it may be */
export function readCommandLine(args: readonly string[], benches: Readonly<Record<string, Bench>>): CommandLine {
  const { values } = parseArgs({
    args: [...args],
    options: {
      help: { type: 'boolean', default: false },
      only: { type: 'string' },
      all: { type: 'boolean', default: false },
      peers: { type: 'boolean', default: false },
      compiled: { type: 'boolean', default: false },
      python: { type: 'string' },
      shape: { type: 'string' },
      dtype: { type: 'string', default: 'bf16' },
      precision: { type: 'string', default: 'highest' satisfies MatmulPrecision },
      rounds: { type: 'string' },
      limit: { type: 'string' },
      save: { type: 'boolean', default: false },
      json: { type: 'string' },
      device: { type: 'string', default: 'cpu' },
      activations: { type: 'string' },
      seconds: { type: 'string' },
    },
  });
  const { help, save, peers, python, all, device } = values;
  const precision = matmulPrecisions.find((each) => each === values.precision);
  if (precision === undefined) throw new Error(`bench: --precision must be one of ${matmulPrecisions.join(', ')} (found ${values.precision})`);
  const [dtype, rounds] = [dtypes.find((each) => each === values.dtype), values.rounds === undefined ? null : Number(values.rounds)];
  if (dtype === undefined) throw new Error(`bench: --dtype must be one of ${dtypes.join(', ')} (found ${values.dtype})`);
  if (rounds !== null && !(Number.isInteger(rounds) && rounds >= 1)) throw new Error(`bench: --rounds must be a whole number of at least 1 (found ${values.rounds})`);
  const limit = values.limit === undefined ? null : Number(values.limit);
  if (limit !== null && !(Number.isInteger(limit) && limit > 0)) throw new Error(`bench: --limit must be a number of bytes (found ${values.limit})`);
  const activations = activationDtypes.find((each) => each === values.activations) ?? null;
  if (values.activations !== undefined && activations === null) throw new Error(`bench: --activations must be one of ${activationDtypes.join(', ')} (found ${values.activations})`);
  const seconds = values.seconds === undefined ? null : Number(values.seconds);
  if (seconds !== null && !(seconds > 0)) throw new Error(`bench: --seconds must be a number above 0 (found ${values.seconds})`);
  const names = chosenNames(values.only, all, device, benches);
  return {
    help, save, peers, python, all, device, dtype, precision, rounds, limit, seconds, names,
    peersRun: values.compiled ? 'compiled' : 'eager', activations, json: values.json ?? null, shape: values.shape ?? null,
  };
}

function chosenNames(only: string | undefined, all: boolean, device: string, benches: Readonly<Record<string, Bench>>): readonly string[] {
  const names = Object.keys(benches).filter((name) => device === 'cpu' || benches[name]?.anyDevice);
  if (only === undefined) return names.filter((name) => all || benches[name]?.usual);
  for (const name of only.split(',')) if (!names.includes(name)) throw new Error(`bench: --only must name some of ${names.join(', ')}${device === 'cpu' ? '' : ` on ${device}`} (found ${name})`);
  return only.split(',');
}

export function helpText(benches: Readonly<Record<string, Bench>>): string {
  const width = Math.max(...Object.keys(benches).map((name) => name.length));
  return [
    'npm run bench -- [--only NAME,NAME] [--all] [--peers [--compiled] [--python FILE]] [--shape NAME] [--dtype bf16|f16|f32]',
    '             [--device cpu|cuda|cuda:N] [--activations f32|f16|bf16] [--precision highest|medium] [--rounds N] [--seconds N] [--limit BYTES] [--save] [--json FOLDER]',
    '',
    '--all     every bench and shape instead of a short set',
    '--peers   PyTorch + PEFT on the same work in turns (a Python with torch, transformers, peft: --python, LOWRANK_PEERS_PYTHON, .peers/)',
    '--compiled PyTorch by torch.compile (step on a GPU)',
    '--shape   one of a bench that has several; --dtype of W0 (lora-linear, scaling)',
    '--precision medium: products of frozen weights in bf16 where that is faster (lora-linear and step show both without it)',
    '--rounds  turns of each side; steps of large',
    '--limit   memory of the second run of large; half of what its weights take without it',
    '--seconds takes up no more shapes after that time (lora-linear, skinny, attention, block; pairs of step)',
    '--device  a GPU: those marked with a plus',
    '--save    bench/results/DEVICE-NAME-DATE.json; --json FOLDER: the same as FOLDER/NAME.json',
    '',
    ...Object.entries(benches).map(([name, { about, usual, anyDevice }]) => `${usual ? '*' : ' '}${anyDevice ? '+' : ' '} ${name.padEnd(width)}  ${about}`),
    '',
    '* the short set. The kernels without Node: bench/native/CMakeLists.txt.',
  ].join('\n');
}
