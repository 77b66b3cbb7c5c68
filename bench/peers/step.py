"""The peer of bench/step.child.ts: transformers + PEFT training steps on the same model folder. Prints one JSON line.

usage: python step.py MODEL_FOLDER RANK BATCH TOKENS STEPS DTYPE(f32|bf16)
"""
import json
import sys
import time


def rss_mib(field):
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith(field):
                return int(line.split()[1]) / 1024
    return 0.0


import torch
import peft
import transformers

folder, rank, batch, tokens, steps, dtype = sys.argv[1], *map(int, sys.argv[2:6]), sys.argv[6]
torch.set_num_threads(2)
transformers.logging.set_verbosity_error()
imports = rss_mib("VmRSS")
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32 if dtype == "f32" else torch.bfloat16, attn_implementation="sdpa")
config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
model = peft.get_peft_model(model, config)
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
generator = torch.Generator().manual_seed(1)
ids = torch.randint(3, model.config.vocab_size, (batch, tokens), generator=generator)
times, losses = [], []
for _ in range(steps):
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    losses.append(loss.item())
    times.append(time.perf_counter() - start)
print(json.dumps({"who": f"PEFT {dtype}", "seconds": times, "losses": losses, "importsMiB": imports, "peakMiB": rss_mib("VmHWM"), "versions": {"torch": torch.__version__, "peft": peft.__version__}}))
