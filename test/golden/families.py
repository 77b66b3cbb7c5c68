"""Writes families/: tiny random models of every supported kind, and what transformers and PEFT compute with them.

`families.py NAME ...` rewrites only those folders and their entries of index.json.
"""

import json
import sys

from tiny import HERE, adapt, fill, fresh, load, lora_parameters, save_adapter, save_tensors, versions, write_json  # first: sets the environment

import torch
from transformers import (GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
                          Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

CLASSES = {"llama": (LlamaConfig, LlamaForCausalLM), "mistral": (MistralConfig, MistralForCausalLM),
           "qwen2": (Qwen2Config, Qwen2ForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM), "gpt2": (GPT2Config, GPT2LMHeadModel)}
SHAPE = dict(vocab_size=96, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=True,
             bos_token_id=1, eos_token_id=2, pad_token_id=0)
GPT2 = dict(vocab_size=96, n_embd=32, n_inner=48, n_layer=2, n_head=4, n_positions=32, bos_token_id=1, eos_token_id=2, pad_token_id=0,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
ONE_LAYER = dict(dtype="bfloat16", num_hidden_layers=1)  # keeps the folders of the rope types small
ALL = dict(r=3, lora_alpha=7, target_modules="all-linear")


def rope(kind, theta=100.0, **more):
    """A small theta, so that all frequencies turn within 20 tokens and every scaling shows."""
    return dict(rope_type=kind, rope_theta=theta, **more)


def longrope(**more):
    return rope("longrope", short_factor=[1.0, 1.1, 1.4, 2.0], long_factor=[1.2, 2.0, 3.5, 6.0], **more)


# name: type, what differs from SHAPE, and `T`, `dtype`, `lora`, `v4` (config.json in the layout that transformers 4 writes).
FAMILIES = {
    "llama_tied": dict(type="llama"),
    "llama_untied": dict(type="llama", intermediate_size=32, tie_word_embeddings=False, v4=True),
    "llama_bias": dict(type="llama", intermediate_size=32, attention_bias=True, mlp_bias=True, num_key_value_heads=4),
    "llama_odd": dict(type="llama", hidden_size=40, intermediate_size=52, num_attention_heads=5, num_key_value_heads=1, head_dim=8,
                      vocab_size=97, dtype="bfloat16", v4=True),
    "llama_bf16_sharded": dict(type="llama", tie_word_embeddings=False, dtype="bfloat16", shard="20KB"),
    "llama_rope_llama3": dict(type="llama", **ONE_LAYER, T=20, v4=True, rope_parameters=rope(
        "llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=24)),
    "llama_rope_linear": dict(type="llama", **ONE_LAYER, T=20, v4=True, rope_parameters=rope("linear", factor=2.5)),
    "llama_rope_dynamic": dict(type="llama", **ONE_LAYER, T=20, max_position_embeddings=12,
                               rope_parameters=rope("dynamic", factor=3.0)),
    "llama_rope_dynamic_short": dict(type="llama", **ONE_LAYER, T=12, max_position_embeddings=12, v4=True,
                                     rope_parameters=rope("dynamic", factor=3.0)),
    "llama_rope_yarn": dict(type="llama", **ONE_LAYER, T=20, rope_parameters=rope(
        "yarn", factor=4.0, original_max_position_embeddings=16)),
    "llama_rope_yarn_full": dict(type="llama", **ONE_LAYER, T=20, v4=True, rope_parameters=rope(
        "yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=4.0, beta_slow=0.5, mscale=0.8, mscale_all_dim=0.5, truncate=False)),
    "llama_rope_longrope": dict(type="llama", **ONE_LAYER, T=20, rope_parameters=longrope(original_max_position_embeddings=16, factor=4.0)),
    "llama_rope_longrope_short": dict(type="llama", **ONE_LAYER, T=16, v4=True, rope_parameters=longrope(original_max_position_embeddings=16)),
    "mistral_window": dict(type="mistral", sliding_window=5, T=14, head_dim=12, tie_word_embeddings=False, dtype="bfloat16"),
    "mistral_full": dict(type="mistral", sliding_window=None, dtype="float16", v4=True),
    "qwen2_tied": dict(type="qwen2", v4=True, use_sliding_window=False, sliding_window=4),
    "qwen2_window": dict(type="qwen2", use_sliding_window=True, sliding_window=5, max_window_layers=1, T=14, dtype="bfloat16", v4=True),
    "qwen2_f16": dict(type="qwen2", tie_word_embeddings=False, dtype="float16"),
    "qwen3": dict(type="qwen3", head_dim=12, intermediate_size=32),
    "qwen3_window": dict(type="qwen3", head_dim=8, attention_bias=True, use_sliding_window=True, sliding_window=4, max_window_layers=1, T=14,
                         tie_word_embeddings=False, dtype="bfloat16"),
    "smollm": dict(type="llama", hidden_size=36, num_attention_heads=9, num_key_value_heads=3, intermediate_size=48, v4=True,
                   rope_parameters=rope("default", theta=10000.0), dtype="bfloat16"),
    "gpt2": dict(type="gpt2", activation_function="gelu_new"),
    "gpt2_gelu": dict(type="gpt2", activation_function="gelu", n_inner=None, dtype="float16"),
    # Adapters on a base of another folder.
    "llama_rslora_patterns": dict(base="llama_tied", lora=dict(
        r=3, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"v_proj": 2, "layers.1.self_attn.q_proj": 4}, alpha_pattern={"down_proj": 9})),
    "llama_regex_one_layer": dict(base="llama_untied", lora=dict(r=2, lora_alpha=4, target_modules=r".*\.1\.mlp\.(gate|up)_proj")),
    "llama_layers_to_transform": dict(base="llama_bias", lora=dict(
        r=2, lora_alpha=4, target_modules=["q_proj", "k_proj", "o_proj", "up_proj"], exclude_modules=["k_proj"], layers_to_transform=[0])),
    "gpt2_rslora_patterns": dict(base="gpt2", lora=dict(
        r=3, lora_alpha=5, use_rslora=True, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True,
        rank_pattern={"attn.c_proj": 2}, alpha_pattern={"c_attn": 8})),
}


def as_v4(path):
    """Rewrites config.json as transformers 4 wrote it: rope_theta and rope_scaling apart, torch_dtype, no layer_types."""
    config = json.loads(path.read_text())
    rope_parameters = config.pop("rope_parameters", None)
    if rope_parameters:
        config["rope_theta"] = rope_parameters.pop("rope_theta")
        config["rope_scaling"] = rope_parameters if rope_parameters["rope_type"] != "default" else None
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    config["transformers_version"] = "4.51.0"
    write_json(path, config)


def make_model(folder, about, seed):
    about = dict(about)
    kind, dtype, v4, shard = about.pop("type"), about.pop("dtype", "float32"), about.pop("v4", False), about.pop("shard", "1GB")
    make_config, make = CLASSES[kind]
    base = GPT2 if kind == "gpt2" else SHAPE | {"rope_parameters": rope("default")}
    model = make(make_config(**(base | about)))
    fill(model, seed)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if v4:
        as_v4(folder / "config.json")
        assert load(folder).config.get_text_config().to_diff_dict().get("rope_parameters") == model.config.to_diff_dict().get("rope_parameters")


def compute(folder, ids, lora, seed, dtype):
    model = load(folder, dtype)
    with torch.no_grad():
        logits = model(ids).logits
    peft = adapt(model, lora, seed)
    out = peft(ids, labels=ids)
    out.loss.backward()
    grads = {f"grad.{k}": p.grad for k, p in lora_parameters(peft).items()}
    return peft, {"logits": logits, "logits_adapter": out.logits, "loss": out.loss.reshape(1), **grads}


def write(name, about, seed):
    about = dict(about)
    folder = fresh(HERE / "families" / name)
    base, lora, T = about.pop("base", name), about.pop("lora", ALL), about.pop("T", 10)
    if base == name:
        make_model(folder, about, seed)
    vocab = json.loads((HERE / "families" / base / "config.json").read_text())["vocab_size"]
    ids = torch.randint(3, vocab, (2, T), generator=torch.Generator().manual_seed(seed + 1))
    peft, single = compute(HERE / "families" / base, ids, lora, seed + 2, torch.float32)
    _, double = compute(HERE / "families" / base, ids, lora, seed + 2, torch.float64)
    save_adapter(peft, folder / "adapter", base)
    save_tensors(folder / "golden.safetensors", {"input_ids": ids.int(), **single})
    gap = lambda k: (single[k].double() - double[k]).abs().max().item()
    logits_gap = max(gap("logits"), gap("logits_adapter"))
    grads_gap = max(gap(k) for k in single if k.startswith("grad."))
    config = json.loads((HERE / "families" / base / "config.json").read_text())
    return {
        "name": name, "model": base, "modelType": config["model_type"], "T": T,
        "dtype": about.get("dtype", "float32") if base == name else None,
        "ropeType": (config.get("rope_parameters") or config.get("rope_scaling") or {}).get("rope_type", "default"),
        "configLayout": "transformers 4" if "torch_dtype" in config else "transformers 5",
        "loss": single["loss"].item(), "maxLogit": single["logits"].abs().max().item(),
        "adapterMoves": (single["logits"] - single["logits_adapter"]).abs().max().item(),
        "maxGrad": max(v.abs().max().item() for k, v in single.items() if k.startswith("grad.")),
        "float32Error": {"logits": logits_gap, "grads": grads_gap},
        # Ten times what f32 itself is off, and never below 1e-5: another order of summation, not another formula.
        "tolerance": {"logits": max(1e-5, 10 * logits_gap), "grads": max(1e-5, 10 * grads_gap)},
    }


def main(wanted):
    path = HERE / "families" / "index.json"
    known = {} if not wanted else {entry["name"]: entry for entry in json.loads(path.read_text())["families"]}
    for number, (name, about) in enumerate(FAMILIES.items()):
        if not wanted or name in wanted:
            known[name] = write(name, about, 1000 * number)
    write_json(path, {"versions": versions(), "families": [known[name] for name in FAMILIES]})


main(sys.argv[1:])
