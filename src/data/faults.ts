import { LowrankError, throwFaults } from '../error.ts';

/** One that is found in a row, told with its place when it is collected. */
export class RowFault extends Error {}

const MOST = 10;

/** Collects what is wrong in a data file and throws it as one ERR_DATA: at the end, or at once with the tenth fault. */
export interface FaultList {
  add(place: number, fault: string): void;
  /** Throws when there is any. */
  settle(): void;
}

/** @param at what a place is: `file:line` for text files, `file: row n` for tables */
export function faultList(file: string, at: (place: number) => string): FaultList {
  const faults: { place: string; fault: string }[] = [];
  const settle = (): void => {
    if (faults.length === 1) throw new LowrankError('ERR_DATA', `${faults[0]!.place}: ${faults[0]!.fault}`);
    throwFaults('ERR_DATA', file, faults.map(({ place, fault }) => `${place}: ${fault}`));
  };
  return {
    add(place, fault) {
      faults.push({ place: at(place), fault });
      if (faults.length < MOST) return;
      throwFaults('ERR_DATA', file, [...faults.map((f) => `${f.place}: ${f.fault}`), `the rest was not read: ${MOST} faults are enough`]);
    },
    settle,
  };
}

/** How an error names a value it did not expect. */
export function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (value === undefined) return 'nothing';
  return Array.isArray(value) ? 'array' : typeof value;
}
