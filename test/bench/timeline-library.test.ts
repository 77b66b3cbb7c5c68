import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { parseTimeline } from '../../bench/cuda/timeline-events.ts';
import { hasProgram, root, run } from '../capi/native.ts';

const headers = ['/usr/local/cuda/include', '/usr/local/cuda/extras/CUPTI/include', '/usr/local/cuda-13.0/include'].find((folder) => existsSync(path.join(folder, 'cupti.h')));
const canCompile = process.platform === 'linux' && headers !== undefined && hasProgram('c++');
if (!canCompile) console.warn("timeline: CUPTI's headers or a C++ compiler are missing; its library is not tested");

describe.skipIf(!canCompile)('the library that records a timeline', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'lowrank-timeline-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const compile = (source: string, name: string, ...flags: string[]): string => {
    const file = path.join(folder, name);
    run('c++', ['-std=c++17', '-Wall', '-Wextra', '-Werror', '-isystem', headers as string, ...flags, path.join(root, source), '-ldl', '-o', file]);
    return file;
  };

  it('what CUPTI delivers at the end of a process is a file, by the starts; what it refuses is told there', () => {
    const library = compile('bench/cuda/timeline.cpp', 'timeline.so', '-shared', '-fPIC');
    compile('test/bench/cupti/stand_in.cpp', 'libcupti.so.13', '-shared', '-fPIC');
    const program = compile('test/bench/cupti/process.cpp', 'process');
    const file = path.join(folder, 'timeline.tsv');
    const timeline = (env: Record<string, string>): ReturnType<typeof parseTimeline> => {
      run(program, [library], { env: { LD_LIBRARY_PATH: folder, ...env } });
      return parseTimeline(readFileSync(file, 'utf8'));
    };
    expect(timeline({ LOWRANK_TIMELINE: file })).toEqual({
      lost: 3,
      events: [
        { what: 'kernel', name: 'nvjet_tst', start: 0, end: 500, inGraph: false, bytes: 0 },
        { what: 'kernel', name: 'pass_gate', start: 1000, end: 2000, inGraph: true, bytes: 0 },
        { what: 'copy', name: 'to the host', start: 2000, end: 2100, inGraph: false, bytes: 44 },
        { what: 'fill', name: 'memory', start: 3000, end: 3100, inGraph: false, bytes: 12 },
      ],
    });
    expect(() => timeline({ LOWRANK_TIMELINE: file, STAND_IN_REFUSES: '1' })).toThrow('nothing was recorded (CUPTI_ERROR_NOT_INITIALIZED)');
    rmSync(file);
    expect(() => timeline({})).toThrow('ENOENT');
  }, 60_000);
});
