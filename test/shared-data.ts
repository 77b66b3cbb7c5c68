import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

/** Where the development data set lies: real models, tokenizers and PEFT runs. It is not part of the repository. */
const folder = path.resolve(root, '../shared/data');

/** Whether the shared data set is there; tests that need it use `describe.skipIf(!hasSharedData)`. */
export const hasSharedData = existsSync(path.join(folder, 'SHA256SUMS'));

if (!hasSharedData) console.warn(`shared data: not found at ../shared/data; the tests that need it are not run`);

/** Absolute path of something in the shared data set: `sharedData('models', 'stories260K-fp32')`. */
export function sharedData(...parts: string[]): string {
  return path.join(folder, ...parts);
}
