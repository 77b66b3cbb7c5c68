/**
 * Runs in the reader's browser, behind uPlot: draws the curves from the JSON in `#data`, again whenever the colours or the
 * kind of scale change. Plain JavaScript in a string, for it is never run here.
 */
export const reportScript = String.raw`
'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const sync = uPlot.sync('steps').key;
  let plots = [];

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
  const format = (value) => {
    if (value == null) return '–';
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2).replace('e+', 'e');
    return value.toLocaleString('en-US', { maximumSignificantDigits: size >= 1000 ? 6 : 4 });
  };

  // A mean over steps on both sides, as many of one as of the other: it does not lag, as an exponential mean does.
  const smooth = (values, reach) => values.map((value, at) => {
    const near = Math.min(reach, at, values.length - 1 - at);
    const window = values.slice(at - near, at + near + 1).filter((other) => other != null);
    return window.length === 0 ? null : window.reduce((sum, other) => sum + other, 0) / window.length;
  });

  const line = (label, name, extra) => ({
    label, stroke: color(name), width: 2, value: (_, value) => format(value), points: { size: 5, fill: color(name) }, ...extra,
  });

  const axis = (extra) => ({
    stroke: color('muted'), grid: { stroke: color('grid'), width: 1 }, ticks: { show: false }, font: '12px system-ui, sans-serif', ...extra,
  });

  function draw(id, height, columns, series, log) {
    const place = document.getElementById(id);
    if (!place) return;
    const options = {
      width: place.clientWidth, height,
      cursor: { sync: { key: sync }, focus: { prox: 30 }, points: { size: 7 } },
      scales: { x: { time: false }, y: log ? { distr: 3 } : {} },
      axes: [
        axis({ incrs: [1, 2, 5].flatMap((n) => [0, 1, 2, 3, 4, 5, 6].map((p) => n * 10 ** p)).sort((a, b) => a - b), size: 32, values: (_, ticks) => ticks.map(format) }),
        axis({ size: 58, values: (_, ticks) => ticks.map((tick) => tick == null ? '' : format(tick)) }),
      ],
      series: [{ label: 'step', value: (_, value) => value == null ? '–' : value.toLocaleString('en-US') }, ...series],
    };
    const plot = new uPlot(options, columns, place);
    const resize = new ResizeObserver(() => { if (place.clientWidth !== plot.width) plot.setSize({ width: place.clientWidth, height }); });
    resize.observe(place);
    plots.push({ plot, resize });
  }

  function drawAll() {
    for (const { plot, resize } of plots) { resize.disconnect(); plot.destroy(); }
    plots = [];
    const { step, loss, lr, gradNorm, tokensPerSecond } = data.steps;
    const log = document.getElementById('log')?.getAttribute('aria-pressed') === 'true';
    // What is noisy is drawn faintly, with its mean over it; of a few steps the mean would hide what happened.
    const few = step.length < 30;
    const noisy = (label, name, values) => few
      ? { values: [values], series: [line(label, name, { spanGaps: true })] }
      : {
          values: [values, smooth(values, Math.round(step.length / 50) + 1)],
          series: [
            line(label, name, { width: 1, stroke: color(name) + '59', points: { show: false }, spanGaps: true }),
            line('smoothed', name, { points: { show: false }, spanGaps: true }),
          ],
        };
    const [training, norm, speed] = [noisy('training loss', 'loss', loss), noisy('norm', 'norm', gradNorm), noisy('tokens/s', 'speed', tokensPerSecond)];
    const held = data.evals.step.length > 0;
    const columns = held ? uPlot.join([[step, ...training.values], [data.evals.step, data.evals.loss]]) : [step, ...training.values];
    const points = line('held-out loss', 'eval', { spanGaps: true, points: { show: true, size: 7, fill: color('eval') } });
    draw('loss', innerWidth < 520 ? 240 : 320, columns, held ? [...training.series, points] : training.series, log);
    draw('lr', 190, [step, lr], [line('rate', 'rate', { points: { show: few } })]);
    draw('norm', 190, [step, ...norm.values], norm.series);
    draw('speed', 190, [step, ...speed.values], speed.series);
  }

  document.getElementById('log')?.addEventListener('click', ({ currentTarget: button }) => {
    button.setAttribute('aria-pressed', String(button.getAttribute('aria-pressed') !== 'true'));
    drawAll();
  });
  dark.addEventListener('change', drawAll);
  if (data.steps.step.length > 0) drawAll();
})();
`;
