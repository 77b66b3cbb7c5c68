import { describe, expect, it } from 'vitest';
import { nextLossScale } from '../../src/optim/loss-scale.ts';

describe('loss scale', () => {
  it('is halved by each gradient that is not finite, and counts anew', () => {
    expect(nextLossScale({ scale: 65536, goodSteps: 1999 }, false)).toEqual({ scale: 32768, goodSteps: 0 });
  });

  it('is doubled by the 2,000th good step in a row', () => {
    let state = { scale: 1024, goodSteps: 0 };
    for (let step = 0; step < 1999; step++) state = nextLossScale(state, true);
    expect(state).toEqual({ scale: 1024, goodSteps: 1999 });
    expect(nextLossScale(state, true)).toEqual({ scale: 2048, goodSteps: 0 });
  });
});
