import { readdirSync, readFileSync } from 'node:fs';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { AdamW, attachLora, loadDataset, loadModel, loadTokenizer, makeBatch, openDevice } from '../src/index.ts';
import { normalizeLoraConfig } from '../src/lora/config.ts';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const base = path.join(root, 'demo/base');
const modelFolder = 'SmolLM-135M';

/** Fills a folder with the files that examples name: a model, two rows to train on (so that the README's 100 steps are short), an adapter. */
export async function layOut(folder: string): Promise<void> {
  await mkdir(folder);
  await mkdir(path.join(folder, modelFolder));
  for (const file of readdirSync(base)) await symlink(path.join(base, file), path.join(folder, modelFolder, file));
  await writeFile(path.join(folder, modelFolder, 'chat_template.jinja'), "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}");
  await symlink(path.join(base, 'model.safetensors'), path.join(folder, 'model.safetensors'));
  const rows = readFileSync(path.join(root, 'demo/data/heldout.jsonl'), 'utf8').split('\n').slice(0, 2);
  await writeFile(path.join(folder, 'train.jsonl'), rows.join('\n'));
  await using device = await openDevice('cpu');
  const bare = await loadModel(path.join(folder, modelFolder), { device });
  await attachLora(bare, { rank: 2, targets: ['q_proj'] }).save(path.join(folder, 'out'));
}

const ends: (() => void)[] = [];

/** Makes something once for an example, however often it is asked for. */
function once<T>(make: () => Promise<T>): () => Promise<T> {
  let one: Promise<T> | undefined;
  return () => {
    if (one === undefined) ends.push(() => (one = undefined));
    return (one ??= make());
  };
}

const device = once(async () => {
  const opened = await openDevice('cpu');
  ends.push(() => opened.close());
  return opened;
});

const model = once(async () => await loadModel(modelFolder, { device: await device() }));
const adapter = once(async () => attachLora(await model(), { rank: 4, targets: 'all-linear' }));
const optimizer = once(async () => new AdamW((await adapter()).parameters(), { lr: 1e-3 }));
const tokenizer = once(async () => await loadTokenizer(modelFolder));
const dataset = once(async () => await loadDataset('train.jsonl', { tokenizer: await tokenizer(), maxLength: 64 }));
const batch = once(async () => makeBatch([(await dataset()).get(0)]));
const config = once(() => Promise.resolve(normalizeLoraConfig({ rank: 4, targets: ['q_proj'] })));
const state = once(() => Promise.resolve({ step: 1 }));

/** What fragments speak of without making it, as the sentences around them have said what it is. */
export const given = { model, adapter, optimizer, tokenizer, dataset, batch, config, state };

/** Ends what was given to an example. */
export function takeBack(): void {
  for (const end of ends.splice(0)) end();
}
