import { vi } from 'vitest';
import { runCommandLine } from '../../src/cli/program.ts';

/** Runs a command line in this process, which is quicker than a process of its own. */
export async function here(args: readonly string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  const written = { stdout: '', stderr: '' };
  const spies = (['stdout', 'stderr'] as const).map((name) =>
    vi.spyOn(process[name], 'write').mockImplementation((text) => {
      written[name] += String(text);
      return true;
    }),
  );
  process.exitCode = undefined;
  try {
    await runCommandLine(args);
    return { status: Number(process.exitCode ?? 0), ...written };
  } finally {
    for (const spy of spies) spy.mockRestore();
    process.exitCode = undefined;
  }
}
