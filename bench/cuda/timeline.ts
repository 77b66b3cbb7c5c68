import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Bench, BenchContext } from '../bench.ts';
import { alreadyBuilt } from '../peak.ts';
import { phase } from '../phase.ts';
import { withRandomModel } from '../random-model.ts';
import { chosenModels } from '../shapes.ts';
import { trainingOf } from '../step.ts';
import { digits, renderTable, type Row } from '../table.ts';
import { ourTrainer, peftTrainer, type StepAnswer, type Trainer, type Training } from '../trainers.ts';
import { lastStep, parseTimeline, pauseBetweenSteps, sumTimeline, type TimelineSum } from './timeline-events.ts';

const steps = 6; // the first ones load, find their memory, and record graphs

/**
 * The kernels of a training step by how long each ran, and how long none did: ours and PEFT's by the same records of the driver. Recording
 * costs some microseconds a launch, so idle times are longer than without it. What was recorded is kept where LOWRANK_TIMELINE_FOLDER names a folder.
 */
export const timeline: Bench = {
  about: 'the kernels of a training step on an NVIDIA GPU by their times, and when none runs, beside PEFT; --shape llama1b, llama8b-layer',
  usual: false,
  anyDevice: true,
  async run(context) {
    const { device, options } = context;
    if (device.kind !== 'cuda') return leftOut(`${device.kind} has no driver that records`);
    const library = alreadyBuilt('timeline');
    if ('why' in library) return leftOut(`its library needs cmake, nvcc and CUPTI's headers (${library.why})`);
    const tables: Record<string, readonly Row[]> = {};
    for (const [key, shape] of chosenModels('timeline', options.shape, ['llama1b'])) {
      const training = trainingOf(key);
      await withRandomModel(shape, async (folder) => {
        for (const trainer of trainersOf(context)) {
          const { ms, sum } = await phase('timeline', trainer.who, () => record(trainer, { library: library.file, folder, training }));
          const title = `${trainer.who}: ${shape.name}, ${training.batch}×${training.tokens} tokens, a step of ${ms.toFixed(1)} ms as its process sees it`;
          tables[title] = rowsOf(sum);
          console.log(`${title}\n${renderTable(rowsOf(sum))}`); // should time run out on the next
        }
      });
    }
    return { tables };
  },
};

function leftOut(why: string): { tables: Record<string, readonly Row[]> } {
  console.log(`timeline: left out: ${why}`);
  return { tables: {} };
}

function trainersOf({ device, peers, options: { precision, peersRun } }: BenchContext): readonly Trainer[] {
  const ours = ourTrainer({ precision, device: device.kind });
  return peers === null ? [ours] : [ours, peftTrainer(peers, 'bf16', 'none', peersRun === 'compiled')];
}

interface Recording {
  readonly library: string;
  readonly folder: string;
  readonly training: Training;
}

/** Some steps in a process of their own, with pauses by which the last one is told from the others. */
async function record(trainer: Trainer, { library, folder, training }: Recording): Promise<{ readonly ms: number; readonly sum: TimelineSum }> {
  const kept = process.env['LOWRANK_TIMELINE_FOLDER'];
  if (kept !== undefined) mkdirSync(kept, { recursive: true });
  const out = kept ?? mkdtempSync(path.join(tmpdir(), 'lowrank-timeline-'));
  const file = path.join(out, `timeline-${trainer.who.replace(/\W+/g, '-')}.tsv`);
  try {
    rmSync(file, { force: true });
    const worker = trainer.start(folder, training, { CUDA_INJECTION64_PATH: library, LOWRANK_TIMELINE: file });
    let ms = NaN;
    try {
      for (let i = 0; i < steps; i++) {
        ({ ms } = (await worker.ask('step')) as StepAnswer);
        await new Promise((resolve) => setTimeout(resolve, (3 * pauseBetweenSteps) / 1e6));
      }
    } finally {
      await worker.stop();
    }
    if (!existsSync(file)) throw new Error(`timeline: the process of ${trainer.who} must write ${file} (CUDA did not load ${library}, or the process broke off)`);
    const { events, lost } = parseTimeline(readFileSync(file, 'utf8'));
    if (lost > 0) console.log(`timeline: ${lost} records of ${trainer.who} were lost`);
    return { ms, sum: sumTimeline(lastStep(events)) };
  } finally {
    if (kept === undefined) rmSync(out, { recursive: true });
  }
}

/** The whole first, then each kernel by what it took. */
function rowsOf({ span, idle, shares }: TimelineSum): readonly Row[] {
  const row = (kernel: string, nanoseconds: number, idleAfter: number, launches: number, inGraphs: number, bytes: number): Row => ({
    kernel, 'µs': digits(nanoseconds / 1000, 1), 'of the step': digits(nanoseconds / span, 3), 'idle after, µs': digits(idleAfter / 1000, 1), launches, 'in graphs': inGraphs,
    MB: bytes === 0 ? null : digits(bytes / 1e6, 2),
  });
  const total = (count: 'launches' | 'inGraphs'): number => shares.reduce((sum, share) => sum + share[count], 0);
  const cut = (name: string): string => (name.length > 160 ? `${name.slice(0, 160)}…` : name); // PyTorch's can have a thousand characters
  return [row('from the first start to the last end', span, idle, total('launches'), total('inGraphs'), 0), ...shares.map((each) => row(cut(each.name), each.nanoseconds, each.idleAfter, each.launches, each.inGraphs, each.bytes))];
}
