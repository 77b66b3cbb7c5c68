import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, readdir, rename, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { recoverFolder, replaceFolder, writeFileAtomic } from '../../src/io/atomic.ts';

/** Lets a test act right behind a rename, where another process could. */
const afterRename = vi.hoisted(() => ({ hook: null as ((to: string) => Promise<void>) | null }));
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>();
  return { ...real, rename: (from: string, to: string) => real.rename(from, to).then(() => afterRename.hook?.(to)) };
});

let root: string;
let target: string;
beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), 'lowrank-atomic-'));
  target = path.join(root, 'checkpoint');
});
afterEach(() => rm(root, { recursive: true, force: true }));

const put = (folder: string, text: string) => writeFile(path.join(folder, 'state'), text);
const state = (folder = target) => readFile(path.join(folder, 'state'), 'utf8');

/** Names that a process of this machine, dead by now, would have used; 2^30 is past every kernel's largest process id. */
async function deadSibling(stage: string): Promise<string> {
  let name = '';
  await replaceFolder(path.join(root, 'probe'), async (temporary) => void (name = path.basename(temporary)));
  await rm(path.join(root, 'probe'), { recursive: true });
  const [, host] = /\.new-([A-Za-z0-9]+)-\d+-[0-9a-f]{8}$/.exec(name)!;
  return path.join(root, `.checkpoint.${stage}-${host}-${2 ** 30}-0123abcd`);
}

async function folderAt(name: string, text: string): Promise<void> {
  await mkdir(name);
  await put(name, text);
}

describe('writeFileAtomic', () => {
  test('writes text, bytes and chunks, and leaves nothing beside', async () => {
    const file = path.join(root, 'f');
    await writeFileAtomic(file, 'é');
    expect(await readFile(file, 'utf8')).toBe('é');
    await writeFileAtomic(file, new Uint8Array([1, 2]));
    expect([...(await readFile(file))]).toEqual([1, 2]);
    await writeFileAtomic(file, [new Uint8Array([1, 2]), new Uint8Array(0), new Uint8Array([3])]);
    expect([...(await readFile(file))]).toEqual([1, 2, 3]);
    expect(await readdir(root)).toEqual(['f']);
  });

  test('a failure half way leaves the old content and no temporary', async () => {
    const file = path.join(root, 'f');
    await writeFileAtomic(file, 'old');
    const failing = function* () {
      yield new Uint8Array(10);
      throw new Error('no more');
    };
    await expect(writeFileAtomic(file, failing())).rejects.toMatchObject({ code: 'ERR_FILE', message: expect.stringContaining('no more') });
    expect(await readFile(file, 'utf8')).toBe('old');
    expect(await readdir(root)).toEqual(['f']);
  });

  test('a folder that does not exist is told with its cause', async () => {
    await expect(writeFileAtomic(path.join(root, 'none', 'f'), '')).rejects.toMatchObject({ code: 'ERR_FILE', message: expect.stringContaining('ENOENT') });
  });

  test('temporaries of dead processes go, those of other files stay', async () => {
    const dead = (await deadSibling('tmp')).replace('.checkpoint.', '.f.');
    await writeFile(dead, '');
    await writeFile(path.join(root, '.f.tmp-notes'), '');
    await writeFileAtomic(path.join(root, 'f'), '');
    expect((await readdir(root)).sort()).toEqual(['.f.tmp-notes', 'f']);
  });
});

describe('replaceFolder', () => {
  test('makes, then replaces the folder as a whole', async () => {
    await replaceFolder(target, async (folder) => {
      await put(folder, '1');
      await put(folder, '1');
      await writeFile(path.join(folder, 'extra'), '');
    });
    await replaceFolder(target, (folder) => put(folder, '2'));
    expect(await state()).toBe('2');
    expect(await readdir(target)).toEqual(['state']);
    expect(await readdir(root)).toEqual(['checkpoint']);
  });

  test('makes missing parents', async () => {
    await replaceFolder(path.join(root, 'x', 'y'), (folder) => put(folder, '1'));
    expect(await state(path.join(root, 'x', 'y'))).toBe('1');
  });

  test('an error in build comes out as it is, and the old folder stays', async () => {
    await folderAt(target, 'old');
    const error = new Error('disk of the user');
    await expect(replaceFolder(target, async (folder) => {
      await put(folder, 'half');
      throw error;
    })).rejects.toBe(error);
    expect(await state()).toBe('old');
    expect(await readdir(root)).toEqual(['checkpoint']);
  });

  test('readers see the old folder until the new one is whole', async () => {
    await folderAt(target, 'old');
    await replaceFolder(target, async (folder) => {
      await put(folder, 'new');
      await recoverFolder(target); // a reader in another process
      expect(await state()).toBe('old');
    });
    expect(await state()).toBe('new');
  });

  test('goes on when a reader finishes its renames for it', async () => {
    await folderAt(target, 'old');
    afterRename.hook = async (to) => {
      if (!to.includes('.old-')) return;
      afterRename.hook = null;
      await recoverFolder(target); // a reader in another process, between the two renames
      expect(await state()).toBe('new');
    };
    await replaceFolder(target, (folder) => put(folder, 'new'));
    expect(afterRename.hook).toBeNull();
    expect(await state()).toBe('new');
    expect(await readdir(root)).toEqual(['checkpoint']);
  });

  test('a failure between the renames puts the old folder back', async () => {
    await folderAt(target, 'old');
    afterRename.hook = async (to) => {
      afterRename.hook = null;
      if (to.includes('.old-')) throw Object.assign(new Error('unplugged'), { code: 'EIO' });
    };
    await expect(replaceFolder(target, (folder) => put(folder, 'new'))).rejects.toMatchObject({ code: 'ERR_FILE', message: expect.stringContaining('EIO') });
    expect(await state()).toBe('old');
    expect(await readdir(root)).toEqual(['checkpoint']);
  });

  test('a file in the way is refused', async () => {
    await writeFile(target, '');
    await expect(replaceFolder(target, async () => {})).rejects.toThrow(/must be a folder \(it is a file\)/);
  });

  test('a link stays a link, also after a kill between the renames', async () => {
    await folderAt(path.join(root, 'real'), 'old');
    await symlink('real', target);
    await replaceFolder(target, (folder) => put(folder, 'new'));
    expect(await state(path.join(root, 'real'))).toBe('new');
    const old = (await deadSibling('old')).replace('.checkpoint.', '.real.');
    await rename(path.join(root, 'real'), old);
    await folderAt(old.replace('.old-', '.new-'), 'newer');
    await replaceFolder(target, async (folder) => put(folder, `after ${await state()}`));
    expect(await state()).toBe('after newer');
  });
});

