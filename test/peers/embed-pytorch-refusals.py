"""What lowrank_torch.Layer must not leave out in silence: prints, a line each, what it says of PEFT layers that do more than plain LoRA."""

import sys

import torch
from peft import LoraConfig, get_peft_model

sys.path.insert(0, sys.argv[1])
from lowrank_torch import replace_layers


def said_of(**settings):
    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(8, 8)), LoraConfig(r=2, target_modules=["0"], **settings))
    try:
        replace_layers(model, None)  # refused before the library is asked for anything
    except ValueError as error:
        return str(error)
    return "nothing"


for settings in (dict(lora_dropout=0.1), dict(use_dora=True), dict(lora_bias=True)):
    print(said_of(**settings))
