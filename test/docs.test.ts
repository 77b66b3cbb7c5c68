import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { root } from './examples.ts';

it('every public name is documented, and every link in a doc comment leads somewhere', async () => {
  const command = path.join(root, 'node_modules/typedoc/bin/typedoc');
  expect(existsSync(command), 'typedoc is installed (npm ci)').toBe(true);
  // Warnings are errors: typedoc.json.
  await promisify(execFile)(process.execPath, [command, '--emit', 'none'], { cwd: root });
}, 120_000);
