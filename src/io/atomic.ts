import { mkdir, open, readdir, readlink, rename, rm, stat } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import path from 'node:path';
import { LowrankError } from '../error.ts';

// Names of what is not finished: `.<name>.<stage>-<host>-<pid>-<random>`, beside the target, so that a rename never
// crosses a file system and the owner can be asked after. The dot keeps them out of `checkpoint-*`.
//   tmp   a file being written          new   a folder being built, or built
//   old   the whole former folder       gone  a folder being deleted
type Stage = 'tmp' | 'new' | 'old' | 'gone';

/** Leftovers of an unknown owner (another host on a shared disk) are removed after a day. */
const foreignAgeMs = 24 * 3600 * 1000;

const host = hostname().replace(/[^A-Za-z0-9]/g, '').slice(0, 32) || 'host';

function sibling(target: string, stage: Stage, token: string): string {
  return path.join(path.dirname(target), `.${path.basename(target)}.${stage}-${token}`);
}

function newToken(): string {
  return `${host}-${process.pid}-${randomBytes(4).toString('hex')}`;
}

/**
 * Writes a file so that, whenever the process or the machine stops, the name holds either the old or the new content
 * whole: a sibling is written, flushed and renamed, then the folder is flushed.
 *
 * @throws `ERR_FILE`; the target is untouched then.
 * @example
 * ```ts
 * await writeFileAtomic('trainer_state.json', JSON.stringify(state));
 * ```
 */
export async function writeFileAtomic(file: string, data: string | Uint8Array | Iterable<Uint8Array>): Promise<void> {
  const target = path.resolve(file);
  const temporary = sibling(target, 'tmp', newToken());
  try {
    await sweep(target);
    await writeFlushed(temporary, data);
    await rename(temporary, target);
    await flushFolder(path.dirname(target));
  } catch (cause) {
    await rm(temporary, { force: true });
    throw new LowrankError('ERR_FILE', `${file}: can't be written (${reason(cause)})`, { cause });
  }
}

