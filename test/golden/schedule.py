"""Writes schedule.json: the learning rate of every step by transformers' schedules, and one past the end.

Run with transformers 5.17, PyTorch 2.13:  python test/golden/schedule.py
"""

import json
import pathlib

import torch
import transformers

MAKE = {
    "constant": lambda o, w, n: transformers.get_constant_schedule_with_warmup(o, w),
    "linear": transformers.get_linear_schedule_with_warmup,
    "cosine": transformers.get_cosine_schedule_with_warmup,
}
CASES = [(kind, lr, warmup, steps) for kind in MAKE for lr, warmup, steps in [(2e-4, 0, 7), (1e-3, 3, 10), (0.1, 1, 1), (3e-4, 5, 4), (1.0, 4, 4)]]


def rates(kind, lr, warmup, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = MAKE[kind](optimizer, warmup, steps)
    used = []
    for _ in range(steps + 2):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return used


lines = [json.dumps({"kind": k, "lr": r, "warmup": w, "steps": n, "rates": rates(k, r, w, n)}) for k, r, w, n in CASES]
pathlib.Path(__file__).with_suffix(".json").write_text("[\n%s\n]\n" % ",\n".join(lines))
