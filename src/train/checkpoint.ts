import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import type { BatchState } from '../data/order.ts';
import type { Device } from '../device.ts';
import { LowrankError, throwFaults } from '../error.ts';
import { recoverFolder, replaceFolder, writeFileAtomic } from '../io/atomic.ts';
import { adapterKey } from '../io/peft-keys.ts';
import { readSafetensorsHeader, type SafetensorsFile } from '../io/safetensors.ts';
import { safetensorsLayout } from '../io/safetensors-write.ts';
import type { Adapter } from '../lora/adapter.ts';
import type { LossScale } from '../optim/loss-scale.ts';
import type { Optimizer } from '../optim/optimizer.ts';
import type { Tensor } from '../tensor.ts';
import { readTensorBytes } from './tensor-bytes.ts';
import { settingDifferences, type RunSettings } from './settings.ts';

// checkpoint-N/   adapter_config.json, adapter_model.safetensors   the adapter: a PEFT folder by itself
//                 optimizer.safetensors                            the optimizer's moments
//                 state.json                                       all else that the next step depends on
const optimizerFile = 'optimizer.safetensors';
const stateFile = 'state.json';
const adapterFile = 'adapter_model.safetensors';

/** Where a run stands after `step` steps. */
export interface RunState {
  readonly step: number;
  /** Steps of the whole run, as it was planned. */
  readonly steps: number;
  readonly data: BatchState;
  /** Micro-batches run so far: what dropout's counter goes by. */
  readonly microBatches: number;
  /** Steps the optimizer made; fewer than `step` if some were skipped. */
  readonly optimizerSteps: number;
  /** Steps that were not finite. */
  readonly skipped: number;
  /** Of f16 activations; null, or not there in older files: none. */
  readonly lossScale?: LossScale | null;
  /** Tokens trained on. */
  readonly tokens: number;
  readonly evalLoss: number | null;
}

interface StateFile extends RunState {
  readonly format: 'lowrank checkpoint';
  readonly version: 1;
  readonly settings: RunSettings;
  /** Which kernels made it. Others are right as well but round differently. */
  readonly kernels: string;
}

/** What a checkpoint is made of, and put back into. */
export interface CheckpointParts {
  readonly adapter: Adapter;
  readonly optimizer: Optimizer;
  readonly settings: RunSettings;
}

/** A whole checkpoint that was found. */
export interface FoundCheckpoint {
  readonly folder: string;
  readonly step: number;
  readonly steps: number;
}

/**
 * Writes `out/checkpoint-N` beside and renames it, so that a kill at any instant leaves every checkpoint whole that was
 * whole before; then removes all but the newest `keep`, which includes it.
 *
 * @returns the folder
 * @throws LowrankError ERR_FILE
 */
export async function saveCheckpoint(out: string, state: RunState, parts: CheckpointParts, keep: number): Promise<string> {
  const folder = path.join(out, `checkpoint-${state.step}`);
  const { adapter, optimizer, settings } = parts;
  const content: StateFile = { format: 'lowrank checkpoint', version: 1, ...state, settings, kernels: kernelsOf(adapter.model.device) };
  await mkdir(out, { recursive: true }).catch((cause: unknown) => {
    throw new LowrankError('ERR_FILE', `${out}: the folder must be writable (${(cause as NodeJS.ErrnoException).code})`, { cause });
  });
  await replaceFolder(folder, async (temporary) => {
    await adapter.save(temporary);
    await writeTensors(path.join(temporary, optimizerFile), adapter.model.device, optimizer.stateTensors());
    await writeFileAtomic(path.join(temporary, stateFile), `${JSON.stringify(content, null, 1)}\n`);
  });
  await prune(out, keep, state.step);
  return folder;
}

async function writeTensors(file: string, device: Device, tensors: Readonly<Record<string, Tensor>>): Promise<void> {
  const specs = Object.entries(tensors).map(([name, { shape }]) => ({ name, dtype: 'F32' as const, shape }));
  const { header, order } = safetensorsLayout(specs, { format: 'lowrank' });
  await device.writeFile(file, header, order.map((name) => tensors[name] as Tensor));
}

