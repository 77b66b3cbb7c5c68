"""Logits by transformers + PEFT: for each line {"model", "adapter" or null, "out", "ids"} raw little-endian f32 [T, V] in the file `out`, and an empty object."""
import json
import sys

import torch
import peft
import transformers

transformers.logging.set_verbosity_error()
for line in sys.stdin:
    ask = json.loads(line)
    model = transformers.AutoModelForCausalLM.from_pretrained(ask["model"], dtype=torch.float32, attn_implementation="eager")
    if ask["adapter"] is not None:
        model = peft.PeftModel.from_pretrained(model, ask["adapter"])
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ask["ids"]])).logits[0].float()
    logits.numpy().astype("<f4").tofile(ask["out"])
    print("{}", flush=True)
