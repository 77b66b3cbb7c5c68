"""What families.py and runs.py share: how a tiny model is filled, saved, adapted, and how its files are written."""

import json
import math
import os
import pathlib
import shutil

os.environ["HF_HUB_OFFLINE"] = "1"  # PEFT would look on the hub for a model that is called as a folder here
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
PREFIX = "base_model.model."


def fill(model, seed):
    """Weights of order one after a matmul, uneven norms, biases that matter: a slip anywhere moves the logits visibly."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda p, std: torch.randn(p.shape, generator=generator) * std
    for name, p in model.named_parameters():
        if "norm" in name or ".ln_" in name:
            p.data = normal(p, 0.3) + (0 if name.endswith("bias") else 1)
        elif name.endswith("bias"):
            p.data = normal(p, 0.3)
        elif "embed" in name or "wte" in name or "wpe" in name:
            p.data = normal(p, 0.7)
        else:
            fan_in = p.shape[0] if is_conv1d(model, name) else p.shape[1]
            p.data = normal(p, 1.3 / math.sqrt(fan_in))


def is_conv1d(model, parameter):
    return type(model.get_submodule(parameter.rsplit(".", 1)[0])).__name__ == "Conv1D"


def load(folder, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").to(dtype).eval()


def adapt(model, settings, seed):
    """A PEFT model in the model's own dtype, with A and B drawn in f32 so that both precisions start from equal bits."""
    peft = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **settings))
    generator = torch.Generator().manual_seed(seed)
    for name, p in peft.named_parameters():
        if "lora_" in name:
            std = 1 / math.sqrt(p.shape[1]) if "lora_A" in name else 0.15
            p.data = (torch.randn(p.shape, generator=generator) * std).to(p.dtype)
    return peft


def save_adapter(peft, folder, base):
    """PEFT's own files, less the model card; lists sorted, since PEFT's order changes from run to run."""
    peft.peft_config["default"].base_model_name_or_path = base
    peft.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    write_json(path, config)


def key(name):
    """The name that PEFT gives a parameter in a saved adapter."""
    return name.replace(".default.weight", ".weight")


def lora_parameters(peft):
    return {key(n): p for n, p in peft.named_parameters() if p.requires_grad}


def save_tensors(path, tensors):
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, path)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def versions():
    import peft
    import transformers

    return {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
