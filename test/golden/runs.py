"""Writes runs/: two short PEFT training runs on tiny models of families/, for step-by-step comparison.

Each folder has run.json (settings, log of every step in f32 and in f64), batches.safetensors (input_ids, labels,
attention_mask: int32 [steps, micro, B, T]; eval_*: [rows, T]), initial_adapter/, step_NNNN_adapter/, final_adapter/,
grads.safetensors (of the first steps, before clipping: `stepN.<parameter>`) and probe.safetensors (logits of one sequence).
The loss of a step is the mean over all labelled tokens of its micro-batches together.
"""

from tiny import HERE, adapt, fresh, load, lora_parameters, save_adapter, save_tensors, versions, write_json  # first: sets the environment

import torch
import torch.nn.functional as F
from transformers import get_constant_schedule, get_linear_schedule_with_warmup

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

COMMON = dict(steps=6, micro=2, B=2, betas=[0.9, 0.999], eps=1e-8, wd=0.01, clip=1.0, grads_at=[1, 2])
RUNS = {
    "llama_masked_loraplus": COMMON | dict(
        model="llama_tied", T=14, r=2, alpha=4, rslora=False, targets=["q_proj", "v_proj", "down_proj"], lr=0.01,
        loraplus_lr_ratio=4.0, sched="constant", warmup=0, seed=21, save_at=[1]),
    "gpt2_masked_warmup": COMMON | dict(
        model="gpt2", T=12, r=2, alpha=4, rslora=True, targets=["c_attn", "c_fc"], lr=0.03, loraplus_lr_ratio=1.0,
        sched="linear", warmup=2, seed=22, save_at=[2]),
}


def make_rows(count, T, generator):
    """Rows of different lengths, right-padded with 0; the prompt and the padding have label -100, each row its own count."""
    draw = lambda low, high: int(torch.randint(low, high, (), generator=generator))
    ids, labels, mask = (torch.full((count, T), v) for v in (0, -100, 0))
    for row in range(count):
        length = draw(T // 2, T + 1)
        prompt = draw(1, length - 1)
        token, stride = draw(3, 96), draw(1, 9)
        ids[row, :length] = 3 + (token + stride * torch.arange(length)) % 93
        labels[row, prompt:length] = ids[row, prompt:length]
        mask[row, :length] = 1
    return ids, labels, mask


def make_batches(c):
    generator = torch.Generator().manual_seed(c["seed"])
    names = ("input_ids", "labels", "attention_mask")
    shape = (c["steps"], c["micro"], c["B"])
    train = make_rows(shape[0] * shape[1] * shape[2], c["T"], generator)
    evals = make_rows(4, c["T"], generator)
    return {n: t.view(*shape, c["T"]) for n, t in zip(names, train)} | {f"eval_{n}": t for n, t in zip(names, evals)}


def loss_sum(model, ids, labels, mask):
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), ignore_index=-100, reduction="sum")


def evaluate(peft, batches):
    with torch.no_grad():
        total = loss_sum(peft, *(batches[f"eval_{n}"] for n in ("input_ids", "labels", "attention_mask")))
    return (total / (batches["eval_labels"][:, 1:] != -100).sum()).item()


def probe(peft, ids, disabled=False):
    with torch.no_grad():
        if not disabled:
            return peft(input_ids=ids).logits[0].float()
        with peft.disable_adapter():
            return peft(input_ids=ids).logits[0].float()


def make_optimizer(peft, c):
    named = lora_parameters(peft)
    groups = [{"params": [p for n, p in named.items() if "lora_A" in n], "lr": c["lr"]},
              {"params": [p for n, p in named.items() if "lora_B" in n], "lr": c["lr"] * c["loraplus_lr_ratio"]}]
    optimizer = torch.optim.AdamW(groups, betas=c["betas"], eps=c["eps"], weight_decay=c["wd"])
    schedule = (get_constant_schedule(optimizer) if c["sched"] == "constant"
                else get_linear_schedule_with_warmup(optimizer, c["warmup"], c["steps"]))
    return optimizer, schedule


