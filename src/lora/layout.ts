import type { Linear } from '../nn/linear.ts';
import type { Dropout, LoraOperands } from '../ops/lora_linear.ts';
import { keep } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import { ParameterArena } from './arena.ts';
import type { LayerLora } from './targets.ts';

/** One adapted layer: the view of its two matrices, and where these lie in the arena. */
export interface LoraModule {
  /** Full name in the checkpoint: `model.layers.0.self_attn.q_proj`. */
  readonly name: string;
  readonly rank: number;
  /** What B·A is multiplied by. */
  readonly scale: number;
  readonly a: Tensor; // [r, K]
  readonly b: Tensor; // [N, r]
  readonly beginA: number;
  readonly beginB: number;
}

/** A Linear of which at least one part is adapted. */
export interface LoraSite {
  readonly linear: Linear;
  /** By part; null: this part has no adapter. */
  readonly modules: readonly (LoraModule | null)[];
  readonly operands: LoraOperands;
}

export interface AdapterLayout {
  readonly arena: ParameterArena;
  readonly sites: readonly LoraSite[];
  /** Disposes of the arena and of every view. */
  dispose(): void;
}

/** Probability, seed and step of the masks at this moment. */
export type DropoutSource = () => Omit<Dropout, 'layers'>;

interface Place {
  readonly lora: LayerLora;
  readonly name: string;
  readonly beginA: number;
  readonly beginB: number; // counted from the first B
  readonly index: number; // among all modules: the number that its mask is drawn from
}

interface Plan {
  readonly linear: Linear;
  readonly places: readonly (Place | null)[];
}

/**
 * Lays an adapter's numbers out: first the A's of all Linears in order, the parts of one below each other as [R, K], then their
 * B's, flat, so that what each Linear's op takes is one view.
 *
 * @param selected the adapted layers by name; the others of `linears` are passed by.
 */
export function layOut(linears: readonly Linear[], selected: ReadonlyMap<string, LayerLora>, trainable: boolean, dropout: DropoutSource): AdapterLayout {
  const { plans, countA, countB } = plan(linears, selected);
  const first = linears[0] as Linear;
  const arena = new ParameterArena(first.device, { countA, countB, trainable });
  const views: Tensor[] = [];
  const view: View = (tensor, shape, begin) => {
    views.push(keep(tensor.view(shape, begin)));
    return views[views.length - 1] as Tensor;
  };
  const sites = plans.map((each) => siteOf(each, arena, view, dropout));
  const dispose = (): void => {
    for (const each of views) each.dispose();
    arena.dispose();
  };
  return { arena, sites, dispose };
}

function plan(linears: readonly Linear[], selected: ReadonlyMap<string, LayerLora>): { plans: Plan[]; countA: number; countB: number } {
  let [countA, countB, index] = [0, 0, 0];
  const plans: Plan[] = [];
  for (const linear of linears) {
    const places = linear.parts.map(({ name }, part): Place | null => {
      const lora = selected.get(name);
      if (lora === undefined) return null;
      const place = { lora, name, beginA: countA, beginB: countB, index: index++ };
      countA += lora.rank * linear.inFeatures;
      countB += lora.rank * (linear.outFeatures[part] as number);
      return place;
    });
    if (places.some((place) => place !== null)) plans.push({ linear, places });
  }
  return { plans, countA, countB };
}

type View = (tensor: Tensor, shape: readonly number[], begin: number) => Tensor;

function siteOf({ linear, places }: Plan, arena: ParameterArena, view: View, dropout: DropoutSource): LoraSite {
  const K = linear.inFeatures;
  const startOfB = (arena.groups[1] as { begin: number }).begin;
  const ranks = places.map((place) => place?.lora.rank ?? 0);
  const R = ranks.reduce((sum, rank) => sum + rank, 0);
  const sizeB = ranks.reduce((sum, rank, i) => sum + rank * (linear.outFeatures[i] as number), 0);
  const { beginA, beginB } = places.find((place) => place !== null) as Place;
  const a = (tensor: Tensor): Tensor => view(tensor, [R, K], beginA);
  const b = (tensor: Tensor): Tensor => view(tensor, [sizeB], startOfB + beginB);
  const layers = places.map((place) => place?.index ?? 0);
  const operands: LoraOperands = {
    a: a(arena.parameters),
    b: b(arena.parameters),
    da: arena.trainable ? a(arena.gradients) : null,
    db: arena.trainable ? b(arena.gradients) : null,
    ranks,
    scales: places.map((place) => place?.lora.scale ?? 0),
    get dropout() {
      return { ...dropout(), layers };
    },
  };
  const modules = places.map((place, part) => place && moduleOf(place, [linear.outFeatures[part] as number, K], startOfB, (shape, begin) => view(arena.parameters, shape, begin)));
  return { linear, modules, operands };
}

function moduleOf({ lora, name, beginA, beginB }: Place, [N, K]: readonly [number, number], startOfB: number, view: (shape: readonly number[], begin: number) => Tensor): LoraModule {
  const { rank, scale } = lora;
  return { name, rank, scale, a: view([rank, K], beginA), b: view([N, rank], startOfB + beginB), beginA, beginB: startOfB + beginB };
}
