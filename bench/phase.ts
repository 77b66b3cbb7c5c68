/** Runs a part of what comes before the first sample, and says what it took where that is half a second and more: a log then shows where time went. */
export async function phase<T>(bench: string, what: string, body: () => T | Promise<T>): Promise<T> {
  const start = performance.now();
  const result = await body();
  const seconds = (performance.now() - start) / 1000;
  if (seconds >= 0.5) console.log(`${bench}: ${what}: ${seconds.toFixed(1)} s`);
  return result;
}
