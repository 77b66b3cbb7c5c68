"""Writes embed.json: what the programs of examples/ that embed lowrank must come to, by PEFT.

`layer` (examples/embed-c): one linear layer, W0 rounded to bf16, cross entropy. `mlp` (examples/embed-typescript): two linear layers with
gelu between them. Both train A and B for 20 steps of AdamW; numbers are drawn by the rule of `noise`, which every language can repeat.
`serve` (examples/serve-adapters): what the base of families/llama_tied and two adapters on it continue a prompt with, greedily.
"""

from tiny import HERE, load, versions, write_json  # first: sets the environment

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

LAYER = dict(T=24, K=40, N=27, r=4, alpha=8, lr=0.02, wd=0.01, clip=0.25, steps=20)
MLP = dict(T=24, K=20, H=36, N=10, r=3, alpha=6, lr=0.02, wd=0.01, clip=1.0, steps=20)
ADAPTERS = {"all": "llama_tied/adapter", "patterns": "llama_rslora_patterns/adapter"}
PROMPTS = [[5, 17, 3, 60, 2, 44], [91, 8, 30], [12, 77, 6, 21, 50]]


def noise(shape, seed, scale=1.0):
    """Numbers in [-scale/2, scale/2): the upper 24 bits of a linear congruential generator."""
    numbers = []
    for _ in range(torch.Size(shape).numel()):
        seed = (seed * 1664525 + 1013904223) % 2**32
        numbers.append((seed >> 8) / 2**24 - 0.5)
    return torch.tensor(numbers, dtype=torch.float32).reshape(shape) * scale


class Layer(torch.nn.Module):
    """y = x W0^T"""

    def __init__(self, c):
        super().__init__()
        self.first = torch.nn.Linear(c["K"], c["N"], bias=False)
        self.first.weight.data = noise((c["N"], c["K"]), 2).bfloat16().float()

    def forward(self, x):
        return self.first(x)


class Mlp(torch.nn.Module):
    """y = gelu(x W1^T) W2^T"""

    def __init__(self, c):
        super().__init__()
        self.first, self.second = torch.nn.Linear(c["K"], c["H"], bias=False), torch.nn.Linear(c["H"], c["N"], bias=False)
        self.first.weight.data, self.second.weight.data = noise((c["H"], c["K"]), 2), noise((c["N"], c["H"]), 3)

    def forward(self, x):
        return self.second(F.gelu(self.first(x)))


def train(model, c, targets, dtype):
    peft = get_peft_model(model.to(dtype), LoraConfig(r=c["r"], lora_alpha=c["alpha"], lora_dropout=0.0, target_modules=targets))
    trained = {n: p for n, p in peft.named_parameters() if p.requires_grad}
    for seed, target in enumerate(targets):
        a = next(p for n, p in trained.items() if f"{target}.lora_A" in n)
        a.data = noise(a.shape, 10 + seed, 0.5).to(dtype)
    x, labels = noise((c["T"], c["K"]), 1).to(dtype), torch.arange(c["T"]) * 7 % c["N"]
    optimizer = torch.optim.AdamW(trained.values(), lr=c["lr"], weight_decay=c["wd"])
    losses, norms = [], []
    for _ in range(c["steps"]):
        optimizer.zero_grad()
        loss = F.cross_entropy(peft(x), labels)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(trained.values(), c["clip"]).item())
        optimizer.step()
        losses.append(loss.item())
    return losses, norms


def run(model, c, targets):
    losses, norms = train(model(c), c, targets, torch.float32)
    exact = train(model(c), c, targets, torch.float64)
    error = max(abs(a - b) for a, b in zip(losses + norms, exact[0] + exact[1]))
    assert losses[-1] < losses[0] / 2 and error < 1e-6, (losses, error)
    return dict(settings=c, losses=losses, gradNorms=norms, float32Error=error)


def continuations(model):
    with torch.no_grad():
        for prompt in PROMPTS:
            ids = torch.tensor([prompt])
            for _ in range(8):
                logits = model(input_ids=ids).logits[0, -1]
                two = logits.topk(2).values
                assert two[0] - two[1] > 1e-2, "too close to call"
                ids = torch.cat([ids, logits.argmax()[None, None]], dim=1)
            yield ids[0, len(prompt):].tolist()


def serve():
    base = HERE / "families" / "llama_tied"
    tokens = {"": list(continuations(load(base)))}
    for name, folder in ADAPTERS.items():
        tokens[name] = list(continuations(PeftModel.from_pretrained(load(base), HERE / "families" / folder)))
    return dict(base="llama_tied", adapters=ADAPTERS, prompts=PROMPTS, tokens=tokens)


write_json(HERE / "embed.json", dict(versions=versions(), layer=run(Layer, LAYER, ["first"]), mlp=run(Mlp, MLP, ["first", "second"]), serve=serve()))
