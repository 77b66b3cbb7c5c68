// What the tests use of vitest, on Node's own runner: vitest itself comes with programs for the processor it was installed on.
import { ASYMMETRIC_MATCHERS_OBJECT, chai, customMatchers, GLOBAL_EXPECT, JestAsymmetricMatchers, JestChaiExpect, JestExtend, setState } from '@vitest/expect';
import test from 'node:test';
import { format, inspect } from 'node:util';

chai.use(JestExtend);
chai.use(JestChaiExpect);
chai.use(JestAsymmetricMatchers);
export const expect = Object.assign((value, message) => chai.expect(value, message), chai.expect, globalThis[ASYMMETRIC_MATCHERS_OBJECT]);
Object.defineProperty(globalThis, GLOBAL_EXPECT, { value: expect, configurable: true });
setState({ assertionCalls: 0, isExpectingAssertions: false, isExpectingAssertionsError: null, expectedAssertionsNumber: null, expectedAssertionsNumberErrorGen: null }, expect);
chai.expect.extend(expect, customMatchers);

export const { before: beforeAll, after: afterAll, beforeEach, afterEach } = test;

class Skipped extends Error {}

/** context.skip() ends a test here as there. */
function body(run, args = []) {
  return async (context) => {
    const skip = (why) => {
      context.skip(why);
      throw new Skipped();
    };
    try {
      await run(...args, { skip });
    } catch (error) {
      if (!(error instanceof Skipped)) throw error;
    }
  };
}

function titleOf(name, args, i) {
  const [first] = args;
  const named = name.replaceAll('%#', String(i)).replace(/\$([\w.]+)/g, (whole, path) => {
    const value = path.split('.').reduce((inner, key) => inner?.[key], first);
    return value === undefined ? whole : typeof value === 'string' ? value : inspect(value);
  });
  return format(named, ...args.slice(0, (named.match(/%[sdifjoO]/g) ?? []).length));
}

const spread = (row) => (Array.isArray(row) ? row : [row]);
const quiet = { skip: true };

function makeIt(options = {}) {
  const it = (name, run, timeout) => test(name, { timeout: scaled(timeout), ...options }, body(run));
  it.each = (rows) => (name, run, timeout) => rows.forEach((row, i) => test(titleOf(name, spread(row), i), { timeout: scaled(timeout), ...options }, body(run, spread(row))));
  return it;
}

/** An emulated processor is slow; so are limits meant for a real one. */
const scaled = (timeout = 60_000) => (typeof timeout === 'number' ? timeout : 60_000) * 20;

export const it = Object.assign(makeIt(), { skip: makeIt(quiet), skipIf: (skip) => makeIt(skip ? quiet : {}), runIf: (run) => makeIt(run ? {} : quiet) });
export { it as test };

function makeDescribe(options = {}) {
  const describe = (name, run) => test.describe(name, options, run);
  describe.each = (rows) => (name, run) => rows.forEach((row, i) => test.describe(titleOf(name, spread(row), i), options, () => run(...spread(row))));
  return describe;
}

export const describe = Object.assign(makeDescribe(), { skip: makeDescribe(quiet), skipIf: (skip) => makeDescribe(skip ? quiet : {}) });
