import { describe, expect, it } from 'vitest';
import { lastStep, parseTimeline, shortName, sumTimeline, type TimelineEvent } from '../../bench/cuda/timeline-events.ts';

const ms = 1e6;
const event = (name: string, start: number, end: number, more: Partial<TimelineEvent> = {}): TimelineEvent => ({ what: 'kernel', name, start, end, inGraph: false, bytes: 0, ...more });

describe("a GPU's timeline", () => {
  it('lines are read in ns from the first start, though nanoseconds since 1970 are more than a number holds', () => {
    const start = 1_795_682_400_000_000_001n;
    const line = (...cells: unknown[]): string => `${cells.join('\t')}\n`;
    const kernel = line('kernel', 'void lowrank::(anonymous namespace)::pass_gate<4>(float const*)', start, start + 3n, 7, 42, 0);
    expect(parseTimeline(kernel + line('copy', 'to the host', start + 5n, start + 7n, 7, 0, 44))).toEqual({
      lost: 0, events: [event('pass_gate<4>', 0, 3, { inGraph: true }), event('to the host', 5, 7, { what: 'copy', bytes: 44 })],
    });
    expect(parseTimeline(line('lost', 5) + kernel)).toMatchObject({ lost: 5, events: [{ name: 'pass_gate<4>' }] });
  });

  it.each([
    { tsv: 'fault\tCUPTI_ERROR_UNKNOWN\n', why: 'CUPTI_ERROR_UNKNOWN' },
    { tsv: '', why: 'an empty file' },
  ])('nothing recorded is no timeline: $why', ({ tsv, why }) => {
    expect(() => parseTimeline(tsv)).toThrow(`timeline: nothing was recorded (${why})`);
  });

  it.each([
    ['nvjet_tst_192x192_TNN', 'nvjet_tst_192x192_TNN'],
    ['void lowrank::map_elements<4, lowrank::(anonymous namespace)::FillBody<float> >((anonymous namespace)::FillBody<float>, long)', 'map_elements<4, FillBody<float> >'],
    ['void at::native::unrolled<at::add(at::T&)::{lambda(float)#1}, std::array<char*, 2ul> >(int, char*)', 'at::native::unrolled<at::add(at::T&)::{lambda(float)#1}, std::array<char*, 2ul> >'],
  ])('a name loses what is no part of it: %s', (name, short) => expect(shortName(name)).toBe(short));

  it('the last step is what ran after the last pause; a copy or two at the end of the process are no step', () => {
    const step = (at: number): TimelineEvent[] => Array.from({ length: 10 }, (_, i) => event(`k${at / ms}`, at + i * ms, at + i * ms + 10));
    const [first, second] = [step(0), step(300 * ms)];
    expect(lastStep([...first, ...second, event('to the host', 600 * ms, 601 * ms, { what: 'copy' })])).toEqual(second);
    expect(lastStep([])).toEqual([]);
  });

  it('launches are summed up by kernel; idle is what nothing covers, behind the one that ended last', () => {
    const { span, idle, shares } = sumTimeline([event('a', 100, 200), event('b', 150, 400), event('a', 450, 500, { inGraph: true }), event('memory', 500, 510, { what: 'fill', bytes: 8 })]);
    expect({ span, idle }).toEqual({ span: 410, idle: 50 });
    expect(shares).toEqual([
      { name: 'b', launches: 1, inGraphs: 0, nanoseconds: 250, idleAfter: 50, bytes: 0 },
      { name: 'a', launches: 2, inGraphs: 1, nanoseconds: 150, idleAfter: 0, bytes: 0 },
      { name: 'fill memory', launches: 1, inGraphs: 0, nanoseconds: 10, idleAfter: 0, bytes: 8 },
    ]);
  });
});
