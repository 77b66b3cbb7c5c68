/** y = intercept + slope x by least squares, how much of the variance it explains, and the exponent of y ~ x^exponent (log-log slope). */
export interface Fit {
  readonly intercept: number;
  readonly slope: number;
  readonly r2: number;
  readonly exponent: number;
}

export interface Point {
  readonly x: number;
  readonly y: number;
}

export function fitLine(points: readonly Point[]): Fit {
  const { intercept, slope } = leastSquares(points);
  const mean = points.reduce((sum, { y }) => sum + y, 0) / points.length;
  const [left, all] = [(p: Point) => (p.y - intercept - slope * p.x) ** 2, (p: Point) => (p.y - mean) ** 2].map((of) => points.reduce((sum, p) => sum + of(p), 0));
  const positive = points.filter(({ x, y }) => x > 0 && y > 0).map(({ x, y }) => ({ x: Math.log(x), y: Math.log(y) }));
  return { intercept, slope, r2: 1 - (left ?? NaN) / (all ?? NaN), exponent: leastSquares(positive).slope };
}

function leastSquares(points: readonly Point[]): { intercept: number; slope: number } {
  const n = points.length;
  const [sx, sy] = [points.reduce((s, { x }) => s + x, 0), points.reduce((s, { y }) => s + y, 0)];
  const [sxx, sxy] = [points.reduce((s, { x }) => s + x * x, 0), points.reduce((s, { x, y }) => s + x * y, 0)];
  const slope = (n * sxy - sx * sy) / (n * sxx - sx * sx);
  return { slope, intercept: (sy - slope * sx) / n };
}
