import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** A memory group (cgroup) below this process's own, so that no limit which holds here is left. */
export interface MemoryGroup {
  /** The command that runs another one inside. */
  readonly enter: readonly string[];
  /** The most bytes it held so far, cached pages of files among them. */
  peak(): number;
  remove(): void;
}

/** How a hierarchy names things. */
interface Hierarchy {
  readonly line: RegExp;
  readonly mount: string;
  readonly limit: string;
  readonly peak: string;
}

const hierarchies: readonly Hierarchy[] = [
  { line: /^\d+:memory:(\/.*)$/m, mount: '/sys/fs/cgroup/memory', limit: 'memory.limit_in_bytes', peak: 'memory.max_usage_in_bytes' },
  { line: /^0::(\/.*)$/m, mount: '/sys/fs/cgroup', limit: 'memory.max', peak: 'memory.peak' },
];

/** A new group with this limit in bytes, or why there can't be one. Linux; needs the right to write below /sys/fs/cgroup. */
export function openMemoryGroup(limit: number): MemoryGroup | string {
  const own = existsSync('/proc/self/cgroup') ? readFileSync('/proc/self/cgroup', 'utf8') : '';
  let why = 'this system has no memory groups';
  for (const hierarchy of hierarchies) {
    const at = hierarchy.line.exec(own)?.[1];
    if (at === undefined) continue;
    const group = path.join(hierarchy.mount, at, `lowrank-bench-${process.pid}`);
    try {
      mkdirSync(group);
    } catch (error) {
      why = `a memory group can't be made (${(error as Error).message})`;
      continue;
    }
    try {
      // Without this file the parent doesn't hand memory down, and writing would make no limit.
      if (!existsSync(path.join(group, hierarchy.limit))) throw new Error(`${path.dirname(group)} doesn't share its memory out`);
      writeFileSync(path.join(group, hierarchy.limit), String(limit));
      return groupAt(group, hierarchy.peak);
    } catch (error) {
      rmdirSync(group);
      why = `a memory group can't be limited (${(error as Error).message})`;
    }
  }
  return why;
}

function groupAt(group: string, peak: string): MemoryGroup {
  return {
    enter: ['sh', '-c', 'echo $$ > "$0" && exec "$@"', path.join(group, 'cgroup.procs')],
    peak: () => Number(readFileSync(path.join(group, peak), 'utf8')),
    remove: () => rmdirSync(group),
  };
}
