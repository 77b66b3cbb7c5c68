import { describe, expect, test } from 'vitest';
import { fromPython, toPython } from '../../src/io/python-regex.ts';

/** Texts that match, texts that don't; verdicts are those of Python 3.11's `re.fullmatch`. */
const alike: [string, string[], string[]][] = [
  ['a|b', ['a', 'b'], ['ab', '']],
  ['(?P<x>a)(?P=x)', ['aa'], ['a', 'ab']],
  ['(a)(b)\\2\\1', ['abba'], ['abab']],
  ['(a)(?:\\1)0?', ['aa', 'aa0'], ['aa00']],
  ['[]a]+', [']a', 'a'], ['', 'b']],
  ['[^]a]', ['b'], [']', 'a']],
  ['[[a]+', ['[a'], [']']],
  ['[a\\]b]+', ['a]b'], ['\\']],
  ['a{,2}', ['', 'a', 'aa'], ['aaa']],
  ['a{2,}', ['aa', 'aaa'], ['a']],
  ['a{2}', ['aa'], ['a']],
  ['a{x}', ['a{x}'], ['a']],
  ['a{}', ['a{}'], ['a']],
  ['a}]', ['a}]'], ['a']],
  ['\\Aa\\Z', ['a'], ['aa']],
  ['a.c', ['abc', 'a\u2028c'], ['a\nc']],
  ['(?s)a.c', ['a\nc'], ['ac']],
  ['(?i)ABC', ['abc', 'aBc'], ['abd']],
  ['(?:a)(?=b)b(?<=b)(?!c)(?<!a)', ['ab'], ['abc']],
  ['a(?#nothing)b', ['ab'], ['a']],
  ['\\x41\\u0042', ['AB'], ['ab']],
  ['\\.\\-\\_\\/\\ ', ['.-_/ '], ['x-_/ ']],
  ['a+?b*?c??', ['ab', 'abc'], ['b']],
  ['\\w+\\d\\s\\S\\D\\W', ['ab1 ab.'], ['ab1']],
];

describe('Python expressions: match as in Python', () => {
  test.each(alike)('%s', (source, yes, no) => {
    const result = fromPython(source, 'full');
    if ('fault' in result) throw new Error(result.fault);
    for (const text of yes) expect([text, result.regex.test(text)]).toEqual([text, true]);
    for (const text of no) expect([text, result.regex.test(text)]).toEqual([text, false]);
  });

  test('from the start only, for re.match', () => {
    const result = fromPython('a|b', 'start');
    expect('regex' in result && ['ax', 'bx', 'xa'].map((text) => result.regex.test(text))).toEqual([true, true, false]);
  });
});

const refused: [string, RegExp][] = [
  ['(', /is no regular expression/],
  ['a**', /is no regular expression/],
  ['[a', /never closed/],
  ['a\\', /single backslash/],
  ['(?<x>a)', /written \(\?P<name>…\)/],
  ['(a)?(?(1)b|c)', /conditional/],
  ['(?>a)', /atomic/],
  ['a++', /possessive quantifier \+\+/],
  ['a{2}+', /possessive quantifier \{2\}\+/],
  ['(?i:a)', /put \(\?i\) at the start/],
  ['a(?i)b', /must stand at the very start/],
  ['(?x)a b', /\(\?x\) has no JavaScript counterpart/],
  ['(?P>x)', /opens no group that is known/],
  ['\\0', /octal/],
  ['\\q', /\\q is not known to Python/],
  ['\\N{DASH}', /\\N is not translated/],
  ['\\x4', /\\x needs 2 hexadecimal digits/],
];

test.each(refused)('Python expressions: %s is refused', (source, says) => {
  const result = fromPython(source, 'full');
  expect('fault' in result ? result.fault : 'translated').toMatch(says);
});

const written: [RegExp, string][] = [
  [/a\/b/, 'a/b'],
  [/(?<n>a)\k<n>(?<=a)(?<!b)/, '(?P<n>a)(?P=n)(?<=a)(?<!b)'],
  [/a.b/gis, '(?is)a.b'],
];

test.each(written)('%s is written to a file as %s', (regex, source) => {
  expect(toPython(regex)).toEqual({ source });
});