function kernelsOf(device: Device): string {
  const { kind, kernels, activations } = device.info;
  return activations === 'f32' ? `${kind} ${kernels}` : `${kind} ${kernels} ${activations}`;
}

/**
 * Whole checkpoints of a run's folder, newest first. What an interrupted save left is mended or removed on the way.
 * A folder that doesn't exist has none.
 */
export async function findCheckpoints(out: string): Promise<FoundCheckpoint[]> {
  await mend(out);
  const found: FoundCheckpoint[] = [];
  for (const step of await stepsIn(out)) {
    const folder = path.join(out, `checkpoint-${step}`);
    const whole = await readWhole(folder).catch((fault: unknown) => {
      if (fault instanceof LowrankError) return null;
      throw fault;
    });
    if (whole !== null) found.push({ folder, step: whole.state.step, steps: whole.state.steps });
  }
  return found;
}

async function namesIn(folder: string): Promise<string[]> {
  return readdir(folder).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return [];
    throw new LowrankError('ERR_FILE', `${folder}: must be a folder that can be read (${cause.code})`, { cause });
  });
}

/** Numbers of `checkpoint-N`, highest first. */
async function stepsIn(out: string): Promise<number[]> {
  const steps = (await namesIn(out)).flatMap((name) => /^checkpoint-(\d+)$/.exec(name)?.[1] ?? []);
  return steps.map(Number).sort((a, b) => b - a);
}

/** Leftovers are hidden folders named after their checkpoint; see io/atomic.ts. */
async function mend(out: string): Promise<void> {
  const left = (await namesIn(out)).flatMap((name) => /^\.(checkpoint-\d+)\.(?:new|old|gone|tmp)-/.exec(name)?.[1] ?? []);
  for (const name of new Set(left)) await recoverFolder(path.join(out, name));
}

/** Keeps the newest `keep` up to `last`. What is beyond belongs to a future that was given up by resuming from before it. */
async function prune(out: string, keep: number, last: number): Promise<void> {
  const steps = await stepsIn(out);
  const kept = new Set(steps.filter((step) => step <= last).slice(0, keep));
  for (const step of steps) if (!kept.has(step)) await removeCheckpoint(path.join(out, `checkpoint-${step}`));
}

/** The state goes first: without it a folder is no checkpoint, however much of the rest is still there. */
async function removeCheckpoint(folder: string): Promise<void> {
  await rm(path.join(folder, stateFile), { force: true });
  await rm(folder, { recursive: true, force: true });
}

/** Removes every checkpoint of a folder, so that a new run there starts without a past. */
export async function removeCheckpoints(out: string): Promise<void> {
  await mend(out);
  await prune(out, 0, 0);
}

interface WholeCheckpoint {
  readonly state: StateFile;
  readonly optimizer: SafetensorsFile;
  readonly adapter: SafetensorsFile;
}

/** Reads what says whether a checkpoint is whole. @throws LowrankError ERR_FILE, ERR_FORMAT */
async function readWhole(folder: string): Promise<WholeCheckpoint> {
  const file = path.join(folder, stateFile);
  const text = await readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw new LowrankError('ERR_FILE', `${file}: is what makes a folder a checkpoint (${cause.code === 'ENOENT' ? 'not found' : cause.code})`, { cause });
  });
  const [adapter, optimizer] = [await readSafetensorsHeader(path.join(folder, adapterFile)), await readSafetensorsHeader(path.join(folder, optimizerFile))];
  return { state: parseState(file, text), adapter, optimizer };
}

