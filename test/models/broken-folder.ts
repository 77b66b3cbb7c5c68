import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Json } from '../../src/models/config-reader.ts';
import { goldenPath } from '../golden/read.ts';
import { safetensorsBytes } from '../io/safetensors-bytes.ts';

type Entry = { dtype: string; shape: number[]; data_offsets: [number, number] };

/** What a test breaks in a copy of a golden model. */
export interface Damage {
  /** Keys to set in config.json; undefined takes one out. */
  config?: Readonly<Record<string, unknown>>;
  /** Changes the header's entries: by name, as the file has them. */
  weights?: (tensors: Map<string, Entry>) => void;
  /** Anything else. */
  folder?: (folder: string) => void;
}

/** A copy of a golden model with this damage; `remove` deletes it. */
export function brokenFolder(model: string, { config, weights, folder }: Damage): { path: string; remove: () => void } {
  const copy = mkdtempSync(path.join(tmpdir(), 'lowrank-broken-'));
  cpSync(goldenPath('families', model), copy, { recursive: true });
  if (config) editConfig(path.join(copy, 'config.json'), config);
  if (weights) editWeights(path.join(copy, 'model.safetensors'), weights);
  folder?.(copy);
  return { path: copy, remove: () => rmSync(copy, { recursive: true, force: true }) };
}

function editConfig(file: string, changes: Readonly<Record<string, unknown>>): void {
  const before = JSON.parse(readFileSync(file, 'utf8')) as Json;
  writeFileSync(file, JSON.stringify({ ...before, ...changes })); // undefined is not written
}

/** Writes the tensors that are left anew, one behind the other, with zeros where their bytes were changed in number. */
function editWeights(file: string, edit: (tensors: Map<string, Entry>) => void): void {
  const bytes = readFileSync(file);
  const headerBytes = Number(bytes.readBigUInt64LE(0));
  const { __metadata__: metadata, ...entries } = JSON.parse(bytes.toString('utf8', 8, 8 + headerBytes)) as Record<string, Entry>;
  const tensors = new Map(Object.entries(entries));
  edit(tensors);
  const size = (entry: Entry): number => entry.shape.reduce((n, dim) => n * dim, entry.dtype === 'F32' ? 4 : entry.dtype === 'F64' ? 8 : entry.dtype === 'I8' ? 1 : 2);
  let end = 0;
  const pieces: Buffer[] = [];
  const header: Record<string, unknown> = { __metadata__: metadata };
  for (const [name, entry] of tensors) {
    const piece = Buffer.alloc(size(entry));
    bytes.copy(piece, 0, 8 + headerBytes + entry.data_offsets[0], 8 + headerBytes + Math.min(entry.data_offsets[1], entry.data_offsets[0] + piece.length));
    header[name] = { ...entry, data_offsets: [end, end + piece.length] };
    end += piece.length;
    pieces.push(piece);
  }
  writeFileSync(file, safetensorsBytes(JSON.stringify(header), Buffer.concat(pieces)));
}
