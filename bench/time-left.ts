/** Whether `seconds` have not passed yet since this was made; null: they never do. Says what is left out. */
export function timer(bench: string, seconds: number | null): { allows(what: string): boolean } {
  const start = performance.now();
  return {
    allows(what) {
      if (seconds === null || performance.now() - start < 1000 * seconds) return true;
      console.log(`${bench}: ${what} left out: ${seconds} s have passed`);
      return false;
    },
  };
}