function parseState(file: string, text: string): StateFile {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new LowrankError('ERR_FORMAT', `${file}: must be JSON (${(cause as Error).message})`, { cause });
  }
  const state = (typeof value === 'object' ? value : null) as Partial<StateFile> | null;
  if (state?.format !== 'lowrank checkpoint') throw new LowrankError('ERR_FORMAT', `${file}: must be the state of a lowrank checkpoint`);
  if (state.version !== 1) throw new LowrankError('ERR_UNSUPPORTED', `${file}: must have version 1 (it has ${String(state.version)}; was it written by a newer lowrank?)`);
  const numbers = { step: state.step, steps: state.steps, 'data.epoch': state.data?.epoch, 'data.position': state.data?.position, microBatches: state.microBatches, optimizerSteps: state.optimizerSteps, skipped: state.skipped, tokens: state.tokens };
  const faults = Object.entries(numbers).flatMap(([name, number]) => (Number.isSafeInteger(number) && (number as number) >= 0 ? [] : [`"${name}" must be a whole number (it is ${JSON.stringify(number) ?? 'missing'})`]));
  if (!isLossScale(state.lossScale)) faults.push(`"lossScale" must be null or a scale above 0 and a whole number of good steps (it is ${JSON.stringify(state.lossScale)})`);
  if (typeof state.settings !== 'object' || state.settings === null) faults.push('"settings" must be an object');
  throwFaults('ERR_FORMAT', file, faults);
  return state as StateFile;
}

function isLossScale(value: unknown): boolean {
  if (value === undefined || value === null) return true;
  const { scale, goodSteps } = value as Partial<LossScale>;
  return Number.isFinite(scale) && (scale as number) > 0 && Number.isSafeInteger(goodSteps) && (goodSteps as number) >= 0;
}

/** What was put back, and what the user should know about it. */
export interface Restored {
  readonly state: RunState;
  readonly notes: readonly string[];
}

/**
 * Puts a checkpoint's numbers into adapter and optimizer.
 *
 * @throws LowrankError ERR_ARGUMENT with every setting that differs, ERR_FORMAT if tensors are missing or of another shape,
 *   ERR_FILE; nothing was changed then.
 */
export async function restoreCheckpoint(folder: string, parts: CheckpointParts): Promise<Restored> {
  await recoverFolder(folder);
  const { state, adapter, optimizer } = await readWhole(folder);
  const differences = settingDifferences(state.settings, parts.settings);
  if (differences.length > 0) differences.push('start anew in another folder, or with --adapter from this checkpoint, if that is meant');
  throwFaults('ERR_ARGUMENT', `${folder}: a resumed run must have the settings of the saved one`, differences);
  const wanted = [...adapterTensors(parts.adapter, adapter), ...optimizerTensors(parts.optimizer, optimizer)];
  throwFaults('ERR_FORMAT', folder, wanted.flatMap(misfit));
  for (const place of wanted) place.tensor.upload(await readTensorBytes(place.source.file, place.source.tensors.get(place.name)!));
  parts.optimizer.steps = state.optimizerSteps;
  if (parts.optimizer.lossScale !== null) parts.optimizer.lossScale = state.lossScale ?? parts.optimizer.lossScale;
  return { state, notes: kernelNotes(state.kernels, kernelsOf(parts.adapter.model.device)) };
}

/** A tensor of the run and where its numbers are. */
interface Place {
  readonly tensor: Tensor;
  readonly name: string;
  readonly source: SafetensorsFile;
}

function adapterTensors(adapter: Adapter, source: SafetensorsFile): Place[] {
  return adapter.modules.flatMap(({ name, a, b }) => [
    { tensor: a, name: adapterKey(name, 'A'), source },
    { tensor: b, name: adapterKey(name, 'B'), source },
  ]);
}

function optimizerTensors(optimizer: Optimizer, source: SafetensorsFile): Place[] {
  return Object.entries(optimizer.stateTensors()).map(([name, tensor]) => ({ tensor, name, source }));
}

function misfit({ tensor, name, source }: Place): string[] {
  const found = source.tensors.get(name);
  const file = path.basename(source.file);
  if (found === undefined) return [`${file} must hold "${name}"`];
  if (found.dtype === 'F32' && found.shape.join() === tensor.shape.join()) return [];
  return [`${file}: "${name}" must be F32 [${tensor.shape.join(', ')}] (it is ${found.dtype} [${found.shape.join(', ')}])`];
}

function kernelNotes(saved: string, now: string): string[] {
  return saved === now ? [] : [`the checkpoint was made by the ${saved} kernels and goes on with ${now}: losses will agree, but not to the last bit`];
}
