import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { crc32c, maskedCrc32c } from '../../src/io/crc32c.ts';
import { openEventFile } from '../../src/train/events.ts';

let folder: string;
beforeEach(() => void (folder = mkdtempSync(path.join(tmpdir(), 'lowrank-events-'))));
afterEach(() => rmSync(folder, { recursive: true }));

describe('CRC-32C', () => {
  // RFC 3720, B.4, and the usual check value.
  const vectors: [string, Uint8Array, number][] = [
    ['no bytes', new Uint8Array(0), 0],
    ['"123456789"', Buffer.from('123456789'), 0xe3069283],
    ['32 zeros', new Uint8Array(32), 0x8a9136aa],
    ['32 times 255', new Uint8Array(32).fill(255), 0x62a8ab43],
    ['0 to 31', Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
    ['31 to 0', Uint8Array.from({ length: 32 }, (_, i) => 31 - i), 0x113fdb5c],
  ];
  test.each(vectors)('of %s is the published one', (_, bytes, crc) => expect(crc32c(bytes)).toBe(crc));

  test('is masked by a rotation of 15 and a constant', () => {
    // In exact integers, without the 32-bit operators.
    const crc = 0xe3069283n;
    expect(BigInt(maskedCrc32c(Buffer.from('123456789')))).toBe((((crc >> 15n) | (crc << 17n)) + 0xa282ead8n) % 2n ** 32n);
  });
});

type Field = { field: number; value: bigint | number | Buffer };

/** A protocol buffer reader that shares nothing with the writer: everything in BigInt, groups by wire type. */
function decode(message: Buffer): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = () => {
    for (let value = 0n, shift = 0n; ; shift += 7n) {
      const byte = message[at++]!;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const key = Number(varint());
    const [field, type] = [key >> 3, key & 7];
    if (type === 0) fields.push({ field, value: varint() });
    else if (type === 1) fields.push({ field, value: message.readDoubleLE((at += 8) - 8) });
    else if (type === 5) fields.push({ field, value: message.readFloatLE((at += 4) - 4) });
    else if (type === 2) {
      const length = Number(varint());
      fields.push({ field, value: message.subarray(at, (at += length)) });
    } else throw new Error(`wire type ${type}`);
  }
  expect(at).toBe(message.length);
  return fields;
}

function unmask(masked: number): number {
  const rotated = (masked - 0xa282ead8) >>> 0;
  return ((rotated >>> 17) | (rotated << 15)) >>> 0;
}

interface Event {
  time: number;
  version?: string;
  step?: number;
  values?: [string, number][];
}

function readEvents(file: string): Event[] {
  const data = readFileSync(file);
  const events: Event[] = [];
  for (let at = 0; at < data.length; ) {
    const length = Number(data.readBigUInt64LE(at));
    expect(unmask(data.readUInt32LE(at + 8))).toBe(crc32c(data.subarray(at, at + 8)));
    const message = data.subarray(at + 12, at + 12 + length);
    expect(unmask(data.readUInt32LE(at + 12 + length))).toBe(crc32c(message));
    events.push(readEvent(message));
    at += length + 16;
  }
  return events;
}

function readEvent(message: Buffer): Event {
  const event: Event = { time: NaN };
  for (const { field, value } of decode(message)) {
    if (field === 1) event.time = value as number;
    if (field === 2) event.step = Number(value);
    if (field === 3) event.version = String(value);
    if (field === 5) event.values = decode(value as Buffer).map(({ value: entry }) => {
      const [tag, scalar] = decode(entry as Buffer);
      expect([tag?.field, scalar?.field]).toEqual([1, 2]);
      return [String(tag?.value), scalar?.value as number];
    });
  }
  return event;
}

describe('event file', () => {
  test('holds the version, then every step as it was given', () => {
    let time = 1_700_000_000_123;
    const events = openEventFile(path.join(folder, 'runs', 'a'), () => time++);
    events.scalars(1, { 'train/loss': 2.5, 'train/lr': 2 ** -12 });
    events.scalars(300, { 'é': -0.0 });
    events.scalars(2 ** 40 + 5, { nan: NaN, up: Infinity, [`long${'g'.repeat(300)}`]: 1e-30 });
    events.scalars(0, {});
    events.close();
    const read = readEvents(events.file);
    expect(read[0]).toEqual({ time: 1_700_000_000.124, version: 'brain.Event:2' });
    expect(read.slice(1).map(({ step, values }) => [step, values])).toEqual([
      [1, [['train/loss', 2.5], ['train/lr', 2 ** -12]]],
      [300, [['é', -0]]],
      [2 ** 40 + 5, [['nan', NaN], ['up', Infinity], [`long${'g'.repeat(300)}`, Math.fround(1e-30)]]],
      [0, []],
    ]);
    expect(read[2]?.time).toBeGreaterThan(read[1]!.time);
  });

  test('is on disk after every step, without close', () => {
    const events = openEventFile(folder);
    for (let step = 1; step <= 3; step++) {
      events.scalars(step, { loss: step });
      expect(readEvents(events.file)).toHaveLength(1 + step);
    }
    events.close();
  });

  test('has a new name for a resumed run, even within the second', () => {
    const files = [0, 1].map(() => {
      const events = openEventFile(folder, () => 1e12);
      events.close();
      return path.basename(events.file);
    });
    expect(new Set(readdirSync(folder))).toEqual(new Set(files));
    expect(files[0]).toMatch(/^events\.out\.tfevents\.1000000000\./);
  });

  test('refuses steps that are none, a closed file and a folder that is a file', () => {
    const events = openEventFile(folder);
    expect(() => events.scalars(-1, {})).toThrow(/step must be/);
    expect(() => events.scalars(1.5, {})).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    events.close();
    events.close();
    expect(() => events.scalars(1, {})).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
    writeFileSync(path.join(folder, 'x'), '');
    expect(() => openEventFile(path.join(folder, 'x'))).toThrow(expect.objectContaining({ code: 'ERR_FILE' }));
  });
});
