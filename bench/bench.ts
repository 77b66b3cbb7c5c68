import type { Device, MatmulPrecision } from '../src/device.ts';
import type { DType } from '../src/tensor.ts';
import type { PeakMeter } from './peak.ts';
import type { Peers } from './peers.ts';
import type { Row } from './table.ts';

/** What the command line asked for. */
export interface BenchOptions {
  /** All shapes and variants instead of a short set. */
  readonly all: boolean;
  /** One shape of a bench that has several, by its name. */
  readonly shape: string | null;
  /** Of W0. */
  readonly dtype: DType;
  /** Of `context.device`. */
  readonly precision: MatmulPrecision;
  /** Turns of each party; null: the bench's own choice. */
  readonly rounds: number | null;
  /** Seconds after which a bench of several shapes or pairs takes up no more of them; null: all. */
  readonly seconds: number | null;
  /** PyTorch as it is, or by torch.compile, which takes minutes (steps on a GPU). */
  readonly peersRun: 'eager' | 'compiled';
  /** Bytes of memory of a run that is kept short of it; null: the bench's own choice. */
  readonly limit: number | null;
}

/** What a bench may use. */
export interface BenchContext {
  readonly options: BenchOptions;
  readonly device: Device;
  /** Type of x, y and their gradients there. */
  readonly activations: DType;
  /** The same processor with matmulPrecision 'medium', for benches that show both; null where that would gain nothing, or is `device`. */
  readonly medium: Device | null;
  /** PyTorch + PEFT, with as many threads as the device and on a GPU if it is one; null: not asked for, or not there. */
  readonly peers: Peers | null;
  /** null: the program could not be built. */
  readonly peak: PeakMeter | null;
}

/** What a bench found: tables to print and to save, and a drawing or two. */
export interface BenchResult {
  readonly tables: Readonly<Record<string, readonly Row[]>>;
  /** Files that `--save` writes beside the record, by their ending (`svg`). */
  readonly drawings?: Readonly<Record<string, string>>;
}

/** One question that is answered by measuring. It checks a result before it times it. */
export interface Bench {
  /** One line for `--help`. */
  readonly about: string;
  /** Whether `npm run bench` without `--only` runs it: short ones only. */
  readonly usual: boolean;
  /** It runs on `context.device`, whatever that is; otherwise on a CPU only. */
  readonly anyDevice?: boolean;
  run(context: BenchContext): Promise<BenchResult>;
}
