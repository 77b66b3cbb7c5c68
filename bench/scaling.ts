import { layerName, makeLayerWork, type LayerShape } from '../src/cli/layer-work.ts';
import { deviceParty, spread, takeTurns } from '../src/cli/turns.ts';
import type { Bench, BenchContext } from './bench.ts';
import { fitLine, type Point } from './fit.ts';
import { linePlots, type Panel } from './line-plot.ts';
import { stepTimesByLayers } from './scaling-layers.ts';
import { digits, type Row } from './table.ts';

const base: LayerShape = { T: 512, K: 1024, N: 1024, r: 16 };

type Axis = Exclude<keyof LayerShape, 'parts'>;

const axes: Readonly<Record<Axis, readonly number[]>> = {
  T: [128, 256, 512, 1024, 2048],
  K: [512, 1024, 2048, 3072, 4096],
  N: [512, 1024, 2048, 3072, 4096],
  r: [4, 8, 16, 32, 64, 128],
};

const layerCounts = [2, 4, 8, 12, 16];

/** What a LoRA linear costs in T, K, N and r, and a training step in layers: all should be lines. */
export const scaling: Bench = {
  about: 'cost in T, K, N, r and layers: measured, the line through it, its R² and exponent, an SVG; --shape T, K, N, r or layers',
  usual: false,
  async run(context) {
    const { shape } = context.options;
    const known = [...Object.keys(axes), 'layers'];
    if (shape !== null && !known.includes(shape)) throw new Error(`scaling: --shape must be one of ${known.join(', ')} (found ${shape})`);
    const panels: Panel[] = [];
    for (const axis of Object.keys(axes) as Axis[]) if (shape === null || shape === axis) panels.push(await alongAxis(context, axis));
    if (shape === null || shape === 'layers') panels.push(await alongLayers(context));
    const title = `Cost of LoRA training on ${context.device.info.name}, ${context.device.info.threads} threads`;
    return { tables: { measured: panels.flatMap(pointRows), 'the line through it': panels.map(fitRow) }, drawings: { svg: linePlots(title, panels) } };
  },
};

// The frozen layer doesn't depend on r: what is measured there is the time above it, in the same round.
async function alongAxis({ device, options }: BenchContext, axis: Axis): Promise<Panel> {
  const shapes = axes[axis].map((value) => ({ ...base, [axis]: value }));
  const layers = shapes.map((shape) => makeLayerWork(device, shape, { stored: options.dtype }));
  try {
    for (const layer of layers) await layer.check();
    const parties = Object.fromEntries(layers.map((layer, i) => [`at ${axes[axis][i]}`, deviceParty(device, layer.lora(0))]));
    const frozen = axis === 'r' ? { frozen: deviceParty(device, layers[0]?.frozen ?? (() => {})) } : {};
    const samples = await takeTurns({ ...parties, ...frozen }, { rounds: options.rounds ?? (axis === 'r' ? 25 : 7) });
    const points = axes[axis].map((x): Point => {
      const own = samples[`at ${x}`] ?? [];
      return { x, y: spread(own.map((ms, i) => ms - (samples['frozen']?.[i] ?? 0))).median };
    });
    const what = axis === 'r' ? 'LoRA linear above its frozen layer' : 'LoRA linear, forward + backward';
    return { title: what, xLabel: `${axis} (else ${layerName(base)})`, yLabel: 'ms', points, fit: fitLine(points) };
  } finally {
    for (const layer of layers) layer.dispose();
  }
}

async function alongLayers({ device, options }: BenchContext): Promise<Panel> {
  const points = await stepTimesByLayers(device, layerCounts, options.rounds ?? 7);
  return { title: 'Training step, hidden 256, 512 tokens', xLabel: 'layers', yLabel: 'ms', points, fit: fitLine(points) };
}

function pointRows({ title, xLabel, points, fit }: Panel): Row[] {
  return points.map(({ x, y }) => ({ what: title, along: xLabel, at: x, ms: digits(y, 3), 'the line': digits(fit.intercept + fit.slope * x, 3), 'ms of one': digits(y / x, 5) }));
}

function fitRow({ title, xLabel, fit }: Panel): Row {
  return { what: title, along: xLabel, 'ms of one': Number(fit.slope.toPrecision(4)), 'ms at 0': digits(fit.intercept, 3), 'R²': digits(fit.r2, 5), exponent: digits(fit.exponent, 3) };
}
