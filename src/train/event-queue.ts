/** One reader's view of a stream of events. */
export interface Reader<T> {
  /** The next event; `done` when there will be none. Rejects once, with the writer's error, after all events were read. */
  next(): Promise<IteratorResult<T, undefined>>;
  /** Forgets what is unread and takes no more. */
  leave(): void;
}

/** Events for any number of readers, each at its own pace: a slow one loses nothing and holds nobody up. */
export interface EventQueue<T> {
  push(event: T): void;
  /** No more events; with an error, readers get it when they reach the end. */
  close(error?: unknown): void;
  /** A reader of all events from now on. */
  read(): Reader<T>;
}

interface State<T> {
  pending: T[];
  waiting: (() => void)[];
  left: boolean;
}

/** Events are kept per reader until it takes them; without readers they are not kept at all. */
export function eventQueue<T>(): EventQueue<T> {
  const readers = new Set<State<T>>();
  let end: { error: unknown } | { error?: never } | null = null;
  const wake = (state: State<T>): void => state.waiting.splice(0).forEach((resolve) => resolve());

  async function next(state: State<T>): Promise<IteratorResult<T, undefined>> {
    for (;;) {
      if (state.left) return { done: true, value: undefined };
      const event = state.pending.shift();
      if (event !== undefined) return { done: false, value: event };
      if (end !== null) {
        state.left = true;
        if ('error' in end) throw end.error;
        return { done: true, value: undefined };
      }
      await new Promise<void>((resolve) => state.waiting.push(resolve));
    }
  }

  return {
    push(event) {
      for (const state of readers) {
        state.pending.push(event);
        wake(state);
      }
    },
    close(...error) {
      end ??= error.length === 0 ? {} : { error: error[0] };
      readers.forEach(wake);
    },
    read() {
      const state: State<T> = { pending: [], waiting: [], left: false };
      readers.add(state);
      return {
        next: () => next(state),
        leave() {
          state.left = true;
          state.pending = [];
          readers.delete(state);
          wake(state);
        },
      };
    },
  };
}
