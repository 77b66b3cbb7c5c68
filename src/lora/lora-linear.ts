import type { Device, WeightOrder } from '../device.ts';
import { LowrankError } from '../error.ts';
import { Linear } from '../nn/linear.ts';
import { loraMerge } from '../ops/lora_merge.ts';
import { keep } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import type { ParameterArena } from './arena.ts';
import { checkSeed } from './attach.ts';
import { normalizeLoraConfig, type LoraConfig } from './config.ts';
import { drawA } from './init.ts';
import { layOut, type AdapterLayout, type LoraModule, type LoraSite } from './layout.ts';

/** One LoRA layer over a frozen matrix. */
export interface LoraLinearOptions extends Pick<LoraConfig, 'rank' | 'alpha' | 'dropout' | 'useRslora' | 'init'> {
  /** Of the first A and of dropout; 0. */
  readonly seed?: number;
  /** What A's first numbers are drawn by, beside the seed: layers of one script should differ in it; `'weight'`. */
  readonly name?: string;
  /** [out] f32, added to y; stays the caller's. */
  readonly bias?: Tensor | null;
  /** `in_out` where W0 is stored [in, out]; `out_in`. */
  readonly order?: WeightOrder;
  /** Where a W0 given as Float32Array goes, and how wide its rows are. */
  readonly device?: Device;
  readonly inFeatures?: number;
}

/**
 * One linear layer with an adapter over the caller's own frozen W0, for scripts without a model:
 * y = x W0ᵀ + bias + scale·(x̂ Aᵀ) Bᵀ.
 *
 * @example
 * ```ts
 * import { AdamW, LoraLinear, openDevice, ops, scope, Tape } from 'lowrank';
 * await using device = await openDevice('cpu');
 * using layer = new LoraLinear(new Float32Array(6 * 4).fill(0.1), { device, inFeatures: 4, rank: 2, alpha: 4 });
 * using optimizer = new AdamW(layer.parameters(), { lr: 0.05 });
 * using x = device.tensor(Float32Array.from({ length: 12 }, (_, i) => Math.sin(i)), [3, 4]);
 * using targets = device.tensor(Int32Array.of(0, 5, 2));
 * using loss = device.empty([1]);
 * layer.mode = 'train';
 * for (let step = 0; step < 50; step++) {
 *   layer.parameters().zeroGradients();
 *   scope(() => {
 *     using tape = new Tape();
 *     tape.record(() => ops.crossEntropyInplace(layer.forward(x), { targets, loss, scale: 1 / 3 }));
 *     tape.backward(loss, device.empty([1]));
 *   });
 *   optimizer.step({ losses: loss, clip: 1 });
 * }
 * console.log((await loss.data())[0]! / 3); // below 0.1; it began at log(6)
 * ```
 */
export class LoraLinear {
  /** Dropout is only done in `'train'`. */
  mode: 'train' | 'eval' = 'eval';
  /** Differs between forward passes that must not share masks. */
  dropoutStep = 0;
  readonly #linear: Linear;
  readonly #layout: AdapterLayout;
  readonly #ownMatrix: Tensor | null;

  /**
   * @param w0 [out, in], f32 or 16 bits; a tensor stays the caller's.
   * @throws LowrankError ERR_ARGUMENT, ERR_SHAPE, ERR_DTYPE, ERR_MEMORY
   */
  constructor(w0: Tensor | Float32Array, options: LoraLinearOptions = {}) {
    const { seed = 0, name = 'weight', bias = null, order = 'out_in', device, inFeatures, ...settings } = options;
    const { rank, alpha, dropout, useRslora, init } = normalizeLoraConfig(settings);
    checkSeed(seed);
    this.#ownMatrix = w0 instanceof Float32Array ? keep(uploaded(w0, options)) : null;
    const matrix = this.#ownMatrix ?? (w0 as Tensor);
    this.#linear = new Linear([{ name, matrix }], bias, order);
    const scale = alpha / (useRslora ? Math.sqrt(rank) : rank);
    const masks = () => ({ p: this.mode === 'train' ? dropout : 0, seed, step: this.dropoutStep });
    this.#layout = layOut([this.#linear], new Map([[name, { rank, alpha, scale }]]), true, masks);
    this.#linear.lora = this.#site.operands;
    this.a.upload(drawA({ kind: init, seed, name, shape: [rank, this.#linear.inFeatures] }));
  }
  get #site(): LoraSite {
    return this.#layout.sites[0] as LoraSite;
  }
  get #module(): LoraModule {
    return this.#site.modules[0] as LoraModule;
  }
  /** [rank, in], a view of the parameters. */
  get a(): Tensor {
    return this.#module.a;
  }
  /** [out, rank], a view of the parameters; zero at first. */
  get b(): Tensor {
    return this.#module.b;
  }
  /** What B·A is multiplied by. */
  get scale(): number {
    return this.#module.scale;
  }
  /** x [T, in] to [T, out]; `carry` [T, out] is added in the same pass. Records on the active tape. */
  forward(x: Tensor, carry: Tensor | null = null): Tensor {
    return this.#linear.forward(x, carry);
  }
  /** What an optimizer works on. */
  parameters(): ParameterArena {
    return this.#layout.arena;
  }
  /** W0 + scale·B·A as a new tensor of W0's dtype, rounded once; the caller's. */
  merge(): Tensor {
    return loraMerge(this.#linear.parts[0]?.matrix as Tensor, this.a, this.b, this.scale, this.#linear.order);
  }
  /** Releases its memory, behind the work that is queued; more than once does no harm. */
  dispose(): void {
    this.#layout.dispose();
    this.#linear.weight.dispose();
    this.#ownMatrix?.dispose();
  }
  /** The end of a `using` block. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

function uploaded(w0: Float32Array, { device, inFeatures = 0, order = 'out_in' }: LoraLinearOptions): Tensor {
  if (device === undefined || !(Number.isSafeInteger(inFeatures) && inFeatures > 0) || w0.length === 0 || w0.length % inFeatures !== 0) {
    const found = `${w0.length} numbers, inFeatures ${inFeatures}, ${device === undefined ? 'no device' : device.kind}`;
    throw new LowrankError('ERR_ARGUMENT', `LoraLinear: a Float32Array needs \`device\` and \`inFeatures\`, which divides its length (${found})`);
  }
  const out = w0.length / inFeatures;
  return device.tensor(w0, order === 'out_in' ? [out, inFeatures] : [inFeatures, out]);
}
