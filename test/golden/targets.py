"""Writes targets.json: which layers PEFT adapts, with rank, alpha and scale, for many configs on three models.

Run with PEFT 0.21, transformers 5.17, PyTorch 2.13:  python test/golden/targets.py
"""

import json
import logging
import pathlib
import warnings

import peft
import torch
import transformers

warnings.simplefilter("ignore")
logging.disable(logging.ERROR)


def llama():
    config = transformers.LlamaConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, vocab_size=8
    )
    return transformers.LlamaForCausalLM(config)


def gpt2():
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=8, n_positions=8))


ODD_NAMES = [
    "q_proj", "enc.q_proj", "enc.my_q_proj", "enc.q_proj2", "enc.layers.1.q_proj", "enc.layers.10.q_proj", "enc.layers.11.v_proj",
    "enc.layers.1.experts.0.w1", "enc.layers.0.experts.1.w1", "dec.h.1.q_proj", "dec.h.2.v_proj", "layers.1.q_proj",
    "dec.Blocks.3.fc", "dec.blocks.3.fc", "dec.blocks.03.fc", "head",
]  # fmt: skip


def odd():
    root = torch.nn.Module()
    for name in ODD_NAMES:
        *path, last = name.split(".")
        parent = root
        for part in path:
            if part not in parent._modules:
                parent.add_module(part, torch.nn.Module())
            parent = getattr(parent, part)
        parent.add_module(last, torch.nn.Linear(4, 4))
    return root


MODELS = {"llama": llama, "gpt2": gpt2, "odd": odd}

CASES = [
    ("llama", dict(target_modules=["q_proj", "v_proj"])),
    ("llama", dict(target_modules=["proj"])),
    ("llama", dict(target_modules=["self_attn.q_proj", "1.mlp.up_proj"])),
    ("llama", dict(target_modules="all-linear")),
    ("llama", dict(target_modules="All-Linear", exclude_modules=["down_proj", "layers.1.self_attn.q_proj"])),
    ("llama", dict(target_modules="all-linear", exclude_modules=r".*\.(0|2)\..*")),
    ("llama", dict(target_modules=r".*\.(q|v)_proj")),
    ("llama", dict(target_modules=r"(q|v)_proj")),
    ("llama", dict(target_modules=r"model\.layers\.[12]\.(?P<part>mlp|self_attn)\.(?:up|o)_proj")),
    ("llama", dict(target_modules=r"(?i).*Q_PROJ")),
    ("llama", dict(target_modules=r".*\.layers\.(?!1\.).*\.k_proj")),
    ("llama", dict(target_modules=r".*(?<!gate)_proj")),
    ("llama", dict(target_modules=r".*\.\d{,1}\.mlp\.[^]u]+_proj")),
    ("llama", dict(target_modules=r"\A.*(?#either)\.(?P<a>[gu])\w+_proj\Z")),
    ("llama", dict(target_modules=["q_proj"], layers_to_transform=1)),
    ("llama", dict(target_modules=["q_proj"], layers_to_transform=[0, 2])),
    ("llama", dict(target_modules=["q_proj"], layers_to_transform=[])),
    ("llama", dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="layers")),
    ("llama", dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern=["h", "layers"])),
    ("llama", dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="h")),
    ("llama", dict(target_modules=["q_proj"], layers_to_transform=[7])),
    ("llama", dict(target_modules=["lm_head"])),
    ("llama", dict(target_modules=["q_proj", "nothing"])),
    ("llama", dict(target_modules=["nothing"])),
    ("llama", dict(target_modules=["q_proj"], exclude_modules=["q_proj"])),
    ("llama", dict(target_modules=["q_proj", "k_proj"], rank_pattern={"q_proj": 2}, alpha_pattern={"k_proj": 3})),
    ("llama", dict(target_modules=["q_proj", "k_proj"], rank_pattern={"layers.1.self_attn.q_proj": 2, "q_proj": 3})),
    ("llama", dict(target_modules=["q_proj", "k_proj"], rank_pattern={"q_proj": 3, "layers.1.self_attn.q_proj": 2})),
    ("llama", dict(target_modules=["q_proj", "k_proj"], rank_pattern={r".*\.[02]\..*_proj": 5}, use_rslora=True, lora_alpha=7)),
    ("llama", dict(target_modules=["q_proj"], rank_pattern={"_proj": 5, "proj": 6, "^q_proj": 7, "q_proj|x": 9})),
    ("llama", dict(target_modules=["q_proj"], alpha_pattern={r"model\.layers\.0\.self_attn\.q_proj": 1.5, "q_proj": 0.5}, r=3)),
    ("llama", dict(target_modules=["q_proj"], use_rslora=True, r=6, lora_alpha=5)),
    ("gpt2", dict(target_modules=["c_attn"])),
    ("gpt2", dict(target_modules=["c_proj"])),
    ("gpt2", dict(target_modules=["mlp.c_proj", "c_fc"], layers_to_transform=[1], layers_pattern="h")),
    ("gpt2", dict(target_modules="all-linear")),
    ("odd", dict(target_modules=["q_proj"])),
    ("odd", dict(target_modules=["q_proj"], layers_to_transform=1)),
    ("odd", dict(target_modules=["q_proj", "v_proj"], layers_to_transform=[1, 11])),
    ("odd", dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern=["layers"])),
    ("odd", dict(target_modules=["w1"], layers_to_transform=[1])),
    ("odd", dict(target_modules=["w1"], layers_to_transform=[1], layers_pattern="experts")),
    ("odd", dict(target_modules=["fc"], layers_to_transform=[3], layers_pattern="[Bb]locks")),
    ("odd", dict(target_modules=["fc", "q_proj"], layers_to_transform=[3, 1], layers_pattern="h|blocks")),
    ("odd", dict(target_modules=r".*q_proj")),
    ("odd", dict(target_modules=r".*\.layers\.1.*(proj|w1)", exclude_modules=["w1"])),
    ("odd", dict(target_modules=r".*\.(?P<n>\d)\.experts\.(?!(?P=n))\d\.w1")),
    ("odd", dict(target_modules="all-linear")),
    ("odd", dict(target_modules=["q_proj", "fc"], rank_pattern={r"\w+\.q_proj": 2, r"[Bb]locks\.0?3\.fc": 4})),
]


def linear_names(model):
    kinds = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def selected(model_name, settings):
    model = MODELS[model_name]()
    try:
        tuned = peft.LoraModel(model, peft.LoraConfig(**settings), "default")
    except ValueError:
        return None
    layers = {n: m for n, m in tuned.model.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}
    return {n: [m.r["default"], m.lora_alpha["default"], m.scaling["default"]] for n, m in layers.items()}


def main():
    golden = {
        "names": {name: linear_names(make()) for name, make in MODELS.items()},
        "cases": [{"model": m, "config": c, "selected": selected(m, c)} for m, c in CASES],
    }
    lines = [json.dumps(case, separators=(",", ":")) for case in golden["cases"]]
    text = '{"names":%s,\n"cases":[\n%s\n]}\n' % (json.dumps(golden["names"], separators=(",", ":")), ",\n".join(lines))
    pathlib.Path(__file__).with_suffix(".json").write_text(text)


main()
