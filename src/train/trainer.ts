import { LowrankError } from '../error.ts';
import { eventQueue, type Reader } from './event-queue.ts';
import type { EndEvent, TrainEvent } from './run-events.ts';
import { runToEnd } from './run.ts';
import { planRun, type RunPlan, type TrainerOptions } from './trainer-options.ts';

/**
 * A whole training run: steps over a data set, a schedule, held-out loss, checkpoints, exact resume. It starts when it is
 * first awaited or iterated, and runs once.
 *
 * Every loop over it gets every event, however slowly it takes them; the run waits for nobody. A loop that is left early
 * (`break`, `throw`) stops the run as the signal does, unless somebody else is reading or awaits the result.
 *
 * When `signal` is aborted, the step that is under way is finished, a checkpoint is saved if there is an `out`, and the run
 * ends with reason `stopped`. A step whose loss or gradient is not finite changes nothing and is told as 'skip'; after
 * `patience` of them in a row the run fails with ERR_NONFINITE. A resumed run makes the very steps, bit for bit, that the
 * unbroken one would have made.
 *
 * @example
 * ```ts
 * const trainer = new Trainer({ model, adapter, optimizer, dataset, epochs: 3, out: 'out', saveEvery: 100, resume: true });
 * for await (const event of trainer) if (event.type === 'step') console.log(event.step, event.loss);
 * const { evalLoss, reason } = await trainer.result;
 * ```
 */
export class Trainer implements AsyncIterable<TrainEvent>, PromiseLike<EndEvent> {
  readonly #plan: RunPlan;
  readonly #events = eventQueue<TrainEvent>();
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  #run: Promise<EndEvent> | null = null;
  #awaited = false;
  #readers = 0;

  /** @throws LowrankError ERR_ARGUMENT with every option that is wrong */
  constructor(options: TrainerOptions) {
    this.#plan = planRun(options);
    this.#signal = options.signal === undefined ? this.#stop.signal : AbortSignal.any([options.signal, this.#stop.signal]);
  }
  /** Optimizer steps of the whole run, those already made included. */
  get steps(): number {
    return this.#plan.steps;
  }
  /** What the run came to: its last event. Starts the run. */
  get result(): Promise<EndEvent> {
    this.#awaited = true;
    return this.#start();
  }
  then<A = EndEvent, B = never>(onEnd?: ((end: EndEvent) => A | PromiseLike<A>) | null, onError?: ((error: unknown) => B | PromiseLike<B>) | null): Promise<A | B> {
    return this.result.then(onEnd, onError);
  }
  /** Every event of the run from its start, for `for await`. */
  [Symbol.asyncIterator](): AsyncIterator<TrainEvent, undefined> {
    const reader = this.#events.read();
    this.#readers += 1;
    void this.#start();
    return { next: () => reader.next(), return: () => this.#leave(reader) };
  }

  async #leave(reader: Reader<TrainEvent>): Promise<IteratorResult<TrainEvent, undefined>> {
    reader.leave();
    this.#readers -= 1;
    if (this.#readers === 0 && !this.#awaited) {
      this.#stop.abort();
      // Whoever leaves the loop finds the model at rest. An error of the run is told by `result`.
      await this.#run?.catch(() => undefined);
    }
    return { done: true, value: undefined };
  }

  #start(): Promise<EndEvent> {
    if (this.#run !== null) return this.#run;
    // One turn later, so that a loop and an await that begin together both see the whole run.
    this.#run = Promise.resolve().then(() => exclusive(this.#plan, () => runToEnd(this.#plan, (event) => this.#events.push(event), this.#signal)));
    this.#run.then(() => this.#events.close(), (error: unknown) => this.#events.close(error));
    return this.#run;
  }
}

const busy = new WeakSet<object>();

/** Two runs on one adapter would mix their steps. */
async function exclusive<T>({ adapter }: RunPlan, body: () => Promise<T>): Promise<T> {
  if (busy.has(adapter)) throw new LowrankError('ERR_ARGUMENT', `Trainer: adapter "${adapter.name}" must not be in training already (another Trainer is at it)`);
  busy.add(adapter);
  try {
    return await body();
  } finally {
    busy.delete(adapter);
  }
}
