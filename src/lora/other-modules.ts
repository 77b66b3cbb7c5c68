import type { ModelFacts } from '../models/model.ts';

/** The targets that PEFT takes when a config names none (its table of target modules by `model_type`). */
export function usualTargets({ family }: ModelFacts): readonly string[] {
  return family === 'gpt2' ? ['c_attn'] : ['q_proj', 'v_proj'];
}

const embedding = 'an embedding, for which PEFT trains lora_embedding_A and lora_embedding_B; lowrank adapts linear layers only';
const norm = 'a norm, for which neither PEFT nor lowrank has a LoRA layer';
const container = 'no layer but a group of them';

/**
 * Modules of a model that targets may hit by name though they can't take an adapter, and what each is. Names are those of
 * transformers' classes.
 */
export function otherModules(facts: ModelFacts): Map<string, string> {
  const found = facts.family === 'gpt2' ? gpt2Modules(facts) : llamaModules(facts);
  if (facts.tied) found.set(facts.outputHead, 'the output head, tied to the embedding: an adapter would change both, so it takes none (untie it in the base first)');
  return found;
}

function llamaModules({ family, layers }: ModelFacts): Map<string, string> {
  const found = new Map([['model', container], ['model.embed_tokens', embedding], ['model.norm', norm]]);
  for (let i = 0; i < layers; i++) {
    const block = `model.layers.${i}`;
    for (const name of ['', '.self_attn', '.mlp']) found.set(`${block}${name}`, container);
    for (const name of ['input_layernorm', 'post_attention_layernorm']) found.set(`${block}.${name}`, norm);
    if (family === 'qwen3') for (const name of ['q_norm', 'k_norm']) found.set(`${block}.self_attn.${name}`, norm);
  }
  return found;
}

function gpt2Modules({ layers }: ModelFacts): Map<string, string> {
  const found = new Map([['transformer', container], ['transformer.wte', embedding], ['transformer.wpe', embedding], ['transformer.ln_f', norm]]);
  for (let i = 0; i < layers; i++) {
    const block = `transformer.h.${i}`;
    for (const name of ['', '.attn', '.mlp']) found.set(`${block}${name}`, container);
    for (const name of ['ln_1', 'ln_2']) found.set(`${block}.${name}`, norm);
  }
  return found;
}
