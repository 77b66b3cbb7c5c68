/**
 * Keys that occur twice in one object of a JSON text, each with the path of that object; `JSON.parse` keeps the last of
 * them and says nothing. The text must be valid JSON.
 *
 * @example
 * ```ts
 * duplicateKeys('{"a":1,"b":{"c":1,"c":2}}'); // [{ inside: ['b'], key: 'c' }]
 * ```
 */
export function duplicateKeys(text: string): { inside: string[]; key: string }[] {
  const found: { inside: string[]; key: string }[] = [];
  const open: { keys: Set<string> | null; key: string }[] = []; // keys is null for an array
  // A string and the colon that makes it a key, or a bracket; everything else has no say in nesting.
  for (const [token, quoted, colon] of text.matchAll(/("(?:[^"\\]|\\.)*")(\s*:)?|[{}[\]]/g)) {
    if (token === '{' || token === '[') open.push({ keys: token === '{' ? new Set() : null, key: '' });
    else if (token === '}' || token === ']') open.pop();
    const top = open.at(-1);
    if (quoted === undefined || colon === undefined || !top?.keys) continue;
    top.key = JSON.parse(quoted) as string;
    if (top.keys.has(top.key)) found.push({ inside: open.slice(0, -1).filter((o) => o.keys).map((o) => o.key), key: top.key });
    top.keys.add(top.key);
  }
  return found;
}
