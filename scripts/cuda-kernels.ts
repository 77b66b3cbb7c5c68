/**
 * What nvcc made of the CUDA kernels: registers, shared memory and stack of each (a kernel that spills has a stack), and which of them run
 * on tensor cores, read from the machine code in the plugin itself: what `cuobjdump -res-usage -sass` tells, without it.
 *
 *   node --import tsx scripts/cuda-kernels.ts [liblowrank_cuda.so] [arch, 90]
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** A kernel of one architecture. */
export interface Kernel {
  /** Demangled where `c++filt` is there. */
  readonly name: string;
  readonly registers: number;
  /** Bytes of shared memory that it has from the start, of which 1,024 are CUDA's own from sm_90 on; what a launch adds is not known here. */
  readonly shared: number;
  /** Bytes of local memory a thread has: arrays in memory, or spilled registers. */
  readonly stack: number;
  /** Instructions that multiply on tensor cores (HMMA). */
  readonly tensor: number;
}

/** The kernels that a plugin holds for `arch` (90: sm_90 or sm_90a). @throws Error if there are none */
export function readKernels(file: string, arch: number): Kernel[] {
  const found = cubinsOf(readFileSync(file), arch).flatMap(kernelsOf);
  if (found.length === 0) throw new Error(`${file}: must hold machine code for sm_${arch} that is not compressed (found none)`);
  const names = demangled(found.map(({ name }) => name));
  return found.map((kernel, i) => ({ ...kernel, name: names[i] as string }));
}

const fatbinMagic = 0xba55ed50;
const elfMagic = 0x464c457f;

/** A fat binary: a head (magic, version, its size, the size of what follows), then entries, each with a head of its own. */
function cubinsOf(data: Buffer, arch: number): Buffer[] {
  const magic = Buffer.alloc(4);
  magic.writeUInt32LE(fatbinMagic);
  const cubins: Buffer[] = [];
  for (let at = data.indexOf(magic); at >= 0; at = data.indexOf(magic, at + 4)) {
    const begin = at + data.readUInt16LE(at + 6);
    const end = begin + Number(data.readBigUInt64LE(at + 8));
    for (let entry = begin; entry + 64 <= end && end <= data.length; ) {
      const body = entry + data.readUInt32LE(entry + 4);
      const size = Number(data.readBigUInt64LE(entry + 8));
      const isCode = data.readUInt16LE(entry) === 2 && data.readUInt32LE(entry + 28) === arch;
      if (isCode && data.readUInt32LE(body) === elfMagic) cubins.push(data.subarray(body, body + size));
      entry = body + size;
    }
  }
  return cubins;
}

interface Section {
  readonly name: string;
  readonly type: number;
  readonly body: Buffer;
}

function sectionsOf(elf: Buffer): Section[] {
  const [table, size, count, names] = [Number(elf.readBigUInt64LE(0x28)), elf.readUInt16LE(0x3a), elf.readUInt16LE(0x3c), elf.readUInt16LE(0x3e)];
  const heads = Array.from({ length: count }, (_, i) => {
    const at = table + i * size;
    return { name: elf.readUInt32LE(at), type: elf.readUInt32LE(at + 4), begin: Number(elf.readBigUInt64LE(at + 24)), bytes: Number(elf.readBigUInt64LE(at + 32)) };
  });
  const text = heads[names]?.begin ?? 0;
  return heads.map(({ name, type, begin, bytes }) => ({ name: textAt(elf, text + name), type, body: elf.subarray(begin, begin + bytes) }));
}

const textAt = (data: Buffer, at: number): string => data.toString('latin1', at, data.indexOf(0, at));

const attributes = { stack: 0x11, registers: 0x2f } as const;
const noBits = 8; // a section that takes no room in the file
const multiply = 0x23c; // HMMA, in the low 12 bits of an instruction of 16 bytes

