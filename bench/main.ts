// npm run bench -- [--only NAME] [--all] [--peers [PYTHON]] [--save]
// Without arguments a short set; --peers also runs PyTorch + PEFT on the same work; --save writes bench/results/<date>-<name>.json.
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { openDevice } from '../src/device.ts';
import { benchLoraLinear } from './lora-linear.ts';
import { measurePeaks } from './machine.ts';
import { benchRmsNorm } from './rms-norm.ts';
import { benchStep, findPython } from './step.ts';

const { values: options } = parseArgs({
  options: { only: { type: 'string' }, all: { type: 'boolean', default: false }, peers: { type: 'boolean', default: false }, python: { type: 'string' }, shape: { type: 'string' }, save: { type: 'boolean', default: false } },
});

const python = options.peers ? findPython(options.python ?? process.env['LOWRANK_PEERS_PYTHON']) : null;
if (options.peers && python === null) console.log('peers: no Python with torch, transformers and peft (--python, LOWRANK_PEERS_PYTHON or .peers/): timing lowrank alone');

await using device = await openDevice('cpu');
console.log(`${device.info.name}, kernels ${device.info.kernels}, ${device.info.threads} threads`);

const benches: Readonly<Record<string, () => Promise<unknown>>> = {
  'rms-norm': async () => benchRmsNorm(device, await measurePeaks(device)),
  'lora-linear': () => benchLoraLinear(device, options.all ? 'all' : 'short'),
  step: () => benchStep({ shape: options.shape ?? (options.all ? 'smollm' : 'tiny'), python, rounds: options.all ? 3 : 1, steps: 4 }),
};

if (options.only !== undefined && benches[options.only] === undefined) throw new Error(`bench: --only must be one of ${Object.keys(benches).join(', ')} (found ${options.only})`);

for (const [name, run] of Object.entries(benches)) {
  if (options.only !== undefined && options.only !== name) continue;
  console.log(`\n${name}`);
  const result = await run();
  if (options.save) save(name, result);
}

function save(name: string, result: unknown): void {
  const folder = fileURLToPath(new URL('results', import.meta.url));
  const date = new Date().toISOString().slice(0, 10);
  const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8', cwd: folder.replace(/results$/, '') }).trim();
  mkdirSync(folder, { recursive: true });
  const record = { bench: name, date, commit, command: `npm run bench -- ${process.argv.slice(2).filter((argument) => !argument.includes('/')).join(' ')}`, machine: device.info, result };
  writeFileSync(path.join(folder, `cpu-${name}-${date}.json`), `${JSON.stringify(record, null, 2)}\n`);
}
