import { parseArgs } from 'node:util';
import { type MatmulPrecision, matmulPrecisions } from '../src/device.ts';
import type { DType } from '../src/tensor.ts';
import type { Bench, BenchOptions } from './bench.ts';

export interface CommandLine extends BenchOptions {
  readonly help: boolean;
  readonly save: boolean;
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
      python: { type: 'string' },
      shape: { type: 'string' },
      dtype: { type: 'string', default: 'bf16' },
      precision: { type: 'string', default: 'highest' satisfies MatmulPrecision },
      rounds: { type: 'string' },
      limit: { type: 'string' },
      save: { type: 'boolean', default: false },
    },
  });
  const { help, save, peers, python, all } = values;
  const precision = matmulPrecisions.find((each) => each === values.precision);
  if (precision === undefined) throw new Error(`bench: --precision must be one of ${matmulPrecisions.join(', ')} (found ${values.precision})`);
  const [dtype, rounds] = [dtypes.find((each) => each === values.dtype), values.rounds === undefined ? null : Number(values.rounds)];
  if (dtype === undefined) throw new Error(`bench: --dtype must be one of ${dtypes.join(', ')} (found ${values.dtype})`);
  if (rounds !== null && !(Number.isInteger(rounds) && rounds >= 1)) throw new Error(`bench: --rounds must be a whole number of at least 1 (found ${values.rounds})`);
  const limit = values.limit === undefined ? null : Number(values.limit);
  if (limit !== null && !(Number.isInteger(limit) && limit > 0)) throw new Error(`bench: --limit must be a number of bytes (found ${values.limit})`);
  return { help, save, peers, python, all, dtype, precision, rounds, limit, shape: values.shape ?? null, names: chosenNames(values.only, all, benches) };
}

function chosenNames(only: string | undefined, all: boolean, benches: Readonly<Record<string, Bench>>): readonly string[] {
  const names = Object.keys(benches);
  if (only === undefined) return names.filter((name) => all || benches[name]?.usual);
  for (const name of only.split(',')) if (!names.includes(name)) throw new Error(`bench: --only must name some of ${names.join(', ')} (found ${name})`);
  return only.split(',');
}

export function helpText(benches: Readonly<Record<string, Bench>>): string {
  const width = Math.max(...Object.keys(benches).map((name) => name.length));
  return [
    'npm run bench -- [--only NAME,NAME] [--all] [--peers [--python FILE]] [--shape NAME] [--dtype bf16|f16|f32]',
    '             [--precision highest|medium] [--rounds N] [--limit BYTES] [--save]',
    '',
    '--all     every bench and shape instead of a short set',
    '--peers   PyTorch + PEFT on the same work in turns (a Python with torch, transformers, peft: --python, LOWRANK_PEERS_PYTHON, .peers/)',
    '--shape   one of a bench that has several; --dtype of W0 (lora-linear, scaling)',
    '--precision medium: products of frozen weights in bf16 where that is faster (lora-linear and step show both without it)',
    '--rounds  turns of each side; steps of large',
    '--limit   memory of the second run of large; half of what its weights take without it',
    '--save    bench/results/cpu-NAME-DATE.json',
    '',
    ...Object.entries(benches).map(([name, { about, usual }]) => `${usual ? '*' : ' '} ${name.padEnd(width)}  ${about}`),
    '',
    '* the short set. The kernels without Node: bench/native/CMakeLists.txt.',
  ].join('\n');
}
