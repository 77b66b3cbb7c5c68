// Runs examples, one behind the other, each as a module of its own in a folder of its own: FOLDER, which has examples.json, a list of module
// files, and gets results.json, for each of them null or why it failed.
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { layOut, takeBack } from './examples-given.ts';

const folder = process.argv[2] as string;
const files = JSON.parse(readFileSync(path.join(folder, 'examples.json'), 'utf8')) as string[];

async function faultOf(file: string): Promise<string | null> {
  const place = file.replace(/\.mts$/, '');
  await layOut(place);
  process.chdir(place);
  try {
    await import(pathToFileURL(file).href);
    return null;
  } catch (error) {
    return error instanceof Error ? (error.stack ?? error.message) : String(error);
  } finally {
    takeBack();
  }
}

const results: Record<string, string | null> = {};
for (const file of files) results[file] = await faultOf(file);
writeFileSync(path.join(folder, 'results.json'), JSON.stringify(results));
