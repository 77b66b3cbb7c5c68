/** package-lock.json, as far as it is needed here. */
export interface Lock {
  readonly packages: Readonly<Record<string, { readonly dependencies?: Record<string, string>; readonly optionalDependencies?: Record<string, string> }>>;
}

/** Folders (`node_modules/…`) of some packages and of all that they need, as npm laid them out; `isThere` knows which were installed. */
export function packageFolders(lock: Lock, names: readonly string[], isThere: (folder: string) => boolean): readonly string[] {
  const found = new Set<string>();
  const visit = (name: string, from: string): void => {
    const at = nearest(lock, name, from);
    if (at === null || found.has(at) || !isThere(at)) return;
    found.add(at);
    const { dependencies, optionalDependencies } = lock.packages[at] ?? {};
    for (const next of Object.keys({ ...dependencies, ...optionalDependencies })) visit(next, at);
  };
  for (const name of names) visit(name, '');
  // A folder brings those inside it along.
  return [...found].filter((at) => ![...found].some((other) => at.startsWith(`${other}/`))).sort();
}

/** Where Node would find a package from `from`: in its own node_modules, then in those above; null: nowhere. */
function nearest(lock: Lock, name: string, from: string): string | null {
  for (let at = from; ; at = at.slice(0, Math.max(0, at.lastIndexOf('node_modules/') - 1))) {
    const candidate = `${at === '' ? '' : `${at}/`}node_modules/${name}`;
    if (lock.packages[candidate] !== undefined) return candidate;
    if (at === '') return null;
  }
}
