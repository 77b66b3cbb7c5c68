import { LowrankError } from '../error.ts';
import { savePeftFolder } from '../io/peft.ts';
import type { Model } from '../models/model.ts';
import type { ParameterArena } from './arena.ts';
import type { ResolvedLoraConfig } from './config.ts';
import { layOut, type AdapterLayout, type LoraModule, type LoraSite } from './layout.ts';
import { enroll, expel } from './model-adapters.ts';
import { minimalTargets, type LayerLora } from './targets.ts';

/** What an adapter is made of. */
export interface AdapterParts {
  readonly name: string;
  readonly config: ResolvedLoraConfig;
  readonly selected: ReadonlyMap<string, LayerLora>;
  readonly trainable: boolean;
  readonly seed: number;
  /** What `save` writes down as the base. */
  readonly baseModel: string | null;
  /** Keys of a loaded config that lowrank has no use for. */
  readonly kept: Readonly<Record<string, unknown>>;
}

/**
 * A LoRA adapter of one model: two small matrices for each adapted layer, views of one arena. Made by `attachLora` and
 * `loadAdapter`; does its part in `model.hidden` while it is the active one.
 */
export class Adapter {
  readonly name: string;
  readonly model: Model;
  readonly config: ResolvedLoraConfig;
  readonly trainable: boolean;
  /** Dropout masks are drawn from this, the layer and `dropoutStep`. */
  readonly seed: number;
  /** The adapted layers, in the model's order. */
  readonly modules: readonly LoraModule[];
  /** @internal By Linear: what the active adapter sets there. */
  readonly sites: readonly LoraSite[];
  /** Dropout is only done in `'train'`; `trainStep` sets it for its own time. */
  mode: 'train' | 'eval' = 'eval';
  /** Differs between forward passes that must not share masks, 0 ≤ step < 2^32; `trainStep` counts it up after each micro-batch. */
  dropoutStep = 0;
  readonly #layout: AdapterLayout;
  readonly #baseModel: string | null;
  readonly #kept: Readonly<Record<string, unknown>>;
  #disposed = false;

  /** @internal Use `attachLora` or `loadAdapter`. A and B are zero. */
  constructor(model: Model, { name, config, selected, trainable, seed, baseModel, kept }: AdapterParts) {
    this.name = name;
    this.model = model;
    this.config = config;
    this.trainable = trainable;
    this.seed = seed;
    this.#baseModel = baseModel;
    this.#kept = kept;
    this.#layout = layOut(model.linears, selected, trainable, () => ({ p: this.mode === 'train' ? config.dropout : 0, seed, step: this.dropoutStep }));
    this.sites = this.#layout.sites;
    this.modules = this.sites.flatMap(({ modules }) => modules.filter((module) => module !== null));
    enroll(this);
  }
  get disposed(): boolean {
    return this.#disposed;
  }
  /** What an optimizer works on. @throws LowrankError ERR_DISPOSED */
  parameters(): ParameterArena {
    if (this.#disposed) throw new LowrankError('ERR_DISPOSED', `adapter ${this.name}: was used after dispose()`);
    return this.#layout.arena;
  }
  /**
   * Writes `adapter_model.safetensors`, `adapter_config.json` and, unless there is one, `README.md` as PEFT does. Each file appears
   * whole or not at all; what else is in the folder stays. The numbers are those of the moment of the call.
   *
   * @throws LowrankError ERR_FILE, ERR_DISPOSED
   * @example
   * ```ts
   * await adapter.save('./out'); // PeftModel.from_pretrained(base, './out')
   * ```
   */
  async save(folder: string): Promise<void> {
    const bytes = await this.parameters().parameters.bytes();
    const matrix = (begin: number, shape: readonly number[]) => ({ shape, data: new Uint8Array(bytes, 4 * begin, 4 * (shape[0] as number) * (shape[1] as number)) });
    const layers = this.modules.map(({ name, a, b, beginA, beginB }) => ({ name, A: matrix(beginA, a.shape), B: matrix(beginB, b.shape) }));
    const fanInFanOut = this.sites.some(({ linear }) => linear.order === 'in_out');
    const extra = { baseModelNameOrPath: this.#baseModel, fanInFanOut, ...this.#writtenTargets() };
    await savePeftFolder(folder, { config: this.config, kept: this.#kept, extra, layers });
  }
  // Other programs needn't know what `all-linear` and "the usual ones" stood for here.
  #writtenTargets(): { targets?: readonly string[] } {
    const { targets } = this.config;
    if (targets !== null && (typeof targets !== 'string' || targets.toLowerCase() !== 'all-linear')) return {};
    const names = this.model.linears.flatMap(({ parts }) => parts.map(({ name }) => name));
    return { targets: minimalTargets(names, new Set(this.modules.map(({ name }) => name))) };
  }
  /** Takes it off its model and gives its memory back. Twice is once. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    expel(this);
    this.#layout.dispose();
  }
  /** The end of a `using` block. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
