"""Writes rope.json: inverse frequencies, attention factor and a few rows of cos and sin, as transformers computes them.

Each case is a part of a config.json; `lengths` are sequence lengths, each given to a fresh rotary embedding.
"""

import json
import pathlib

import torch
import transformers
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

HERE = pathlib.Path(__file__).parent
HEADS = dict(hidden_size=64, num_attention_heads=2, max_position_embeddings=64)  # 32 numbers a head
GROWING = [1 + 0.05 * i for i in range(16)]
LONG = [1 + 0.5 * i for i in range(16)]

CASES = {
    "default": dict(rope_parameters=dict(rope_type="default", rope_theta=500000.0)),
    "default of transformers 4": dict(rope_theta=10000.0, rope_scaling=None),
    "no rope settings": dict(),
    "an odd theta": dict(rope_theta=1234567.891),
    "linear": dict(rope_parameters=dict(rope_type="linear", factor=3.0, rope_theta=10000.0)),
    "linear of transformers 4, named type": dict(rope_theta=50000.0, rope_scaling=dict(type="linear", factor=2.5)),
    "linear on half of a head": dict(rope_parameters=dict(rope_type="linear", factor=2.0, rope_theta=10000.0, partial_rotary_factor=0.5)),
    "dynamic": dict(rope_parameters=dict(rope_type="dynamic", factor=3.0, rope_theta=10000.0)),
    "dynamic of transformers 4": dict(rope_theta=10000.0, rope_scaling=dict(type="dynamic", factor=1.7)),
    "llama3 (Llama 3.1)": dict(max_position_embeddings=131072, rope_theta=500000.0, rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)),
    "llama3 (Llama 3.2)": dict(max_position_embeddings=131072, rope_parameters=dict(
        rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192, rope_theta=500000.0)),
    "yarn": dict(max_position_embeddings=131072, rope_theta=1000000.0, rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=32768)),
    "yarn with mscale": dict(max_position_embeddings=163840, rope_parameters=dict(
        rope_type="yarn", factor=40.0, original_max_position_embeddings=4096, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=0.7, rope_theta=10000.0)),
    "yarn, mscale zero is none": dict(rope_parameters=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=16, mscale=0, mscale_all_dim=0.7, rope_theta=10000.0)),
    "yarn, not truncated": dict(rope_parameters=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=4.0, beta_slow=0.5, truncate=False, rope_theta=100.0)),
    "yarn, factor from the lengths": dict(rope_parameters=dict(rope_type="yarn", factor=None, original_max_position_embeddings=16, rope_theta=10000.0)),
    "yarn, attention factor given": dict(rope_parameters=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=16, attention_factor=1.25, rope_theta=10000.0)),
    "yarn, original length not given": dict(rope_parameters=dict(rope_type="yarn", factor=4.0, rope_theta=10000.0)),
    "llama3, original length not given": dict(rope_theta=10000.0, rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)),
    "longrope": dict(rope_parameters=dict(rope_type="longrope", factor=4.0, original_max_position_embeddings=16, short_factor=GROWING, long_factor=LONG,
                                          rope_theta=10000.0)),
    "longrope, original length outside": dict(original_max_position_embeddings=16, rope_theta=10000.0, rope_scaling=dict(
        type="longrope", short_factor=GROWING, long_factor=LONG)),
    "longrope, attention factor given": dict(rope_parameters=dict(
        rope_type="longrope", original_max_position_embeddings=16, short_factor=GROWING, long_factor=LONG, attention_factor=1.1, rope_theta=10000.0)),
}


def at_length(about, length):
    config = LlamaConfig(**(HEADS | json.loads(json.dumps(about))))
    if config.rope_parameters.get("partial_rotary_factor", 1.0) == 1.0:
        rope = LlamaRotaryEmbedding(config)
        cos, sin = rope(torch.zeros(1), torch.arange(length)[None])
        half = cos.shape[-1] // 2
        rows = torch.cat((cos[0, :, :half], sin[0, :, :half]), dim=1)[[0, 1, length // 2, length - 1]]
        inverse, factor = rope.inv_freq, rope.attention_scaling
    else:  # Llama itself turns whole heads; other families use the function with a part of each
        inverse, factor = ROPE_INIT_FUNCTIONS[config.rope_parameters["rope_type"]](config)
        rows = torch.zeros(0)
    return {"length": length, "inverse": single(inverse), "attentionFactor": float(factor), "rows": single(rows)}


def single(values):
    """Nine digits tell every float32 apart."""
    return [float(f"{value:.9g}") for value in values.flatten().tolist()]


def lengths(about):
    kind = (about.get("rope_scaling") or about.get("rope_parameters") or {})
    return (16, 64, 100) if kind.get("rope_type", kind.get("type")) in ("dynamic", "longrope") else (100,)


if __name__ == "__main__":
    cases = [{"name": name, "config": HEADS | about, "at": [at_length(about, length) for length in lengths(about)]} for name, about in CASES.items()]
    text = json.dumps({"transformers": transformers.__version__, "torch": torch.__version__, "cases": cases})
    (HERE / "rope.json").write_text(text.replace('{"name"', '\n{"name"') + "\n")
