import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { given } from './examples-given.ts';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

const publicFile = path.join(root, 'src/index.ts');

/** A block of TypeScript in a doc comment or on a page. */
export interface Example {
  /** `src/tape.ts:225` */
  readonly at: string;
  readonly file: string;
  readonly code: string;
}

/** Every example of a file, in order. */
export function examplesOf(file: string): Example[] {
  const text = readFileSync(path.join(root, file), 'utf8');
  return [...text.matchAll(/^( +\* )?```ts\n([\s\S]*?)^(?: +\* )?```$/gm)].map((match) => {
    const [before, mark, body] = [text.slice(0, match.index), match[1], match[2] as string];
    const code = mark === undefined ? body : body.replace(/^ +\* ?/gm, '');
    return { at: `${file}:${before.split('\n').length}`, file, code };
  });
}

/** All TypeScript of the package, from the root of the project. */
export function sourceFiles(): string[] {
  const names = readdirSync(path.join(root, 'src'), { recursive: true, encoding: 'utf8' });
  return names.filter((name) => name.endsWith('.ts')).map((name) => `src/${name.replaceAll(path.sep, '/')}`).sort();
}

const options: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2022,
  lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts'],
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  strict: true,
  noUncheckedIndexedAccess: true,
  exactOptionalPropertyTypes: true,
  skipLibCheck: true,
  noEmit: true,
  allowImportingTsExtensions: true,
  types: ['node'],
  paths: { lowrank: [publicFile] },
};

/** What a reader would write above an example to run it, a line each. */
export interface Complete extends Example {
  readonly above: readonly string[];
}

/**
 * The examples as they can run, and what the compiler has to say of them, a line each. One with an import stands by itself; a fragment may
 * use what its own file, the package or else another file exports, and what is `given`.
 */
export function complete(examples: readonly Example[]): { readonly whole: readonly Complete[]; readonly faults: readonly string[] } {
  const named = examples.map((example, i) => ({ ...example, name: path.join(root, `example-${i}.mts`) }));
  const bare = compile(new Map(named.map(({ name, code }) => [name, textOf(code, [])])));
  const whole = named.map(({ name, file, code, at }) => {
    const missing = /^import /m.test(code) ? [] : missingNames(bare, name);
    return { name, file, code, at, above: missing.flatMap((word) => assumption(bare, word, file)) };
  });
  const checked = compile(new Map(whole.map(({ name, code, above }) => [name, textOf(code, above)])), bare);
  return { whole, faults: whole.flatMap(({ name, at }) => diagnosticsOf(checked, name).map(({ messageText }) => `${at}: ${ts.flattenDiagnosticMessageText(messageText, ' ')}`)) };
}

/** The text of a module that is an example. */
export const textOf = (code: string, above: readonly string[]): string => `${[...above, code].join('\n')}\nexport {};\n`;

/** `before` lends the files that are the same again. */
function compile(texts: ReadonlyMap<string, string>, before?: ts.Program): ts.Program {
  const host = ts.createCompilerHost(options);
  const onDisk = { getSourceFile: host.getSourceFile.bind(host), fileExists: host.fileExists.bind(host), readFile: host.readFile.bind(host) };
  host.fileExists = (name) => texts.has(name) || onDisk.fileExists(name);
  host.readFile = (name) => texts.get(name) ?? onDisk.readFile(name);
  host.getSourceFile = (name, target, ...rest) => {
    const text = texts.get(name);
    if (text !== undefined) return ts.createSourceFile(name, text, target, true);
    return before?.getSourceFile(name) ?? onDisk.getSourceFile(name, target, ...rest);
  };
  return ts.createProgram([...texts.keys(), ...sourceFiles().map((file) => path.join(root, file))], options, host);
}

function diagnosticsOf(program: ts.Program, name: string): readonly ts.Diagnostic[] {
  const file = program.getSourceFile(name);
  return [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)];
}

/** TS2304: "Cannot find name"; 2552: the same with a guess; 18004: `{ name }` without a variable of that name. */
function missingNames(program: ts.Program, name: string): string[] {
  const unknown = diagnosticsOf(program, name).filter(({ code }) => [2304, 2552, 18004].includes(code));
  return [...new Set(unknown.map(({ file, start = 0, length = 0 }) => file?.text.slice(start, start + length) ?? ''))];
}

/** What a reader would write to have this name; nothing if there is no such name. */
function assumption(program: ts.Program, name: string, file: string): string[] {
  const from = (place: string): string[] => [`import { ${name} } from '${place}';`];
  if (exportsOf(program, path.join(root, file)).has(name)) return from(`./${file}`);
  if (exportsOf(program, publicFile).has(name)) return from('lowrank');
  if (name in given) return [`const ${name} = await (await import('./test/examples-given.ts')).given.${name}();`];
  const other = sourceFiles().find((each) => exportsOf(program, path.join(root, each)).has(name));
  return other === undefined ? [] : from(`./${other}`);
}

function exportsOf(program: ts.Program, file: string): ReadonlySet<string> {
  const source = program.getSourceFile(file);
  const checker = program.getTypeChecker();
  const symbol = source && checker.getSymbolAtLocation(source);
  return new Set(symbol ? checker.getExportsOfModule(symbol).map(({ name }) => name) : []);
}
