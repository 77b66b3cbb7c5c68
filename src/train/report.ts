import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { reportScript } from './report-script.ts';
import { reportStyle } from './report-style.ts';

/** One optimizer step, with the names of `train --json`. */
export interface ReportStep {
  step: number;
  /** Mean over the step's tokens, in nats. */
  loss: number;
  lr: number;
  gradNorm: number;
  /** Tokens that were trained on. */
  tokens: number;
  tokensPerSecond: number;
}

/** Names and values of a table, in the order shown. */
export type Facts = Readonly<Record<string, string | number | boolean | null>>;

export interface ReportSample {
  prompt: string;
  /** What the base model wrote, if it was asked. */
  before?: string;
  after: string;
  /** What the data says. */
  expected?: string;
}

export interface ReportData {
  title: string;
  subtitle?: string;
  /** When the run ended. */
  finishedAt: Date;
  /** How long it took. */
  seconds: number;
  steps: readonly ReportStep[];
  /** Held-out loss in nats per token; step 0 is before training. */
  evals?: readonly { step: number; loss: number }[];
  samples?: readonly ReportSample[];
  settings: Facts;
  model: Facts;
  adapter: Facts;
  machine: Facts;
  /** Sentences that the reader must not miss, such as why a run stopped. */
  notes?: readonly string[];
}

/** More points than a screen has columns only make the file large. */
const maxPoints = 4000;

/**
 * One HTML page with everything a run leaves to say: curves, settings, samples, and what model, adapter and machine were.
 * It holds its own scripts and styles and asks no network for anything.
 *
 * @example
 * ```ts
 * const facts = { settings: { lr: 2e-4 }, model: { family: 'llama' }, adapter: { rank: 16 }, machine: { threads: 2 } };
 * await writeFileAtomic('out/report.html', renderReport({ title: 'demo', finishedAt: new Date(), seconds: 61, steps: [], ...facts }));
 * ```
 */
