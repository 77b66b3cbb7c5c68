import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Party } from '../src/cli/turns.ts';
import { startLineWorker, type LineWorker, type WorkerCommand } from '../src/cli/line-worker.ts';

/** A Python that has torch, transformers and peft. */
export interface Peers {
  readonly python: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly threads: number;
  /** Whether they compute on the GPU. */
  readonly gpu: boolean;
}

/** Works of bench/peers/NAME.py, set up and ready to be timed. */
export interface PeerWorks {
  /** What the setup has to say, such as results to check. */
  readonly facts: Readonly<Record<string, unknown>>;
  /** One of the works that the setup made, by name. */
  party(work: string): Party;
}

/** A Python that stays, so that its start is in no figure. */
export interface PeerWorker {
  /** Replaces what was set up before. */
  setUp(bench: string, args: Readonly<Record<string, unknown>>): Promise<PeerWorks>;
  stop(): Promise<void>;
}

const here = path.dirname(fileURLToPath(import.meta.url));

/** What PEFT runs best with: malloc told to keep memory, which makes small models' steps up to 1.25 times faster. */
const keepMemory = { MALLOC_TRIM_THRESHOLD_: '8000000000', MALLOC_MMAP_THRESHOLD_: '8000000000' };

/** `python`, LOWRANK_PEERS_PYTHON or .peers/bin/python; null, said aloud, where it lacks the packages. */
export function findPeers(python: string | undefined, { threads, gpu }: { readonly threads: number; readonly gpu: boolean }, say: (line: string) => void = console.log): Peers | null {
  const chosen = python ?? process.env['LOWRANK_PEERS_PYTHON'] ?? path.join(here, '../.peers/bin/python');
  // Of what pip wrote down: importing them takes ten seconds where no file of theirs has been read yet.
  const ask = 'import importlib.metadata as m, json; print(json.dumps({name: m.version(name) for name in ("torch", "transformers", "peft")}))';
  const found = existsSync(chosen) ? spawnSync(chosen, ['-c', ask], { encoding: 'utf8' }) : null;
  if (found?.status === 0) return { python: chosen, versions: JSON.parse(found.stdout) as Record<string, string>, threads, gpu };
  const why = found === null ? `${chosen} does not exist` : (found.error?.message ?? found.stderr.trim().split('\n').at(-1));
  say(`peers: no Python with torch, transformers and peft (${why}; --python, LOWRANK_PEERS_PYTHON or .peers/): timing lowrank alone`);
  return null;
}

/** How to run a script of bench/peers. */
export function peerCommand({ python, threads }: Peers, script: string, args: readonly (string | number)[]): WorkerCommand {
  return { file: python, args: [path.join(here, 'peers', script), String(threads), ...args.map(String)], env: keepMemory };
}

/** Its imports begin at once: whoever starts it first of all has its own side set up meanwhile. */
export function startPeerWorker(peers: Peers): PeerWorker {
  const worker: LineWorker = startLineWorker(peerCommand(peers, 'worker.py', []));
  return {
    async setUp(bench, args) {
      const facts = (await worker.ask(JSON.stringify({ do: 'setup', bench, args }))) as Record<string, unknown>;
      const sample = async (work: string, repeats: number): Promise<number> => ((await worker.ask(JSON.stringify({ do: 'time', work, repeats }))) as { ms: number }).ms;
      return { facts, party: (work) => ({ sample: (repeats) => sample(work, repeats) }) };
    },
    stop: () => worker.stop(),
  };
}