function kernelsOf(elf: Buffer): Kernel[] {
  const sections = sectionsOf(elf);
  const [stack, registers] = [attributeOf(sections, attributes.stack), attributeOf(sections, attributes.registers)];
  return sections.filter(({ name }) => name.startsWith('.text.')).map(({ name: section, body }) => {
    const name = section.slice('.text.'.length);
    const shared = sharedBytes(elf, sections, name);
    return { name, registers: registers.get(name) ?? NaN, stack: stack.get(name) ?? 0, shared, tensor: countTensor(body) };
  });
}

/** The size of a section without bits stands in its head alone. */
function sharedBytes(elf: Buffer, sections: readonly Section[], name: string): number {
  const i = sections.findIndex((section) => section.name === `.nv.shared.${name}` && section.type === noBits);
  return i < 0 ? 0 : Number(elf.readBigUInt64LE(Number(elf.readBigUInt64LE(0x28)) + i * elf.readUInt16LE(0x3a) + 32));
}

function countTensor(code: Buffer): number {
  let count = 0;
  for (let at = 0; at + 16 <= code.length; at += 16) count += (code.readUInt16LE(at) & 0xfff) === multiply ? 1 : 0;
  return count;
}

/** An attribute of `.nv.info`, by the kernel's name: its records hold a symbol's number and a value. */
function attributeOf(sections: readonly Section[], wanted: number): Map<string, number> {
  const part = (name: string): Buffer => sections.find((section) => section.name === name)?.body ?? Buffer.alloc(0);
  const [info, symbols, texts] = [part('.nv.info'), part('.symtab'), part('.strtab')];
  const values = new Map<string, number>();
  for (let at = 0; at + 4 <= info.length; ) {
    const [format, attribute, size] = [info[at], info[at + 1], info.readUInt16LE(at + 2)];
    if (attribute === wanted && size === 8) values.set(textAt(texts, symbols.readUInt32LE(24 * info.readUInt32LE(at + 4))), info.readUInt32LE(at + 8));
    at += 4 + (format === 4 ? size : 0);
  }
  return values;
}

function demangled(names: readonly string[]): string[] {
  try {
    return execFileSync('c++filt', { input: names.join('\n'), encoding: 'utf8' }).trimEnd().split('\n').map((name) => name.replace(/^void |lowrank::cuda::|\(anonymous namespace\)::/g, ''));
  } catch {
    return [...names];
  }
}

/** A line for each kernel, its template's cases together. */
export function kernelTable(kernels: readonly Kernel[]): string {
  const groups = new Map<string, Kernel[]>();
  for (const kernel of kernels) groups.set(nameOf(kernel), [...(groups.get(nameOf(kernel)) ?? []), kernel]);
  const rows = [...groups].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, all]) => {
    const onTensor = all.filter(({ tensor }) => tensor > 0).length;
    return [name, String(all.length), range(all, 'registers'), range(all, 'shared'), range(all, 'stack'), onTensor === 0 ? '' : onTensor === all.length ? 'all' : `${onTensor} of ${all.length}`];
  });
  const lines = [['kernel', 'cases', 'registers', 'shared', 'stack', 'tensor cores'], ...rows];
  const widths = lines[0]!.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)));
  return lines.map((line) => line.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  ').trimEnd()).join('\n');
}

const nameOf = ({ name }: Kernel): string => /^\w+/.exec(name)?.[0] ?? name;

function range(kernels: readonly Kernel[], what: 'registers' | 'shared' | 'stack'): string {
  const values = kernels.map((kernel) => kernel[what]);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  return least === most ? String(least) : `${least}-${most}`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [file = 'build/Release/liblowrank_cuda.so', arch = '90'] = process.argv.slice(2);
  const kernels = readKernels(file, Number(arch));
  process.stdout.write(`${kernelTable(kernels)}\n${kernels.length} kernels for sm_${arch}, ${kernels.filter(({ tensor }) => tensor > 0).length} on tensor cores\n`);
}
