import { existsSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

function newest(folder: string): number {
  const names = ['.', ...readdirSync(folder, { recursive: true, encoding: 'utf8' })]; // folders too: theirs tells of files that are gone
  return Math.max(...names.map((name) => statSync(path.join(folder, name)).mtimeMs));
}

/** Whether dist/ was built from src/ as it is. */
export function distIsNew(): boolean {
  const [source, built] = [path.join(root, 'src'), path.join(root, 'dist')];
  return existsSync(built) && newest(source) < newest(built);
}
