"""Logits by transformers + PEFT. usage: python logits.py MODEL ADAPTER_OR_- OUT IDS...   (OUT: raw little-endian f32 [T, V])"""
import sys

import torch
import peft
import transformers

folder, adapter, out, ids = sys.argv[1], sys.argv[2], sys.argv[3], [int(i) for i in sys.argv[4:]]
transformers.logging.set_verbosity_error()
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
if adapter != "-":
    model = peft.PeftModel.from_pretrained(model, adapter)
model.eval()
with torch.no_grad():
    logits = model(input_ids=torch.tensor([ids])).logits[0].float()
logits.numpy().astype("<f4").tofile(out)
