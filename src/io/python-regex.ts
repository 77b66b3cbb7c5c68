/**
 * Python `re` in a PEFT file, JavaScript `RegExp` here. What both spell alike passes, what only Python spells otherwise is
 * translated, and what JavaScript can't say is refused. `\d`, `\w`, `\s` keep JavaScript's ASCII meaning: module names are
 * identifiers.
 */
export type Translated = { regex: RegExp } | { fault: string };

/** Where the expression must match: the whole text (`re.fullmatch`) or from its start on (`re.match`). */
export type Anchor = 'full' | 'start';

/**
 * @example
 * ```ts
 * const result = fromPython('.*layers\\.(?P<n>\\d+)\\.mlp', 'full');
 * if ('regex' in result) result.regex.test('model.layers.3.mlp'); // true
 * ```
 */
export function fromPython(source: string, anchor: Anchor): Translated {
  const state: State = { source, at: 0, flags: '', fault: null };
  readLeadingFlags(state);
  let body = '';
  while (state.at < source.length && state.fault === null) body += nextPiece(state);
  if (state.fault !== null) return { fault: `${quote(source)}: ${state.fault}` };
  try {
    return { regex: new RegExp(anchor === 'full' ? `^(?:${body})$` : `^(?:${body})`, state.flags) };
  } catch (cause) {
    return { fault: `${quote(source)} is no regular expression (${(cause as Error).message})` };
  }
}

interface State {
  source: string;
  at: number;
  flags: string;
  fault: string | null;
}

function refuse(state: State, fault: string): string {
  state.fault ??= fault;
  return '';
}

/** `(?i)` at the very start, the only place where Python takes it. */
function readLeadingFlags(state: State): void {
  const match = /^\(\?([aiLmsux]+)\)/.exec(state.source);
  if (!match) return;
  for (const flag of match[1] ?? '') {
    if (flag === 'i' || flag === 'm' || flag === 's') state.flags += state.flags.includes(flag) ? '' : flag;
    else if (flag !== 'a' && flag !== 'u') refuse(state, `the flag (?${flag}) has no JavaScript counterpart`);
  }
  state.at = match[0].length;
}

function nextPiece(state: State): string {
  const { source, at } = state;
  const char = source[at] ?? '';
  if (char === '\\') return escape(state, false);
  if (char === '[') return characterClass(state);
  if (source.startsWith('(?', at)) return group(state);
  if ('*+?'.includes(char) && source[at + 1] === '+' && at > 0) return refuse(state, `the possessive quantifier ${char}+ has no JavaScript counterpart`);
  if (char === '{') return brace(state);
  state.at++;
  // JavaScript's dot also stops at U+2028 and its like.
  return char === '.' ? (state.flags.includes('s') ? '[^]' : '[^\\n]') : char === '}' || char === ']' ? `\\${char}` : char;
}

/** `{,3}` is a quantifier in Python only; `{` that opens no quantifier is itself in both. */
function brace(state: State): string {
  const match = /^\{(\d*)(,?)(\d*)\}(\+?)/.exec(state.source.slice(state.at));
  if (!match || (match[1] === '' && match[3] === '')) {
    state.at++;
    return '\\{';
  }
  if (match[4] === '+') return refuse(state, `the possessive quantifier ${match[0]} has no JavaScript counterpart`);
  state.at += match[0].length;
  return `{${match[1] || '0'}${match[2]}${match[3]}}`;
}

