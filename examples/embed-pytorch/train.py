"""lowrank inside PyTorch: a torch.autograd.Function over ctypes and DLPack takes the place of PEFT's LoRA linear in a Hugging Face model.

    LOWRANK_LIBRARY=build/Release/liblowrank.so python examples/embed-pytorch/train.py [--model DIR] [--steps 20] [--threads 2]

Two copies of one model train on the same batches in turns, one as PEFT made it, one on lowrank. Prints a line of JSON: the losses of both and
the milliseconds of their steps. Without --model it is a small Llama with random weights.

OpenMP's idle threads look for work before they sleep, on the very processors that lowrank's pool computes on. So unless GOMP_SPINCOUNT is set
there are two runs and two lines, under OpenMP's own 300,000 turns and under 1,000: both sides' times are to be read in both.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import time

if "GOMP_SPINCOUNT" not in os.environ:  # read once, when torch is loaded: each setting has a process of its own
    for turns in ("300000", "1000"):
        subprocess.run([sys.executable, *sys.argv], env={**os.environ, "GOMP_SPINCOUNT": turns}, check=True)
    sys.exit()
os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from lowrank_torch import Lowrank, replace_layers


def make_model(folder, seed):
    torch.manual_seed(seed)
    if folder is not None:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    else:
        sizes = dict(vocab_size=512, hidden_size=128, intermediate_size=336, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    lora = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear")
    return get_peft_model(model, lora).train()


class Trainer:
    def __init__(self, model, lr):
        self.model, self.losses, self.times = model, [], []
        self.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, fused=True)

    def step(self, ids):
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss = self.model(input_ids=ids, labels=ids).loss
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())
        self.times.append(1000 * (time.perf_counter() - start))


def main():
    parser = argparse.ArgumentParser()
    for name, default, kind in (("model", None, str), ("steps", 20, int), ("threads", 2, int), ("batch", 4, int), ("tokens", 64, int), ("lr", 1e-3, float)):
        parser.add_argument(f"--{name}", default=default, type=kind)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lowrank = Lowrank(os.environ["LOWRANK_LIBRARY"], options.threads)
    peft = make_model(options.model, 1)
    ours = copy.deepcopy(peft)
    layers = replace_layers(ours, lowrank)
    trainers = [Trainer(peft, options.lr), Trainer(ours, options.lr)]
    vocabulary = peft.config.vocab_size
    batches = torch.randint(0, vocabulary, (4, options.batch, options.tokens), generator=torch.Generator().manual_seed(2))
    for step in range(options.steps):
        for trainer in trainers if step % 2 == 0 else trainers[::-1]:
            trainer.step(batches[step % len(batches)])
    ms = [statistics.median(trainer.times[2:]) for trainer in trainers]
    ratio = statistics.median(a / b for a, b in zip(trainers[1].times[2:], trainers[0].times[2:]))
    furthest = max(abs(a - b) for a, b in zip(*(trainer.losses for trainer in trainers)))
    spin = int(os.environ["GOMP_SPINCOUNT"])
    print(json.dumps(dict(spin=spin, layers=layers, peft=trainers[0].losses, lowrank=trainers[1].losses, furthest=furthest, peftMs=ms[0], lowrankMs=ms[1], ratio=ratio)))


main()
