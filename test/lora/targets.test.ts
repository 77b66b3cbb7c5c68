import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { normalizeLoraConfig } from '../../src/lora/config.ts';
import { minimalTargets, selectTargets } from '../../src/lora/targets.ts';

interface Golden {
  names: Record<string, string[]>;
  cases: { model: string; config: Record<string, unknown>; selected: Record<string, [number, number, number]> | null }[];
}

// Written by test/golden/targets.py with PEFT 0.21.
const golden = JSON.parse(readFileSync(new URL('../golden/targets.json', import.meta.url), 'utf8')) as Golden;
const heads: Record<string, string | null> = { llama: 'lm_head', gpt2: 'lm_head', odd: null };

describe('selectTargets: adapts the layers that PEFT adapts', () => {
  test.each(golden.cases)('$model $config', ({ model, config, selected }) => {
    const names = golden.names[model]!;
    const select = () => selectTargets(names, normalizeLoraConfig(config), { outputHead: heads[model] ?? null });
    if (selected === null) return expect(select).toThrow(/LoRA config: /);
    const found = [...select()].map(([name, { rank, alpha, scale }]) => [name, [rank, alpha, scale]]);
    expect(Object.fromEntries(found)).toEqual(selected);
  });
});

const llama = golden.names['llama']!;

describe('selectTargets: no match', () => {
  const select = (config: object, names = llama) => () => selectTargets(names, normalizeLoraConfig(config), { outputHead: 'lm_head' });

  test('names what there is, numbers gathered', () => {
    expect(select({ targets: ['query'] })).toThrow(/\["query"\] matches none; there are model\.layers\.\{0…2\}\.self_attn\.q_proj, .*lm_head/);
  });

  test('an expression that matches parts of names is told to begin with .*', () => {
    expect(select({ targets: /(q|v)_proj/ })).toThrow(/must match a whole name: begin it with "\.\*"/);
    expect(select({ targets: /query/ })).toThrow(/"query" matches none; there/);
  });

  test('an exclusion that leaves nothing is told as such', () => {
    expect(select({ targets: ['q_proj'], excludeModules: /.*attn.*/ })).toThrow(/excludeModules leaves none/);
  });

  test('a long list of names is cut', () => {
    const names = Array.from({ length: 100 }, (_, i) => `block.${String.fromCharCode(97 + (i % 26))}${'x'.repeat(i / 26)}`);
    expect(select({ targets: ['query'] }, names)).toThrow(/and 88 more\)$/);
    expect(select({ targets: ['query'] }, [])).toThrow(/no linear layers at all/);
  });

  test('without targets the usual ones of the model are taken, and missed if there are none', () => {
    const config = normalizeLoraConfig({});
    expect(selectTargets(llama, config, { outputHead: null, defaultTargets: ['v_proj'] }).size).toBe(3);
    expect(() => selectTargets(llama, config, { outputHead: null })).toThrow(/targets must be given/);
  });
});

describe('minimalTargets', () => {
  test('all-linear becomes the last words of the names', () => {
    const selected = selectTargets(llama, normalizeLoraConfig({ targets: 'all-linear' }), { outputHead: 'lm_head' });
    expect(minimalTargets(llama, new Set(selected.keys()))).toEqual(['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']);
  });

  test('a word that other layers share is written as full names', () => {
    const names = ['h.0.attn.c_proj', 'h.0.mlp.c_proj', 'h.0.mlp.c_fc'];
    expect(minimalTargets(names, new Set(['h.0.mlp.c_proj', 'h.0.mlp.c_fc']))).toEqual(['h.0.mlp.c_proj', 'c_fc']);
  });

  test('selects again what was selected', () => {
    for (const { model, config, selected } of golden.cases) {
      if (!selected) continue;
      const names = golden.names[model]!;
      const again = selectTargets(names, normalizeLoraConfig({ targets: minimalTargets(names, new Set(Object.keys(selected))) }), { outputHead: null });
      // Names such as "q_proj", which end other names, can't be told apart by any list of PEFT's.
      if (model !== 'odd') expect([...again.keys()], JSON.stringify(config)).toEqual(Object.keys(selected));
      for (const name of Object.keys(selected)) expect(again.has(name)).toBe(true);
    }
  });
});