function group(state: State): string {
  const rest = state.source.slice(state.at);
  const plain = /^\(\?(?::|=|!|<=|<!)/.exec(rest);
  const named = /^\(\?P<([A-Za-z_]\w*)>/.exec(rest);
  const reference = /^\(\?P=([A-Za-z_]\w*)\)/.exec(rest);
  const comment = /^\(\?#[^)]*\)/.exec(rest);
  state.at += (plain ?? named ?? reference ?? comment)?.[0].length ?? 0;
  if (plain) return plain[0];
  if (named) return `(?<${named[1]}>`;
  if (reference) return `\\k<${reference[1]}>`;
  if (comment) return '';
  if (/^\(\?<[A-Za-z_]/.test(rest)) return refuse(state, 'a named group is written (?P<name>…), as in Python');
  if (/^\(\?\(/.test(rest)) return refuse(state, 'the conditional (?(…)…) has no JavaScript counterpart');
  if (/^\(\?>/.test(rest)) return refuse(state, 'the atomic group (?>…) has no JavaScript counterpart');
  if (/^\(\?[a-zA-Z-]+:/.test(rest)) return refuse(state, 'flags for one group, as in (?i:…), have no JavaScript counterpart; put (?i) at the start');
  if (/^\(\?[a-zA-Z]+\)/.test(rest)) return refuse(state, 'flags such as (?i) must stand at the very start');
  return refuse(state, `${quote(rest.slice(0, 4))} opens no group that is known`);
}

const anchors: Record<string, string> = { A: '(?<![^])', Z: '(?![^])' };

function escape(state: State, inClass: boolean): string {
  const char = state.source[state.at + 1];
  if (char === undefined) return refuse(state, 'ends in a single backslash');
  state.at += 2;
  if (char === 'a') return '\\x07';
  if (!inClass && char in anchors) return anchors[char] ?? '';
  if (/[dDwWsSnrtfv]/.test(char) || char === 'b' || (char === 'B' && !inClass)) return `\\${char}`;
  if (char === 'x' || char === 'u') return codePoint(state, char, char === 'x' ? 2 : 4);
  if (char === '0' || (inClass && /\d/.test(char))) return refuse(state, 'octal escapes are not translated; use \\x…');
  if (/[1-9]/.test(char)) return backReference(state, char);
  if (/[A-Za-z]/.test(char)) return refuse(state, `the escape \\${char} ${/[NU]/.test(char) ? 'is not translated; use \\u…' : 'is not known to Python'}`);
  return /[\^$\\.*+?()[\]{}|/-]/.test(char) ? `\\${char}` : char;
}

function codePoint(state: State, letter: string, digits: number): string {
  const hex = new RegExp(`^[0-9A-Fa-f]{${digits}}`).exec(state.source.slice(state.at));
  if (!hex) return refuse(state, `\\${letter} needs ${digits} hexadecimal digits`);
  state.at += digits;
  return `\\${letter}${hex[0]}`;
}

function backReference(state: State, first: string): string {
  const more = /^\d*/.exec(state.source.slice(state.at))?.[0] ?? '';
  state.at += more.length;
  // In a group, so that a digit behind it stays a digit.
  return `(?:\\${first}${more})`;
}

/** `[]a]` holds a bracket in Python and is empty in JavaScript. */
function characterClass(state: State): string {
  const { source } = state;
  let text = source[state.at + 1] === '^' ? '[^' : '[';
  state.at += text.length;
  for (let first = true; state.fault === null; first = false) {
    const char = source[state.at];
    if (char === undefined) return refuse(state, 'has a "[" that is never closed');
    if (char === ']' && !first) break;
    if (char === '\\') text += escape(state, true);
    else {
      text += char === '[' || char === ']' ? `\\${char}` : char;
      state.at++;
    }
  }
  state.at++;
  return `${text}]`;
}

function quote(source: string): string {
  return JSON.stringify(source.length > 80 ? `${source.slice(0, 80)}…` : source);
}

/**
 * A JavaScript expression in Python's spelling, for the config that PEFT reads.
 *
 * @example
 * ```ts
 * toPython(/.*\.(q|v)_proj/i); // { source: '(?i).*\\.(q|v)_proj' }
 * ```
 */
export function toPython({ source, flags }: RegExp): { source: string } | { fault: string } {
  const only = (text: string) => ({ fault: `/${source}/${flags}: ${text} has no counterpart in Python, which PEFT reads` });
  const odd = /[uv]/.exec(flags);
  if (odd) return only(`the flag ${odd[0]}`);
  const construct = /\[\^?\]|\\[cpP]|\(\?[a-z-]+:/.exec(source);
  if (construct) return only(construct[0]);
  const kept = [...'ims'].filter((flag) => flags.includes(flag)).join('');
  const body = source
    .replace(/\\k<(\w+)>/g, '(?P=$1)')
    .replace(/\(\?<(?![=!])/g, '(?P<')
    .replace(/\\\//g, '/');
  return { source: kept ? `(?${kept})${body}` : body };
}
