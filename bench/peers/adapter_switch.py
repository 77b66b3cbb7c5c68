"""The peer of bench/adapter-switch.ts: set_adapter between two adapters of one model."""
import itertools

import peft
import torch
import transformers


def setup(folder, rank):
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config, adapter_name="one")
    model.add_adapter("two", config)
    names = itertools.cycle(["one", "two"])
    return {"switch": lambda: model.set_adapter(next(names))}, {}
