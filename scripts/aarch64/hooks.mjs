// node --import hooks.mjs some.test.ts: Node runs TypeScript itself; `vitest` is the file beside this one, `lowrank` the sources.
import { registerHooks } from 'node:module';

const places = new Map([['vitest', './vitest.mjs'], ['lowrank', '../../src/index.ts']]);

registerHooks({
  resolve(name, context, next) {
    const place = places.get(name);
    return place === undefined ? next(name, context) : { url: new URL(place, import.meta.url).href, shortCircuit: true };
  },
});
