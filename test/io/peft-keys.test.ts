import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { adapterKey, groupAdapterKeys, parseAdapterKey } from '../../src/io/peft-keys.ts';
import { readSafetensorsHeader } from '../../src/io/safetensors.ts';

const q = 'model.layers.0.self_attn.q_proj';
const file = 'adapter_model.safetensors';

describe('adapter keys', () => {
  test('are read back as they are written', () => {
    expect(adapterKey(q, 'A')).toBe('base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight');
    for (const part of ['A', 'B'] as const) expect(parseAdapterKey(adapterKey(q, part))).toEqual({ module: q, part, adapter: null });
  });

  test('may carry the name of the adapter', () => {
    expect(parseAdapterKey(`base_model.model.${q}.lora_B.default.weight`)).toEqual({ module: q, part: 'B', adapter: 'default' });
  });

  const refused: [string, RegExp][] = [
    [`base_model.model.${q}.lora_magnitude_vector`, /DoRA/],
    [`base_model.model.${q}.lora_magnitude_vector.default.weight`, /DoRA/],
    ['base_model.model.model.embed_tokens.lora_embedding_A', /adapter on an embedding/],
    ['base_model.model.model.embed_tokens.base_layer.weight', /embeddings or lm_head are targets/],
    ['base_model.model.lm_head.base_layer.weight', /embeddings or lm_head are targets/],
    [`base_model.model.${q}.lora_B.bias`, /lora_bias/],
    [`base_model.model.${q}.base_layer.bias`, /trained bias/],
    ['base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta', /trainable_token_indices/],
    ['base_model.model.score.modules_to_save.default.weight', /modules_to_save/],
    ['base_model.model.classifier.weight', /full tensor of the base model/],
    [`base_model.model.${q}.lora_diag`, /another method/],
    [`${q}.lora_A.weight`, /no key of a PEFT adapter; they read base_model\.model\.<module>\.lora_A\.weight/],
    [`${q}.lora_A.default.weight`, /no key of a PEFT adapter/],
    ['lora_unet_down_blocks_0.alpha', /no key of a PEFT adapter/],
  ];
  test.each(refused)('%s is refused', (key, says) => {
    expect(parseAdapterKey(key)).toEqual({ refused: expect.stringMatching(says) });
  });

  test('of a file are sorted by layer', () => {
    const keys = [adapterKey(q, 'B'), adapterKey('lm_head', 'A'), adapterKey(q, 'A'), adapterKey('lm_head', 'B')];
    expect(groupAdapterKeys(keys, file)).toEqual(new Map([[q, { A: keys[2], B: keys[0] }], ['lm_head', { A: keys[1], B: keys[3] }]]));
  });

  test('of other kinds are told all at once, each kind with its count', () => {
    const keys = [adapterKey(q, 'A'), 'base_model.model.x.lora_magnitude_vector', 'base_model.model.y.lora_magnitude_vector', 'base_model.model.lm_head.base_layer.weight'];
    expect(() => groupAdapterKeys(keys, file)).toThrow(expect.objectContaining({
      code: 'ERR_UNSUPPORTED', message: expect.stringMatching(/"base_model\.model\.x\.lora_magnitude_vector" \(and 1 more\) is the magnitude[^]*lm_head/),
    }));
  });

  test('of two adapters in one file are refused', () => {
    const keys = ['a', 'b'].flatMap((name) => ['A', 'B'].map((part) => `base_model.model.${q}.lora_${part}.${name}.weight`));
    expect(() => groupAdapterKeys(keys, file)).toThrow(/must hold one adapter \(it holds a, b\)/);
  });

  test('without their other half are refused, and so is an empty file', () => {
    expect(() => groupAdapterKeys([adapterKey('x', 'A'), adapterKey('y', 'B')], file)).toThrow(/"x" has A but no B[^]*"y" has B but no A/);
    expect(() => groupAdapterKeys([], file)).toThrow(expect.objectContaining({ code: 'ERR_FORMAT' }));
  });

  test('of every adapter that PEFT saved for the goldens are understood', async () => {
    const goldens = new URL('../golden/', import.meta.url);
    const files = readdirSync(goldens, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith(file));
    expect(files.length).toBeGreaterThan(0);
    for (const name of files) {
      const { tensors } = await readSafetensorsHeader(fileURLToPath(new URL(name, goldens)));
      expect(groupAdapterKeys(tensors.keys(), name).size * 2).toBe(tensors.size);
    }
  });
});
