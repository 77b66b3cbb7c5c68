import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const child = fileURLToPath(new URL('step.child.mjs', import.meta.url));

/** Exit code, or the signal's name. */
function run(how: string): Promise<number | string> {
  return new Promise((resolve) => {
    const process_ = spawn(process.execPath, [child, how], { stdio: 'ignore' });
    process_.on('exit', (code, signal) => resolve(code ?? signal ?? 'unknown'));
  });
}

it('process.exit() in mid-step is clean, 20 times of 20', async () => {
  for (let i = 0; i < 20; i++) expect(await run('exit')).toBe(0);
});

it('worker.terminate() in mid-step is clean, 20 times of 20', async () => {
  for (let i = 0; i < 20; i++) expect(await run('terminate')).toBe(0);
});

it('an open device does not keep Node alive', async () => {
  expect(await run('idle')).toBe(0);
});
