/** A kernel, a copy or a fill that ran on a GPU, in ns from the first one's start. */
export interface TimelineEvent {
  readonly what: string;
  readonly name: string;
  readonly start: number;
  readonly end: number;
  /** Launched by a CUDA graph. */
  readonly inGraph: boolean;
  /** Of a copy or fill. */
  readonly bytes: number;
}

/** Lines of bench/cuda/timeline.cpp, in the order of their starts, and how many more were lost. @throws Error where it could not record, with why */
export function parseTimeline(tsv: string): { readonly events: readonly TimelineEvent[]; readonly lost: number } {
  const lines = tsv.split('\n').filter((line) => line !== '').map((line) => line.split('\t'));
  const fault = lines.find(([what]) => what === 'fault');
  if (fault !== undefined || lines.length === 0) throw new Error(`timeline: nothing was recorded (${fault?.[1] ?? 'an empty file'})`);
  const lost = Number(lines.find(([what]) => what === 'lost')?.[1] ?? 0);
  const records = lines.filter(([what]) => what !== 'lost');
  const zero = BigInt(records[0]?.[2] ?? 0); // ns since 1970 are more than a number holds
  const events = records.map(([what = '', name = '', start = '', end = '', , node = '', bytes = '']): TimelineEvent => ({
    what, name: shortName(name), start: Number(BigInt(start) - zero), end: Number(BigInt(end) - zero), inGraph: node !== '0', bytes: Number(bytes),
  }));
  return { events, lost };
}

/** A demangled name without what it returns, what it takes and where it lies: `lowrank::(anonymous namespace)::f<4>(int)` is `f<4>`. */
export function shortName(name: string): string {
  const plain = name.replace(/\(anonymous namespace\)::|lowrank::/g, '').replace(/^void /, '');
  let depth = 0;
  for (const [i, character] of [...plain].entries()) {
    if (character === '<') depth++;
    else if (character === '>') depth--;
    else if (character === '(' && depth === 0) return plain.slice(0, i);
  }
  return plain;
}

/** No step pauses that long; whoever asks for steps does between them. */
export const pauseBetweenSteps = 50e6;

/** What ran after the last pause but that of a process that ends, which may still copy a little. */
export function lastStep(events: readonly TimelineEvent[]): readonly TimelineEvent[] {
  const steps: TimelineEvent[][] = [];
  let reached = -Infinity;
  for (const event of events) {
    if (event.start - reached >= pauseBetweenSteps) steps.push([]);
    steps.at(-1)?.push(event);
    reached = Math.max(reached, event.end);
  }
  const most = Math.max(0, ...steps.map((step) => step.length));
  return steps.filter((step) => step.length > most / 4).at(-1) ?? [];
}

/** What one kernel (or kind of copy) took in a step. */
export interface TimelineShare {
  readonly name: string;
  readonly launches: number;
  readonly inGraphs: number;
  readonly nanoseconds: number;
  /** From its end to the next start, where nothing else ran meanwhile. */
  readonly idleAfter: number;
  readonly bytes: number;
}

export interface TimelineSum {
  readonly span: number;
  readonly idle: number;
  readonly shares: readonly TimelineShare[]; // longest first
}

/** By name, of events in the order of their starts. */
export function sumTimeline(events: readonly TimelineEvent[]): TimelineSum {
  const idleAfter = idleTimes(events);
  const shares = new Map<string, TimelineShare>();
  for (const [i, event] of events.entries()) {
    const name = event.what === 'kernel' ? event.name : `${event.what} ${event.name}`;
    const sum = shares.get(name) ?? { name, launches: 0, inGraphs: 0, nanoseconds: 0, idleAfter: 0, bytes: 0 };
    shares.set(name, {
      name, launches: sum.launches + 1, inGraphs: sum.inGraphs + Number(event.inGraph), nanoseconds: sum.nanoseconds + event.end - event.start,
      idleAfter: sum.idleAfter + (idleAfter[i] ?? 0), bytes: sum.bytes + event.bytes,
    });
  }
  const span = events.reduce((end, event) => Math.max(end, event.end), 0) - (events[0]?.start ?? 0);
  return { span, idle: idleAfter.reduce((total, each) => total + each, 0), shares: [...shares.values()].sort((a, b) => b.nanoseconds - a.nanoseconds) };
}

/** Of each event, how long nothing ran once it, the last to run, had ended. */
function idleTimes(events: readonly TimelineEvent[]): readonly number[] {
  const idle = events.map(() => 0);
  let last = 0;
  for (const [i, event] of events.entries()) {
    const ended = events[last]?.end ?? 0;
    if (i > 0 && event.start > ended) idle[last] = event.start - ended;
    if (event.end >= ended) last = i;
  }
  return idle;
}
