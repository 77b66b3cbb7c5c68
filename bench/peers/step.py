"""The peer of bench/step.child.ts: transformers + PEFT on the same model folder and the same tokens. Answers each line with one of JSON:
"load" (then the model is there), "step" (one training step) and "memory".

usage: python step.py THREADS MODEL_FOLDER RANK BATCH TOKENS none|blocks f32|bf16|f16 cpu|cuda eager|compiled
"""
import json
import sys
import time

import peft
import torch
import transformers


def status_mib(field):
    with open("/proc/self/status") as f:
        return next((int(line.split()[1]) / 1024 for line in f if line.startswith(field)), 0.0)


threads, folder, rank, batch, tokens, checkpointing, dtype, device, mode = sys.argv[1:]
torch.set_num_threads(int(threads))
transformers.logging.set_verbosity_error()
imports = status_mib("VmRSS")


def random_rows(vocab):
    """The same token ids as in step.child.ts."""
    state, ids = 1, []
    for _ in range(int(batch) * int(tokens)):
        state = (state * 1664525 + 1013904223) % 2**32
        ids.append(3 + state % (vocab - 3))
    return torch.tensor(ids).view(int(batch), int(tokens)).to(device)


def load():
    kind = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[dtype]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=kind, attn_implementation="sdpa").to(device)
    config = peft.LoraConfig(r=int(rank), lora_alpha=2 * int(rank), target_modules="all-linear", task_type="CAUSAL_LM")
    # On a GPU it is fastest with A and B in the type of the base.
    model = peft.get_peft_model(model, config, autocast_adapter_dtype=device == "cpu").train()
    model.config.use_cache = False
    if checkpointing == "blocks":
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    if mode == "compiled":
        for layer in model.base_model.model.model.layers:  # all alike: compiled once
            layer.compile()
    trained = [p for p in model.parameters() if p.requires_grad]
    return model, trained, torch.optim.AdamW(trained, lr=1e-4, fused=True), random_rows(model.config.vocab_size)


def step(model, trained, optimizer, ids):
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    value = loss.item()
    return {"ms": (time.perf_counter() - start) * 1000, "loss": value}


loaded = None
for line in sys.stdin:
    try:
        if line.strip() != "memory" and loaded is None:
            loaded = load()
        if line.strip() == "step":
            answer = step(*loaded)
        else:
            answer = {"importsMiB": imports, "peakMiB": status_mib("VmHWM"), "anonymousMiB": status_mib("RssAnon"), "fileMiB": status_mib("RssFile")}
            if device == "cuda":
                answer |= {"devicePeakMiB": torch.cuda.max_memory_allocated() / 2**20, "deviceReservedMiB": torch.cuda.max_memory_reserved() / 2**20}
    except Exception as fault:  # the other side tells
        answer = {"error": f"{type(fault).__name__}: {fault}"}
    print(json.dumps(answer), flush=True)
