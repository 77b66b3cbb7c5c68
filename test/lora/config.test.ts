import { describe, expect, test } from 'vitest';
import { normalizeLoraConfig, type LoraConfig } from '../../src/lora/config.ts';

describe('LoRA config', () => {
  test('defaults are those of PEFT', () => {
    expect(normalizeLoraConfig()).toEqual({
      rank: 8, alpha: 8, targets: null, dropout: 0, useRslora: false, rankPattern: {}, alphaPattern: {},
      layersToTransform: null, layersPattern: null, excludeModules: null, init: 'kaiming',
    });
  });

  const same: [string, LoraConfig, Record<string, unknown>][] = [
    ['snake case', { rank: 2, alpha: 4, targets: ['q'], dropout: 0.1 }, { r: 2, lora_alpha: 4, target_modules: ['q'], lora_dropout: 0.1 }],
    ['camel case', { alpha: 4, targets: 'all-linear', init: 'gaussian' }, { loraAlpha: 4, targetModules: 'all-linear', initLoraWeights: 'gaussian' }],
    ['true for the usual init', { init: 'kaiming' }, { init_lora_weights: true }],
    ['undefined for what is left out', {}, { rank: undefined, targets: undefined }],
    ['a RegExp', { targets: '(?i).*\\.(?P<part>q|v)_proj' }, { targets: /.*\.(?<part>q|v)_proj/i }],
    ['names given twice', { targets: ['q', 'v'] }, { targets: ['q', 'v', 'q'] }],
  ];
  test.each(same)('takes %s', (_, plain, spelled) => {
    expect(normalizeLoraConfig(spelled)).toEqual(normalizeLoraConfig(plain));
  });

  test('later changes to the input do not reach the config', () => {
    const targets = ['q'];
    const config = normalizeLoraConfig({ targets });
    targets.push('v');
    expect(config.targets).toEqual(['q']);
  });

  const wrong: [Record<string, unknown>, RegExp][] = [
    [{ rank: 0 }, /^LoRA config: rank: must be a whole number of at least 1 \(it is 0\)$/],
    [{ r: 1.5 }, /r: must be a whole number of at least 1 \(it is 1\.5\)/],
    [{ rank: '8' }, /\(it is "8"\)/],
    [{ rank: NaN }, /\(it is NaN\)/],
    [{ alpha: 0 }, /alpha: must be a number other than 0/],
    [{ alpha: Infinity }, /alpha/],
    [{ dropout: 1 }, /dropout: must be at least 0 and below 1 \(it is 1\)/],
    [{ dropout: -0.1 }, /dropout/],
    [{ targets: [] }, /targets: must be a list of names/],
    [{ targets: ['q', 3] }, /targets: must be a list of names/],
    [{ targets: '' }, /targets/],
    [{ targets: '(q' }, /"\(q" is no regular expression/],
    [{ targets: /[^]*q/ }, /\[\^\] has no counterpart in Python/],
    [{ targets: /\p{L}/u }, /the flag u has no counterpart in Python/],
    [{ useRslora: 1 }, /useRslora: must be true or false/],
    [{ rankPattern: ['q'] }, /rankPattern: must be an object of expressions and numbers/],
    [{ rankPattern: { q: 0, v: 2, '(': 3 } }, /"q" must be a whole number of at least 1 \(it is 0\); "\(\.\*\\\\\.\)\?\(\(\)\$" is no/],
    [{ alpha_pattern: { q: 'x' } }, /alpha_pattern: "q" must be a number other than 0/],
    [{ targets: ['q'], layersToTransform: [-1] }, /layersToTransform: must be a layer number/],
    [{ targets: 'all-linear', layersToTransform: [1] }, /layersToTransform: needs a list as targets \(it is "all-linear"\)/],
    [{ target_modules: '.*q', layers_to_transform: 1 }, /layers_to_transform: needs a list as target_modules/],
    [{ targets: ['q'], layersPattern: 'h' }, /layersPattern: needs layersToTransform beside it/],
    [{ init: 'pissa' }, /init: must be "kaiming" or "gaussian" \(it is "pissa"\)/],
    [{ rank: 8, r: 8 }, /r: must be given once \(it is also given as rank\)/],
    [{ ranks: 8 }, /ranks: is no setting of an adapter \(did you mean rank\?\)/],
    [{ target_module: ['q'] }, /did you mean target_modules\?/],
    [{ lora_aplha: 3 }, /did you mean lora_alpha\?/],
    [{ learningRate: 3 }, /learningRate: is no setting of an adapter \(known are rank, alpha, targets, /],
  ];
  test.each(wrong)('refuses %j', (input, says) => {
    expect(() => normalizeLoraConfig(input)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(says) }));
  });

  test('tells all faults at once', () => {
    expect(() => normalizeLoraConfig({ rank: 0, alpha: 'x', dropout: 2, foo: 1 })).toThrow(/rank[^]*alpha[^]*dropout[^]*foo/);
  });
});
