import { launch } from '../kernel.ts';
import { defineOp } from '../op.ts';
import { makesAgain } from '../remade.ts';
import { scope } from '../scope.ts';
import { activeTape } from '../tape.ts';
import type { Tensor } from '../tensor.ts';
import type { LinearOperands } from './linear.ts';
import { gradientsOf, type LoraOperands, partNumbers } from './lora_operands.ts';

/** A linear layer of a gated MLP, and what the active adapter adds to it; null: nothing. */
export interface AdaptedOperands extends LinearOperands {
  readonly lora: LoraOperands | null;
}

/** A layer as it was when the op ran: adapters come and go, and masks change from step to step. */
interface Layer extends AdaptedOperands {
  readonly numbers: readonly number[];
}

const layerOf = ({ weight, bias, lora }: AdaptedOperands): Layer => ({ weight, bias, lora, numbers: lora === null ? [] : partNumbers(lora) });
const trains = ({ lora }: Layer): boolean => lora !== null && lora.da !== null;
const emptyU = (x: Tensor, lora: LoraOperands): Tensor => x.device.empty([x.rows, lora.a.rows]);

/**
 * y = down(h) (+ carry), h = silu(gate) · up, gate | up = gateUp(x): {@link linear}, or {@link loraLinear} where a layer has an adapter, with
 * {@link swiglu} between, and the same numbers. As one op, so that a device can make h together with the low-rank product of `down`, and the
 * gradient of gate | up together with those of `gateUp`: each saves a pass over memory. x [T, K]; h [T, F]; y [T, N].
 *
 * Where gate | up is kept for the backward pass, h is made again rather than kept on devices where that costs next to nothing.
 */
export const gatedMlp = defineOp((x: Tensor, gateUp: AdaptedOperands, down: AdaptedOperands, carry: Tensor | null = null) => {
  const [first, second] = [layerOf(gateUp), layerOf(down)];
  const { joined, u: firstU } = makeJoined(x, first);
  const { y, h, u: secondU } = makeOutput(joined, second, carry);
  const passes = trains(first) || (activeTape()?.wants(x) ?? false); // a gradient, through h
  const remakes = passes && makesAgain(x.device.kind);
  return {
    out: y,
    inputs: [x, carry],
    saved: [...(passes ? [joined, ...(firstU === null ? [] : [x, firstU])] : []), ...(secondU === null ? [] : remakes ? [secondU] : [h, secondU])],
    trains: trains(first) || trains(second),
    rule: (dy, backward) => {
      const dh = passes ? dy.like([dy.rows, second.weight.in]) : null;
      scope(() => outputBack(second, { dh, dy, h: remakes && secondU !== null ? makeHidden(joined) : h, u: secondU }));
      if (dh === null) return [null, dy];
      const dx = backward.needs(0) ? dy.like([dy.rows, first.weight.in]) : null;
      joinedBack(first, { dx, dh, joined, x, u: firstU });
      return [dx, dy];
    },
  };
});

/** gate | up. */
function makeJoined(x: Tensor, { weight, bias, lora, numbers }: Layer): { joined: Tensor; u: Tensor | null } {
  const joined = x.like([x.rows, weight.rows]);
  const u = lora === null ? null : emptyU(x, lora);
  if (lora === null) launch('linear', joined, x, weight, bias, null);
  else launch('lora_linear', joined, u, x, weight, bias, null, lora.a, lora.b, ...numbers);
  return { joined, u };
}

function makeHidden(joined: Tensor): Tensor {
  const h = joined.like([joined.rows, joined.cols / 2]);
  launch('swiglu', h, joined);
  return h;
}

function makeOutput(joined: Tensor, { weight, bias, lora, numbers }: Layer, carry: Tensor | null): { y: Tensor; h: Tensor; u: Tensor | null } {
  const [y, h] = [joined.like([joined.rows, weight.rows]), joined.like([joined.rows, weight.in])];
  const u = lora === null ? null : emptyU(h, lora);
  if (lora === null) {
    launch('swiglu', h, joined);
    launch('linear', y, h, weight, bias, carry);
  } else {
    launch('swiglu_then_lora_linear', y, u, h, joined, weight, bias, carry, lora.a, lora.b, ...numbers);
  }
  return { y, h, u };
}

function outputBack(layer: Layer, { dh, dy, h, u }: { dh: Tensor | null; dy: Tensor; h: Tensor; u: Tensor | null }): void {
  const { weight, lora, numbers } = layer;
  if (dh === null && !trains(layer)) return;
  if (lora === null) launch('linear_grad', dh, dy, weight);
  else launch('lora_linear_grad', dh, ...gradientsOf(lora), dy, h, u, weight, lora.a, lora.b, ...numbers);
}

/** Nobody reads gate | up after this: its gradient takes its place. */
function joinedBack({ weight, lora, numbers }: Layer, { dx, dh, joined, x, u }: { dx: Tensor | null; dh: Tensor; joined: Tensor; x: Tensor; u: Tensor | null }): void {
  if (lora === null) {
    launch('swiglu_grad', joined, dh, joined);
    if (dx !== null) launch('linear_grad', dx, joined, weight);
  } else {
    launch('swiglu_grad_then_lora_linear_grad', dx, ...gradientsOf(lora), joined, dh, joined, x, u, weight, lora.a, lora.b, ...numbers);
  }
}