def run_step(peft, optimizer, schedule, c, micros):
    """One optimizer step over its micro-batches; returns its line of the log and the gradients before clipping."""
    tokens = sum(int((labels[:, 1:] != -100).sum()) for _, labels, _ in micros)
    optimizer.zero_grad()
    loss = 0.0
    for micro in micros:
        part = loss_sum(peft, *micro) / tokens
        part.backward()
        loss += part.item()
    named = lora_parameters(peft)
    grads = {n: p.grad.clone() for n, p in named.items()}
    norm = torch.nn.utils.clip_grad_norm_(named.values(), c["clip"]).item()
    lr = optimizer.param_groups[0]["lr"]
    optimizer.step()
    schedule.step()
    return {"loss": loss, "tokens": tokens, "grad_norm": norm, "lr": lr}, grads


def run(c, batches, dtype, save):
    """Trains once; `save(what, peft, step)` is called before, after every step and at the end."""
    settings = dict(r=c["r"], lora_alpha=c["alpha"], use_rslora=c["rslora"], target_modules=c["targets"], fan_in_fan_out=c["model"] == "gpt2")
    peft = adapt(load(HERE / "families" / c["model"], dtype), settings, c["seed"] + 100)
    optimizer, schedule = make_optimizer(peft, c)
    before, log, grads = evaluate(peft, batches), [], {}
    save("initial", peft, 0)
    for step in range(1, c["steps"] + 1):
        micros = list(zip(*(batches[n][step - 1] for n in ("input_ids", "labels", "attention_mask"))))
        line, gradients = run_step(peft, optimizer, schedule, c, micros)
        log.append({"step": step, **line})
        if step in c["grads_at"]:
            grads |= {f"step{step}.{n}": g for n, g in gradients.items()}
        if step in c["save_at"]:
            save(f"step_{step:04d}", peft, step)
    save("final", peft, c["steps"])
    return dict(peft=peft, before=before, after=evaluate(peft, batches), log=log, grads=grads)


def write(name, c):
    folder, batches, probes = fresh(HERE / "runs" / name), make_batches(c), {}
    ids = batches["eval_input_ids"][:1]

    def save(what, peft, step):
        save_adapter(peft, folder / f"{what}_adapter", c["model"])
        if what == "initial":
            probes["logits_base"] = probe(peft, ids, disabled=True)
        probes[f"logits_{what}"] = probe(peft, ids)

    single = run(c, batches, torch.float32, save)
    double = run(c, batches, torch.float64, lambda *_: None)
    save_tensors(folder / "batches.safetensors", {k: v.int() for k, v in batches.items()})
    save_tensors(folder / "grads.safetensors", single["grads"])
    save_tensors(folder / "probe.safetensors", {"input_ids": ids.int(), **probes})
    finals = [torch.cat([p.double().reshape(-1) for p in lora_parameters(r["peft"]).values()]) for r in (single, double)]
    worst = lambda k: max(abs(a[k] - b[k]) for a, b in zip(single["log"], double["log"]))
    write_json(folder / "run.json", {
        "name": name, "config": c, "base_model": f"families/{c['model']}",
        "scaling": c["alpha"] / (c["r"] ** 0.5 if c["rslora"] else c["r"]), "trainable_params": finals[0].numel(),
        "dropout": 0.0, "adapter_and_optimizer_dtype": "float32", "base_dtype": "float32", "versions": versions(),
        "eval_loss_before": single["before"], "eval_loss_after": single["after"],
        "eval_loss_before_fp64": double["before"], "eval_loss_after_fp64": double["after"],
        "tolerance_vs_float64": {"max_abs_loss_diff": worst("loss"), "max_abs_grad_norm_diff": worst("grad_norm"),
                                 "final_adapter_rel_l2": ((finals[0] - finals[1]).norm() / finals[1].norm()).item()},
        "log": single["log"], "log_fp64_loss": [e["loss"] for e in double["log"]],
        "log_fp64_grad_norm": [e["grad_norm"] for e in double["log"]],
    })


for name, config in RUNS.items():
    write(name, config)
