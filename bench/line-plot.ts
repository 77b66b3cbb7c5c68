import type { Fit, Point } from './fit.ts';

/** Measured points and the line through them. */
export interface Panel {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly points: readonly Point[];
  readonly fit: Fit;
}

const [width, height] = [300, 220];
const margin = { left: 52, right: 14, top: 42, bottom: 36 };

const escape = (text: string): string => text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);

/** Panels side by side as one SVG, three in a row; axes start at zero, so that what is proportional looks so. */
export function linePlots(title: string, panels: readonly Panel[]): string {
  const columns = Math.min(3, panels.length);
  const [w, h] = [columns * width, Math.ceil(panels.length / columns) * height + 30];
  const placed = panels.map((panel, i) => `<g transform="translate(${(i % columns) * width},${30 + Math.floor(i / columns) * height})">${drawPanel(panel)}</g>`);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${w} ${h}" width="${w}" height="${h}" font-family="system-ui, sans-serif" font-size="11">`,
    `<rect width="${w}" height="${h}" fill="#fff"/>`,
    `<text x="${w / 2}" y="20" text-anchor="middle" font-size="14">${escape(title)}</text>`,
    ...placed,
    '</svg>',
    '',
  ].join('\n');
}

/** The least 1, 2 or 5 times a power of ten that is a quarter of `most` or more: at most four ticks. */
function tickStep(most: number): number {
  const power = 10 ** Math.floor(Math.log10(most / 4));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= most / 4) ?? most;
}

function drawPanel({ title, xLabel, yLabel, points, fit }: Panel): string {
  const [xMost, yMost] = [Math.max(...points.map(({ x }) => x)) * 1.05, Math.max(...points.map(({ y }) => y)) * 1.1];
  const x = (value: number): string => (margin.left + (value / xMost) * (width - margin.left - margin.right)).toFixed(1);
  const y = (value: number): string => (height - margin.bottom - (value / yMost) * (height - margin.top - margin.bottom)).toFixed(1);
  const ticks = (most: number): number[] => Array.from({ length: Math.floor(most / tickStep(most)) + 1 }, (_, i) => Number((i * tickStep(most)).toPrecision(6)));
  const note = `R² ${fit.r2.toFixed(4)}, exponent ${fit.exponent.toFixed(2)}`;
  return [
    `<text x="${margin.left}" y="16" font-weight="600">${escape(title)}</text><text x="${margin.left}" y="31" fill="#555">${note}</text>`,
    ...ticks(xMost).map((tick) => `<text x="${x(tick)}" y="${height - margin.bottom + 14}" text-anchor="middle" fill="#555">${tick}</text>`),
    ...ticks(yMost).map((tick) => `<line x1="${x(0)}" x2="${x(xMost)}" y1="${y(tick)}" y2="${y(tick)}" stroke="#e4e4e4"/><text x="${margin.left - 5}" y="${y(tick)}" dy="0.32em" text-anchor="end" fill="#555">${tick}</text>`),
    `<line x1="${x(0)}" x2="${x(xMost)}" y1="${y(0)}" y2="${y(0)}" stroke="#888"/><line x1="${x(0)}" x2="${x(0)}" y1="${y(0)}" y2="${y(yMost)}" stroke="#888"/>`,
    `<line x1="${x(0)}" y1="${y(Math.max(0, fit.intercept))}" x2="${x(xMost)}" y2="${y(fit.intercept + fit.slope * xMost)}" stroke="#d0743c"/>`,
    ...points.map((point) => `<circle cx="${x(point.x)}" cy="${y(point.y)}" r="3.5" fill="#2c6fbb"/>`),
    `<text x="${(width + margin.left) / 2}" y="${height - 6}" text-anchor="middle">${escape(xLabel)}</text>`,
    `<text transform="translate(12,${height / 2}) rotate(-90)" text-anchor="middle">${escape(yLabel)}</text>`,
  ].join('\n');
}
