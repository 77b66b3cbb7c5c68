/** How a run may be stopped from outside: the first Ctrl-C ends it after its step, the second ends the process at once. */
export interface StopSignals {
  readonly signal: AbortSignal;
  /** The exit status that tells the caller what stopped it: 130 for SIGINT, 143 for SIGTERM; null if nothing did. */
  status(): number | null;
  dispose(): void;
}

const statusOf: Readonly<Record<string, number>> = { SIGINT: 130, SIGTERM: 143 };

/** @param onFirst called with the first signal, to tell the user what happens now. */
export function listenForStop(onFirst: () => void): StopSignals {
  const controller = new AbortController();
  let status: number | null = null;
  const onSignal = (name: NodeJS.Signals): void => {
    if (status !== null) process.exit(statusOf[name] ?? 1);
    status = statusOf[name] ?? 1;
    onFirst();
    controller.abort();
  };
  const names = Object.keys(statusOf) as NodeJS.Signals[];
  for (const name of names) process.on(name, onSignal);
  return {
    signal: controller.signal,
    status: () => status,
    dispose: () => names.forEach((name) => void process.off(name, onSignal)),
  };
}