describe('recoverFolder: a kill', () => {
  test('while building: the part is removed, the old folder stays', async () => {
    await folderAt(target, 'old');
    await folderAt(await deadSibling('new'), 'half');
    await recoverFolder(target);
    expect(await state()).toBe('old');
    expect(await readdir(root)).toEqual(['checkpoint']);
  });

  test('while building the first folder: nothing is left, nothing is made up', async () => {
    await folderAt(await deadSibling('new'), 'half');
    await recoverFolder(target);
    expect(await readdir(root)).toEqual([]);
  });

  test('between the renames: the new folder takes the place', async () => {
    await folderAt(await deadSibling('old'), 'old');
    await folderAt(await deadSibling('new'), 'new');
    await recoverFolder(target);
    expect(await state()).toBe('new');
    expect(await readdir(root)).toEqual(['checkpoint']);
  });

  test('behind the renames: the old folder is removed', async () => {
    await folderAt(target, 'new');
    await folderAt(await deadSibling('old'), 'old');
    await recoverFolder(target);
    expect(await state()).toBe('new');
    expect(await readdir(root)).toEqual(['checkpoint']);
  });

  test('while deleting: the rest is removed', async () => {
    await folderAt(target, 'new');
    await mkdir(await deadSibling('gone'));
    await recoverFolder(target);
    expect(await readdir(root)).toEqual(['checkpoint']);
  });

  test('that left only the old folder under its other name: it comes back', async () => {
    await folderAt(await deadSibling('old'), 'old');
    await recoverFolder(target);
    expect(await state()).toBe('old');
    expect(await readdir(root)).toEqual(['checkpoint']);
  });

  test('on another host: its leftovers stay for a day', async () => {
    const foreign = path.join(root, '.checkpoint.new-elsewhere-7-0123abcd');
    await mkdir(foreign);
    await recoverFolder(target);
    expect(await readdir(root)).toHaveLength(1);
  });

  test('of a run that had the process id of this one: what is older than this process goes, what is younger stays', async () => {
    const [before, since] = [await deadSibling('new'), await deadSibling('tmp')].map((name) => name.replace(String(2 ** 30), String(process.pid)));
    await mkdir(before!);
    await mkdir(since!);
    await utimes(before!, 0, 0);
    await recoverFolder(target);
    expect(await readdir(root)).toEqual([path.basename(since!)]);
  });

  test('in a missing parent folder: nothing to do', async () => {
    await expect(recoverFolder(path.join(root, 'none', 'x'))).resolves.toBeUndefined();
  });
});

test('kill -9 at any moment leaves a whole folder', async () => {
  const script = fileURLToPath(new URL('replace-forever.ts', import.meta.url));
  let turn = 0;
  for (let kill = 0; kill < 3; kill++) {
    const child = spawn(process.execPath, ['--import', 'tsx', script, target, String(turn)], { stdio: ['ignore', 'pipe', 'inherit'] });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    await new Promise((resolve) => child.stdout.once('data', resolve));
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 40));
    child.kill('SIGKILL');
    await ended;
    await recoverFolder(target);
    const contents = await Promise.all(['a', 'b', 'inner/c'].map((name) => readFile(path.join(target, name), 'utf8')));
    expect(new Set(contents).size).toBe(1);
    expect(Number(contents[0])).toBeGreaterThanOrEqual(turn);
    expect(await readdir(root)).toEqual(['checkpoint']);
    turn = Number(contents[0]);
  }
});
