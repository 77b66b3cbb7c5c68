import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** A process that answers each line with one line of JSON: no start-up in what is timed, and two of them can take turns. */
export interface LineWorker {
  /** Sends one line, resolves with the answer. One question at a time. @throws Error with what the process wrote on stderr, if it ended */
  ask(line: string): Promise<unknown>;
  stop(): Promise<void>;
}

export interface WorkerCommand {
  readonly file: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts a process that speaks in lines. An answer with a key `error` rejects. */
export function startLineWorker({ file, args, env }: WorkerCommand): LineWorker {
  const child = spawn(file, [...args], { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  let complaint = '';
  child.stderr.on('data', (text: Buffer) => (complaint = (complaint + text.toString()).slice(-2000)));
  let waiting: { resolve(answer: unknown): void; reject(error: Error): void } | null = null;
  const settle = (settler: (asked: NonNullable<typeof waiting>) => void): void => {
    const asked = waiting;
    waiting = null;
    if (asked !== null) settler(asked);
  };
  const ended = new Promise<void>((resolve) => {
    child.on('error', (error) => (complaint += error.message, resolve()));
    child.on('close', () => resolve());
  });
  void ended.then(() => settle(({ reject }) => reject(new Error(`${file}: must answer (it ended: ${complaint.trim()})`))));
  child.stdin.on('error', () => {}); // a process that ended says so above
  createInterface({ input: child.stdout }).on('line', (line) => {
    const answer = JSON.parse(line) as { error?: string };
    settle(({ resolve, reject }) => (answer.error === undefined ? resolve(answer) : reject(new Error(`${file}: ${answer.error}`))));
  });
  return {
    ask: (line) =>
      new Promise((resolve, reject) => {
        if (child.exitCode !== null) return reject(new Error(`${file}: must run (it ended: ${complaint.trim()})`));
        waiting = { resolve, reject };
        child.stdin.write(`${line}\n`);
      }),
    stop: async () => {
      child.stdin.end();
      await ended;
    },
  };
}
