import type { TrainEvent, StepEvent } from '../train/run-events.ts';
import { bytes, count, digits, duration } from './format.ts';

/** Shows how a run goes. */
export interface Progress {
  show(event: TrainEvent): void;
}

/** The part of a stream that is written to. */
export interface Screen {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

/** One line that is written over on a terminal, plain lines elsewhere: every step of a short run, about 200 of a long one. */
export function progressOn(screen: Screen, steps: number): Progress {
  const live = screen.isTTY === true;
  const every = Math.max(1, Math.ceil(steps / 200));
  const times: number[] = [];
  let drawn = false;
  const line = (text: string): void => {
    screen.write(`${drawn ? '\r\x1b[2K' : ''}${text}\n`);
    drawn = false;
  };
  return {
    show(event) {
      if (event.type === 'step') {
        times.push(performance.now());
        if (times.length > 50) times.shift();
        const text = stepText(event, steps, secondsLeft(times, steps - event.step));
        if (live) {
          screen.write(`\r\x1b[2K${text.slice(0, (screen.columns ?? 80) - 1)}`);
          drawn = true;
        } else if (event.step % every === 0 || event.step === 1 || event.step === steps) line(text);
      } else {
        for (const text of told(event)) line(text);
      }
    },
  };
}

/** By the mean of the last steps. */
function secondsLeft(times: readonly number[], steps: number): number {
  const first = times[0];
  const last = times.at(-1);
  if (first === undefined || last === undefined || times.length < 2) return NaN;
  return ((last - first) / (times.length - 1) / 1000) * steps;
}

function stepText({ step, loss, lr, gradNorm, tokensPerSecond, memory, skipped }: StepEvent, steps: number, left: number): string {
  const numbers = `loss ${digits(loss)}  ${count(tokensPerSecond)} tok/s  left ${duration(left)}  mem ${bytes(memory)}  norm ${digits(gradNorm)}  lr ${digits(lr)}`;
  return `step ${String(step).padStart(String(steps).length)}/${steps}  ${numbers}${skipped ? '  (skipped)' : ''}`;
}

function told(event: TrainEvent): string[] {
  if (event.type === 'start') {
    const resumed = event.resumedFrom === null ? [] : [`resuming from ${event.resumedFrom}, step ${event.step} of ${event.steps}`];
    return [...event.notes, ...resumed];
  }
  if (event.type === 'eval') return [`held-out loss ${digits(event.loss)}  perplexity ${digits(event.perplexity)}  (step ${event.step}, ${count(event.tokens)} tokens)`];
  if (event.type === 'save') return [`saved ${event.folder}`];
  if (event.type === 'skip') {
    const why = event.reason === 'empty' ? 'its rows have no token to learn' : event.reason === 'overflow' ? "the gradient left f16's range, the loss is scaled by half as much from here" : `loss or gradient was not finite (${event.inARow} in a row, ${event.total} in all)`;
    return [`step ${event.step} changed nothing: ${why}`];
  }
  return [];
}
