import { Script, createContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import { reportScript } from '../../src/train/report-script.ts';
import { escapeHtml, renderReport, type ReportData, type ReportStep } from '../../src/train/report.ts';

const stepAt = (step: number): ReportStep => ({ step, loss: 3 / step, lr: 1e-4, gradNorm: step % 7, tokens: 10, tokensPerSecond: 100 + step });
const stepsTo = (last: number) => Array.from({ length: last }, (_, i) => stepAt(i + 1));

const report = (extra: Partial<ReportData> = {}): string =>
  renderReport({
    title: 'run', finishedAt: new Date('2026-01-02T03:04:05Z'), seconds: 61, steps: stepsTo(3), settings: {}, model: {}, adapter: {}, machine: {}, ...extra,
  });

interface Curves {
  steps: Record<'step' | 'loss' | 'lr' | 'gradNorm' | 'tokensPerSecond', (number | null)[]>;
  evals: { step: number[]; loss: number[] };
}

const dataText = (html: string) => /<script type="application\/json" id="data">(.*)<\/script>/.exec(html)?.[1] ?? '';
const curves = (html: string) => JSON.parse(dataText(html)) as Curves;

describe('report', () => {
  test('asks no network for anything', () => {
    const html = report();
    expect(html).not.toMatch(/<(link|img|iframe)\b|\bsrc=|\bhref=|@import|url\(/);
    expect(html).toContain(`default-src 'none'`);
  });

  test('has three script elements, whatever the texts hold', () => {
    const evil = '</script><script>alert(1)</script><!-- "\' & \u2028';
    const html = report({
      title: evil, subtitle: evil, notes: [evil], samples: [{ prompt: evil, before: evil, after: evil, expected: evil }],
      settings: { [evil]: evil }, model: { [evil]: evil },
    });
    expect(html.match(/<script/g)).toHaveLength(3);
    expect(html.match(/<\/script>/g)).toHaveLength(3);
    expect(html).not.toContain('alert(1)<');
    expect(html.split(escapeHtml(evil))).toHaveLength(1 + 2 + 1 + 1 + 4 + 4);
  });

  test('escapes what HTML reads otherwise', () => {
    expect(escapeHtml(`<a b="c" d='e'>&`)).toBe('&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;');
  });

  test('carries the steps, with gaps for what is not finite', () => {
    const steps = [stepAt(1), { ...stepAt(2), loss: NaN, gradNorm: Infinity }, stepAt(3)];
    const { steps: columns, evals } = curves(report({ steps, evals: [{ step: 0, loss: 1.23456789 }] }));
    expect(columns).toEqual({ step: [1, 2, 3], loss: [3, null, 1], lr: [1e-4, 1e-4, 1e-4], gradNorm: [1, null, 3], tokensPerSecond: [101, 102, 103] });
    expect(evals).toEqual({ step: [0], loss: [1.23457] });
  });

  test('thins a long run: means, but the largest gradient norm, and says so', () => {
    const html = report({ steps: stepsTo(8001) });
    const { step, loss, gradNorm } = curves(html).steps;
    expect(step).toHaveLength(2667);
    expect(step[0]).toBe(3);
    expect(loss[0]).toBeCloseTo((3 + 1.5 + 1) / 3, 5);
    expect(gradNorm[0]).toBe(3);
    expect(html).toContain('each point stands for 3 steps');
  });

  test('without steps has no curves and says why', () => {
    const html = report({ steps: [] });
    expect(html).toContain('No step was made');
    expect(html).not.toContain('id="loss"');
    expect(html.slice(html.indexOf('<main>'), html.indexOf('</main>'))).not.toMatch(/NaN|undefined/);
  });

  test('sums up: losses, perplexity, tokens, median speed, time', () => {
    const html = report({ evals: [{ step: 0, loss: Math.log(20) }, { step: 3, loss: Math.log(5) }] });
    const tiles = [...html.matchAll(/<h3>([^<]*)<\/h3><b>(.*?)<\/b><small>([^<]*)</g)].map(([, name, value, small]) => [name, value?.replace(/<[^>]*>/g, ''), small]);
    expect(tiles).toEqual([
      ['Training loss', '3 → 1', 'first step, last step'],
      ['Held-out loss', '3 → 1.61', 'step 0, step 3'],
      ['Perplexity', '20 → 5', 'held-out, per token'],
      ['Steps', '3', '30 trained tokens'],
      ['Speed', '102', 'tokens per second, median'],
      ['Time', '1 min 1 s', 'all in all'],
    ]);
  });

  test('shows facts as a reader expects them', () => {
    const html = report({ model: { parameters: 3148224, tied: true, window: null, theta: 10000, eps: 1e-5, context: 512 } });
    const cells = [...html.matchAll(/<th scope="row">([^<]*)<\/th><td>([^<]*)</g)].map(([, key, value]) => [key, value]);
    expect(Object.fromEntries(cells)).toEqual({ parameters: '3,148,224', tied: 'yes', window: '–', theta: '10,000', eps: '0.00001', context: '512' });
  });

  test('an empty text in a sample is told as nothing', () => {
    expect(report({ samples: [{ prompt: 'p', before: ' ', after: 'a' }] }).match(/\(nothing\)/g)).toHaveLength(1);
  });
});

interface Drawn {
  id: string;
  columns: unknown[][];
  series: unknown[];
  log: boolean;
}

/** Runs the page's own script against the least of a browser, and tells what it had drawn. */
function drawnBy(html: string, clicks = 0): Drawn[] {
  let drawn: Drawn[] = [];
  let click = (_: { currentTarget: unknown }) => {};
  const button = {
    pressed: 'false', getAttribute: () => button.pressed, setAttribute: (_: string, value: string) => void (button.pressed = value),
    addEventListener: (_: string, handler: typeof click) => void (click = handler),
  };
  const elements: Record<string, unknown> = { data: { textContent: dataText(html) }, log: button };
  for (const id of ['loss', 'lr', 'norm', 'speed']) if (html.includes(`id="${id}"`)) elements[id] = { id, clientWidth: 300 };
  class uPlot {
    static sync = (key: string) => ({ key });
    static join = ([a, b]: [unknown[][], unknown[][]]) => [a[0], ...a.slice(1), ...b.slice(1)];
    constructor(options: { series: unknown[]; scales: { y: { distr?: number } } }, columns: unknown[][], place: { id: string }) {
      drawn.push({ id: place.id, columns, series: options.series, log: options.scales.y.distr === 3 });
    }
    destroy() {
      drawn = [];
    }
  }
  new Script(reportScript).runInContext(createContext({
    uPlot, innerWidth: 1000, document: { getElementById: (id: string) => elements[id] ?? null, documentElement: {} },
    matchMedia: () => ({ addEventListener() {} }), getComputedStyle: () => ({ getPropertyValue: () => ' #123456 ' }),
    ResizeObserver: class { observe() {} disconnect() {} },
  }));
  for (let i = 0; i < clicks; i++) click({ currentTarget: button });
  return drawn;
}

describe('report script', () => {
  test.each([[1, 0], [2, 1], [29, 0], [30, 2], [300, 3]])('%i steps and %i evaluations: four charts, each with a series to every column', (steps, evals) => {
    const html = report({ steps: stepsTo(steps), evals: Array.from({ length: evals }, (_, step) => ({ step, loss: 1 })) });
    const drawn = drawnBy(html);
    expect(drawn.map(({ id }) => id)).toEqual(['loss', 'lr', 'norm', 'speed']);
    for (const { series, columns } of drawn) expect(series.length).toBe(columns.length);
    expect(drawn[0]?.series.length).toBe(2 + (steps >= 30 ? 1 : 0) + (evals > 0 ? 1 : 0));
  });

  test('draws nothing without steps', () => expect(drawnBy(report({ steps: [] }))).toEqual([]));

  test('the button turns the loss to a logarithmic scale and back', () => {
    expect([0, 1, 2].map((clicks) => drawnBy(report(), clicks).map(({ log }) => log))).toEqual([
      [false, false, false, false], [true, false, false, false], [false, false, false, false],
    ]);
  });

  test('the smoothed curve keeps a straight line as it is, to both ends', () => {
    const steps = stepsTo(100).map((step) => ({ ...step, loss: step.step }));
    const [, raw, smoothed] = drawnBy(report({ steps }))[0]!.columns as number[][];
    smoothed!.forEach((value, i) => expect(value).toBeCloseTo(raw![i]!, 9));
  });
});
