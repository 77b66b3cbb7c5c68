/** Before the first step: what is going to happen. */
export interface StartEvent {
  readonly type: 'start';
  /** Steps already made; 0 unless resumed. */
  readonly step: number;
  /** Steps of the whole run. */
  readonly steps: number;
  /** The checkpoint it goes on from. */
  readonly resumedFrom: string | null;
  /** Sentences worth showing: nothing to resume from, another processor than before. */
  readonly notes: readonly string[];
}

/** One optimizer step. */
export interface StepEvent {
  readonly type: 'step';
  /** 1-based. */
  readonly step: number;
  /** Mean over the step's trained tokens, in nats, before the update; not finite when the step was skipped for that. */
  readonly loss: number;
  /** Trained tokens of the whole window: targets that are not ignored. */
  readonly tokens: number;
  /** Norm of the whole gradient before clipping. */
  readonly gradNorm: number;
  readonly lr: number;
  /** Tokens read in a second of the step, trained or not. */
  readonly tokensPerSecond: number;
  /** Epochs done, with a fraction. */
  readonly epoch: number;
  /** True when the step changed nothing: loss or gradient was not finite, or there was nothing to learn in its rows. */
  readonly skipped: boolean;
  /** Bytes: the process's resident memory, or on a GPU what is taken of the device's. */
  readonly memory: number;
}

/** A step that changed nothing; it comes right after its 'step'. */
export interface SkipEvent {
  readonly type: 'skip';
  readonly step: number;
  /** `overflow`: a gradient left f16's range; its scale is halved, and patience is not asked. */
  readonly reason: 'nonfinite' | 'empty' | 'overflow';
  /** Non-finite ones in a row, and in all those that were skipped for a number. */
  readonly inARow: number;
  readonly total: number;
}

/** Held-out loss; step 0 is before training. */
export interface EvalEvent {
  readonly type: 'eval';
  readonly step: number;
  readonly loss: number;
  readonly perplexity: number;
  readonly tokens: number;
}

/** A checkpoint is on the disk, whole. */
export interface SaveEvent {
  readonly type: 'save';
  readonly step: number;
  readonly folder: string;
}

/** The run is over, and nothing of it goes on. */
export interface EndEvent {
  readonly type: 'end';
  /** Steps made, those of earlier parts of a resumed run included. */
  readonly step: number;
  readonly steps: number;
  /** `complete`: all steps are made. `stopped`: the signal or a left loop ended it early. `already-complete`: nothing was left to do. */
  readonly reason: 'complete' | 'stopped' | 'already-complete';
  /** Loss of the last step made here; null without one. */
  readonly loss: number | null;
  /** The last held-out loss. */
  readonly evalLoss: number | null;
  /** Steps that changed nothing because they were not finite. */
  readonly skipped: number;
  /** Tokens trained on, of the whole run. */
  readonly tokens: number;
  /** Of this part of the run. */
  readonly seconds: number;
  readonly checkpoint: string | null;
}

/** What a {@link Trainer} tells; plain objects that JSON can hold (but for a loss that isn't finite). */
export type TrainEvent = StartEvent | StepEvent | SkipEvent | EvalEvent | SaveEvent | EndEvent;
