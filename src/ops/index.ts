// Every op, for `import { ops } from 'lowrank'`.
export * from './attention.ts';
export * from './cross_entropy.ts';
export * from './elementwise.ts';
export * from './embedding.ts';
export * from './gated_mlp.ts';
export * from './gelu.ts';
export * from './layer_norm.ts';
export * from './linear.ts';
export * from './lora_linear.ts';
export * from './lora_merge.ts';
export * from './optimizer.ts';
export * from './qk_norm.ts';
export * from './rms_norm.ts';
export * from './rope.ts';
export * from './swiglu.ts';