export function renderReport(data: ReportData): string {
  const require = createRequire(import.meta.url);
  const asset = (name: string) => readFileSync(require.resolve(`uplot/dist/${name}`), 'utf8');
  const { columns, stride } = thinned(data.steps);
  const evals = data.evals ?? [];
  const curves = { steps: columns, evals: { step: evals.map(({ step }) => step), loss: evals.map(({ loss }) => brief(loss)) } };
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="generator" content="lowrank">
<title>${escapeHtml(data.title)}</title>
<style>${asset('uPlot.min.css')}${reportStyle}</style>
</head>
<body>
<main>
<header>
<h1>${escapeHtml(data.title)}</h1>
<p class="sub">${data.subtitle === undefined ? '' : `${escapeHtml(data.subtitle)} · `}<time datetime="${data.finishedAt.toISOString()}">${utc(data.finishedAt)}</time></p>
${(data.notes ?? []).map((note) => `<p class="note">${escapeHtml(note)}</p>`).join('\n')}
</header>
${tiles(data)}
${curveCards(data.steps.length, stride)}
${samples(data.samples ?? [])}
<h2>The run</h2>
<div class="columns">
${[['Settings', data.settings], ['Model', data.model], ['Adapter', data.adapter], ['Machine', data.machine]].map(([name, facts]) => factsCard(name as string, facts as Facts)).join('\n')}
</div>
<footer>Written by lowrank. Curves: uPlot (MIT licence). Drag over a curve to zoom in, double-click to zoom out.</footer>
</main>
<script type="application/json" id="data">${scriptJson(curves)}</script>
<script>${asset('uPlot.iife.min.js')}</script>
<script>${reportScript}</script>
</body>
</html>
`;
}

/** Text as it can stand in HTML, inside quoted attributes too. */
export function escapeHtml(text: string): string {
  const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
  return text.replace(/[&<>"']/g, (char) => entities[char] ?? char);
}

/** JSON as it can stand in a script element; with `<` escaped nothing in it can end the element. */
function scriptJson(value: unknown): string {
  return JSON.stringify(value).replace(/</g, '\\u003c');
}

type Columns = Record<Exclude<keyof ReportStep, 'tokens'>, (number | null)[]>;

/** Columns for the curves: as they are, or with `stride` steps to a point: means, but the largest gradient norm. */
function thinned(steps: readonly ReportStep[]): { columns: Columns; stride: number } {
  const stride = Math.ceil(steps.length / maxPoints);
  const columns: Columns = { step: [], loss: [], lr: [], gradNorm: [], tokensPerSecond: [] };
  for (let start = 0; start < steps.length; start += stride) {
    const bucket = steps.slice(start, start + stride);
    columns.step.push(bucket.at(-1)?.step ?? null);
    for (const name of ['loss', 'lr', 'tokensPerSecond'] as const) columns[name].push(brief(mean(bucket.map((step) => step[name]))));
    columns.gradNorm.push(brief(bucket.reduce((most, { gradNorm }) => (gradNorm > most || Number.isNaN(gradNorm) ? gradNorm : most), -Infinity)));
  }
  return { columns, stride };
}

/** Six digits are more than a curve shows; what is not finite is a gap. */
function brief(value: number): number | null {
  return Number.isFinite(value) ? Number(value.toPrecision(6)) : null;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? NaN;
}

function tiles({ steps, evals = [], seconds }: ReportData): string {
  const found: [string, string, string][] = [];
  const last = steps.length < 30 ? 1 : 10;
  if (steps[0]) found.push(['Training loss', change(steps[0].loss, mean(steps.slice(-last).map(({ loss }) => loss))), `first step, ${last === 1 ? 'last step' : 'mean of the last 10'}`]);
  const [firstEval, lastEval] = [evals[0], evals.at(-1)];
  if (firstEval && lastEval) {
    found.push(['Held-out loss', change(firstEval.loss, lastEval.loss), `step ${count(firstEval.step)}, step ${count(lastEval.step)}`]);
    found.push(['Perplexity', change(Math.exp(firstEval.loss), Math.exp(lastEval.loss)), 'held-out, per token']);
  }
  const tokens = steps.reduce((sum, step) => sum + step.tokens, 0);
  found.push(['Steps', count(steps.length), `${count(tokens)} trained tokens`]);
  const speed = median(steps.map(({ tokensPerSecond }) => tokensPerSecond).filter(Number.isFinite));
  found.push(['Speed', Number.isNaN(speed) ? '–' : count(Math.round(speed)), 'tokens per second, median']);
  found.push(['Time', duration(seconds), 'all in all']);
  return `<section class="tiles" aria-label="Results">${found.map(([name, value, small]) => `<div class="card tile"><h3>${name}</h3><b>${value}</b><small>${small}</small></div>`).join('\n')}</section>`;
}

function change(from: number, to: number): string {
  return `<span class="from">${digits(from)} →</span> ${digits(to)}`;
}

/** Three digits that matter, and all of a whole part: 0.0123, 1.31, 27.7, 1,234. */
function digits(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  return Math.abs(value) >= 1e6 ? value.toExponential(2) : value.toLocaleString('en-US', { maximumSignificantDigits: Math.abs(value) >= 1000 ? 6 : 3 });
}

function count(value: number): string {
  return value.toLocaleString('en-US');
}

function duration(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${digits(seconds < 10 ? Math.round(seconds * 10) / 10 : whole)} s`;
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)];
  return hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min ${whole % 60} s`;
}

function utc(date: Date): string {
  return `${date.toISOString().slice(0, 16).replace('T', ' ')} UTC`;
}

function curveCards(steps: number, stride: number): string {
  if (steps === 0) return '<p class="note">No step was made, so there are no curves.</p>';
  const thinning = stride > 1 ? ` <span class="sub">each point stands for ${stride} steps</span>` : '';
  const card = (id: string, name: string) => `<section class="card chart"><div class="head"><h3>${name}</h3></div><div class="plot" id="${id}" role="img" aria-label="${name} by step"></div></section>`;
  return `<h2>Curves${thinning}</h2>
<noscript><p class="note">The curves need JavaScript.</p></noscript>
<section class="card"><div class="head"><h3>Loss, nats per token</h3><button id="log" type="button" aria-pressed="false">log</button></div>
<div class="plot" id="loss" role="img" aria-label="Loss by step"></div></section>
<div class="grid">${card('lr', 'Learning rate')}${card('norm', 'Gradient norm')}${card('speed', 'Tokens per second')}</div>`;
}

function samples(all: readonly ReportSample[]): string {
  if (all.length === 0) return '';
  return `<h2>Samples</h2>\n${all.map(sampleCard).join('\n')}`;
}

function sampleCard({ prompt, before, after, expected }: ReportSample): string {
  const box = (name: string, text: string, kind = '') => `<div class="box${kind}"><h3>${name}</h3>${block(text)}</div>`;
  const boxes = [before === undefined ? '' : box('Before', before), box('After', after, ' after'), expected === undefined ? '' : box('Expected', expected)];
  return `<article class="card sample"><h3>Prompt</h3>${block(prompt)}<div class="pair">${boxes.join('')}</div></article>`;
}

function block(text: string): string {
  return text.trim() === '' ? '<p class="text none">(nothing)</p>' : `<p class="text">${escapeHtml(text)}</p>`;
}

function factsCard(name: string, facts: Facts): string {
  const rows = Object.entries(facts).map(([key, value]) => `<tr><th scope="row">${escapeHtml(key)}</th><td>${escapeHtml(fact(value))}</td></tr>`);
  return `<section class="card"><h3>${name}</h3><table class="facts"><tbody>${rows.join('')}</tbody></table></section>`;
}

function fact(value: Facts[string] | undefined): string {
  if (value === null || value === undefined) return '–';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  return typeof value === 'number' && Number.isSafeInteger(value) && Math.abs(value) >= 10_000 ? count(value) : String(value);
}
