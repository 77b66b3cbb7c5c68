// usage: node --import tsx test/run/kill-many.ts [KILLS]. Kills a run with --save-every 1 at that many random moments; after each
// kill the newest checkpoint must be whole and the run must go on from it. In the end all losses must be the unbroken run's.
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { loadAdapter, loadModel, openDevice } from '../../src/index.ts';
import { findCheckpoints } from '../../src/train/checkpoint.ts';
import { lowrank } from '../cli/lowrank.ts';
import { goldenPath } from '../golden/read.ts';
import { recordedSteps, runAndKill, type Line } from './killed-run.ts';

const kills = Number(process.argv[2] ?? 50);
const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-kills-'));
const model = goldenPath('families', 'llama_tied');
const rows = path.join(folder, 'rows.jsonl');
writeFileSync(rows, Array.from({ length: 40 }, (_, s) => `${JSON.stringify({ input_ids: Array.from({ length: 6 + (s % 7) }, (_, t) => 3 + ((5 * s + 3 * t) % 90)) })}\n`).join(''));
const command = (out: string): string[] => [
  'train', '--model', model, '--data', rows, '--out', path.join(folder, out), '--rank', '4', '--dropout', '0.1', '--accumulate', '2', '--batch-size', '2', '--steps', '2000',
  '--lr', '0.01', '--lora-plus', '2', '--schedule', 'cosine', '--save-every', '1', '--seed', '9', '--json', '--resume',
];

const out = path.join(folder, 'killed');
const leftovers = new Map<string, number>();
let [last, inFirst, behind] = [0, 0, 0];
for (let kill = 0; kill < kills; kill++) {
  // A fifth of the kills falls into loading and the first steps.
  const early = kill % 5 === 4;
  const status = await runAndKill(command('killed'), Math.random() * (early ? 1500 : 600), early ? 'start' : 'first step');
  if (status !== null) throw new Error(`the run ended by itself with status ${status}`);
  for (const name of existsSync(out) ? readdirSync(out) : []) {
    const kind = /^\.checkpoint-\d+\.(\w+)-/.exec(name)?.[1];
    if (kind !== undefined) leftovers.set(kind, (leftovers.get(kind) ?? 0) + 1);
  }
  const newest = (await findCheckpoints(out))[0];
  if ((newest?.step ?? 0) < last) throw new Error(`kill ${kill}: the newest checkpoint went back from ${last} to ${newest?.step}`);
  if (newest !== undefined) {
    await using device = await openDevice('cpu');
    const base = await loadModel(model, { device });
    await loadAdapter(base, newest.folder);
  }
  if (early) inFirst += 1;
  if ((newest?.step ?? 0) > last) behind += 1;
  last = newest?.step ?? 0;
}
console.log(`${kills} kills (${inFirst} while starting), ${behind} with progress, at step ${last}; what they left: ${JSON.stringify(Object.fromEntries(leftovers))}; every newest checkpoint was whole`);
// The run is far longer than anybody waits for; both sides are stopped properly, twenty steps behind the last kill.
const stopAfter = async (name: string, lines: number): Promise<void> =>
  void (await lowrank(command(name), { onStdout: (text, child) => text.split('\n').length > lines && child.kill('SIGINT') }));
await stopAfter('whole', last + 20);
await stopAfter('killed', 20);
const [whole, killed] = ['whole', 'killed'].map((name) => recordedSteps(path.join(folder, name))) as [Line[], Line[]];
const same = Math.min(whole.length, killed.length);
if (same < last + 10) throw new Error(`only ${same} steps can be compared`);
if (JSON.stringify(whole.slice(0, same)) !== JSON.stringify(killed.slice(0, same))) throw new Error('losses differ from those of the unbroken run');
console.log(`${same} steps compared: every loss, gradient norm and rate is that of the unbroken run, bit for bit`);
rmSync(folder, { recursive: true });
