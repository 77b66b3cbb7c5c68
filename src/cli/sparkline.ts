const bars = '▁▂▃▄▅▆▇█';

/** A curve in one line of text: the mean of each stretch of `values`, the highest as a full block. Not finite: a blank. */
export function sparkline(values: readonly number[], width: number): string {
  const points = stretches(values, Math.max(1, width));
  const finite = points.filter(Number.isFinite);
  if (finite.length === 0) return '';
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const level = (value: number): number => (high === low ? 0 : Math.round(((value - low) / (high - low)) * (bars.length - 1)));
  return points.map((value) => (Number.isFinite(value) ? bars[level(value)] : ' ')).join('');
}

function stretches(values: readonly number[], width: number): number[] {
  if (values.length <= width) return [...values];
  return Array.from({ length: width }, (_, i) => {
    const part = values.slice(Math.floor((i * values.length) / width), Math.floor(((i + 1) * values.length) / width));
    return part.reduce((sum, value) => sum + value, 0) / part.length;
  });
}
