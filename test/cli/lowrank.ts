import { spawn, type ChildProcess } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { distIsNew } from '../built.ts';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

/** How a run of the command line ended. */
export interface Outcome {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: string;
  /** Called with each piece of stdout, and a way to signal the process. */
  readonly onStdout?: (text: string, child: ChildProcess) => void;
}

// What was built starts in a third of the time that the source takes; npm test builds before.
const program = distIsNew() ? ['dist/cli/main.js'] : ['--import', 'tsx', 'src/cli/main.ts'];

/** Starts the command line as `lowrank …` is started from a package. */
export function startLowrank(args: readonly string[], env: Readonly<Record<string, string>> = {}): ChildProcess {
  return spawn(process.execPath, [...program, ...args], { cwd: root, env: { ...process.env, ...env }, stdio: 'pipe' });
}

/** Runs it to its end. */
export async function lowrank(args: readonly string[], { env = {}, stdin = '', onStdout }: RunOptions = {}): Promise<Outcome> {
  const child = startLowrank(args, env);
  let [stdout, stderr] = ['', ''];
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    onStdout?.(stdout, child);
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  child.stdin?.on('error', () => undefined).end(stdin);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => resolve({ status, signal, stdout, stderr }));
  });
}

/** The objects of a `--json` output. */
export function jsonLines<T>(text: string): T[] {
  return text.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as T);
}