async function writeFlushed(file: string, data: string | Uint8Array | Iterable<Uint8Array>): Promise<void> {
  const handle = await open(file, 'wx');
  try {
    if (typeof data === 'string' || data instanceof Uint8Array) await handle.writeFile(data);
    else for (const chunk of data) await handle.writeFile(chunk); // writeFile goes on from the handle's position
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * Replaces a folder by one that `build` fills: what is in the folder and isn't built again is gone afterwards. One writer
 * per target at a time.
 *
 * What a kill leaves, by instant (T is the writer's token):
 *
 * | killed                                      | on disk                      | next `recoverFolder`            |
 * |---------------------------------------------|------------------------------|---------------------------------|
 * | while `build` runs or files are flushed     | target (old), `.new-T` part  | removes `.new-T`                |
 * | after target → `.old-T`                     | `.old-T`, `.new-T`, no target| finishes: `.new-T` → target     |
 * | after `.new-T` → target                     | target (new), `.old-T`       | removes `.old-T`                |
 * | while the old folder is being deleted       | target (new), `.gone-T` part | removes `.gone-T`               |
 *
 * In the second state no folder has the target's name, so readers call `recoverFolder` first. `.new-T` is flushed before
 * `.old-T` can exist, so a pair of them means that `.new-T` is whole; `.old-T` is renamed to `.gone-T` before anything in
 * it is deleted, so a folder called `.old-T` is whole too.
 *
 * @throws what `build` throws, or `ERR_FILE`; the old folder is in place then.
 * @example
 * ```ts
 * await replaceFolder('out/checkpoint', async (folder) => { await writeFileAtomic(`${folder}/state.json`, '{}'); });
 * ```
 */
export async function replaceFolder(folder: string, build: (temporary: string) => Promise<void>): Promise<void> {
  const target = await followLinks(folder);
  await recoverFolder(target);
  const found = await stat(target).catch(() => null);
  if (found && !found.isDirectory()) throw new LowrankError('ERR_FILE', `${folder}: must be a folder (it is a file)`);
  const token = newToken();
  const fresh = sibling(target, 'new', token);
  try {
    await mkdir(path.dirname(target), { recursive: true });
    await mkdir(fresh);
    await build(fresh);
    await flushTree(fresh);
    await exchange(target, token);
  } catch (cause) {
    await undo(target, token);
    if (cause instanceof LowrankError || !isErrno(cause)) throw cause;
    throw new LowrankError('ERR_FILE', `${folder}: can't be replaced (${reason(cause)})`, { cause });
  }
}

async function exchange(target: string, token: string): Promise<void> {
  const old = sibling(target, 'old', token);
  const hadOld = await exists(target);
  if (hadOld) await rename(target, old);
  await rename(sibling(target, 'new', token), target).catch(async (cause: unknown) => {
    // A reader's recoverFolder may have finished this rename for us.
    if (!((cause as NodeJS.ErrnoException).code === 'ENOENT' && (await exists(target)))) throw cause;
  });
  await flushFolder(path.dirname(target));
  if (hadOld) await discard(target, old, token);
}

/** Puts things back after a failure that left the process alive. */
async function undo(target: string, token: string): Promise<void> {
  const old = sibling(target, 'old', token);
  if ((await exists(old)) && !(await exists(target))) await rename(old, target);
  await rm(sibling(target, 'new', token), { recursive: true, force: true });
}

async function discard(target: string, leftover: string, token: string): Promise<void> {
  const gone = sibling(target, 'gone', token);
  if (leftover !== gone) await rename(leftover, gone).catch(ignoreMissing);
  await rm(gone, { recursive: true, force: true });
}

/**
 * Mends what an interrupted `replaceFolder` left and removes what dead processes were building; see the table there.
 * Call it before reading a folder that may have been replaced. Does nothing if there is nothing to mend.
 *
 * @throws `ERR_FILE` if the parent folder can't be changed.
 */
export async function recoverFolder(folder: string): Promise<void> {
  const target = await followLinks(folder);
  try {
    const left = await leftovers(target);
    const old = left.find(({ stage }) => stage === 'old');
    if (old && !(await exists(target))) {
      const whole = left.find(({ stage, token }) => stage === 'new' && token === old.token) ?? old;
      await rename(whole.file, target).catch(ignoreMissing);
      await flushFolder(path.dirname(target));
    }
    await sweep(target);
  } catch (cause) {
    throw new LowrankError('ERR_FILE', `${folder}: can't be mended after an interrupted save (${reason(cause)})`, { cause });
  }
}

interface Leftover {
  file: string;
  stage: Stage;
  token: string;
}

async function leftovers(target: string): Promise<Leftover[]> {
  const folder = path.dirname(target);
  const names = await readdir(folder).catch((cause: unknown) => (ignoreMissing(cause), []));
  const prefix = `.${path.basename(target)}.`;
  return names.flatMap((name) => {
    const rest = name.startsWith(prefix) ? name.slice(prefix.length) : '';
    const match = /^(tmp|new|old|gone)-([A-Za-z0-9]+-\d+-[0-9a-f]{8})$/.exec(rest);
    return match ? [{ file: path.join(folder, name), stage: match[1] as Stage, token: match[2] ?? '' }] : [];
  });
}

/** Removes leftovers that nobody is working on. */
async function sweep(target: string): Promise<void> {
  for (const { file, stage, token } of await leftovers(target)) {
    if (await isOwned(file, token)) continue;
    // Without a target the old folder is the only whole one.
    if (stage === 'old' && !(await exists(target))) continue;
    if (stage === 'old') await discard(target, file, token);
    else await rm(file, { recursive: true, force: true });
  }
}

async function isOwned(file: string, token: string): Promise<boolean> {
  const [owner, pid] = [token.split('-')[0], Number(token.split('-')[1])];
  const changed = await stat(file).then((s) => s.mtimeMs, () => 0);
  if (owner !== host) return Date.now() - changed < foreignAgeMs;
  // Containers give every run the same process id: what is older than this process was another's.
  if (pid === process.pid) return changed > Date.now() - process.uptime() * 1000 - 1000;
  try {
    process.kill(pid, 0);
    return true;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** A target that is a link is replaced where it points, so that the new folder lies on the same disk. */
async function followLinks(folder: string): Promise<string> {
  let target = path.resolve(folder);
  // Not realpath: after a kill between the two renames the link points nowhere. 40 is Linux's own limit.
  for (let hops = 0; hops < 40; hops++) {
    const next = await readlink(target).catch(() => null);
    if (next === null) break;
    target = path.resolve(path.dirname(target), next);
  }
  return target;
}

async function flushTree(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const name = path.join(folder, entry.name);
    if (entry.isDirectory()) await flushTree(name);
    else if (entry.isFile()) await flush(name, process.platform === 'win32' ? 'r+' : 'r'); // Windows flushes only what may be written
  }
  await flushFolder(folder);
}

async function flush(file: string, flags: string): Promise<void> {
  const handle = await open(file, flags);
  await handle.sync().finally(() => handle.close());
}

/** Makes renames in a folder last. Windows can't open a folder and doesn't need to. */
async function flushFolder(folder: string): Promise<void> {
  if (process.platform !== 'win32') await flush(folder, 'r');
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(() => true, () => false);
}

function isErrno(cause: unknown): cause is NodeJS.ErrnoException {
  return cause instanceof Error && 'code' in cause;
}

function ignoreMissing(cause: unknown): void {
  if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw cause;
}

function reason(cause: unknown): string {
  return isErrno(cause) ? String(cause.code) : String(cause);
}
