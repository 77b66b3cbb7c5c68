"""Fine-tunes demo/base on demo/data with PyTorch + PEFT, with the settings of demo/demo.json: what `lowrank demo` should reach.

    pip install torch transformers peft
    python scripts/demo/check-base.py [--steps 150 --lr 4e-3 ...]

Prints held-out loss and the share of held-out rows whose greedy text contains every fact, before and after.
"""

import argparse
import json
import os
import random
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, get_scheduler

DEMO = os.path.join(os.path.dirname(__file__), "..", "..", "demo")
IGNORE = -100


def read_rows(name):
    with open(os.path.join(DEMO, "data", name), encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def encode(tokenizer, row):
    """ids [T] with <s> before and </s> after, labels [T] with the prompt masked."""
    prompt = tokenizer(row["prompt"])["input_ids"]
    completion = tokenizer(row["completion"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    return prompt + completion, [IGNORE] * len(prompt) + completion


def collate(rows):
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [0] * (width - len(row)) for row, _ in rows])
    labels = torch.tensor([row + [IGNORE] * (width - len(row)) for _, row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row, _ in rows])
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


@torch.no_grad()
def held_out_loss(model, rows):
    total, count = 0.0, 0
    for at in range(0, len(rows), 32):
        batch = collate(rows[at:at + 32])
        tokens = (batch["labels"] != IGNORE).sum().item()
        total += model(**batch).loss.item() * tokens
        count += tokens
    return total / count


@torch.no_grad()
def generate(model, tokenizer, prompts):
    tokenizer.padding_side = "left"
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    out = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=64, do_sample=False)
    return tokenizer.batch_decode(out[:, batch["input_ids"].shape[1]:], skip_special_tokens=True)


def measure(title, model, tokenizer, rows, encoded, prompts):
    model.eval()
    texts = generate(model, tokenizer, [row["prompt"] for row in rows])
    exact = sum(all(fact in text for fact in row["facts"]) for row, text in zip(rows, texts)) / len(rows)
    facts = sum(fact in text for row, text in zip(rows, texts) for fact in row["facts"]) / sum(len(row["facts"]) for row in rows)
    loss = held_out_loss(model, encoded)
    print(f"{title}: held-out loss {loss:.3f}, rows with all facts {exact:.1%}, facts {facts:.1%}", flush=True)
    for prompt, text in zip(prompts, generate(model, tokenizer, prompts) if prompts else []):
        print(f"  {prompt}\n    {text.strip()!r}")
    model.train()


def main():
    with open(os.path.join(DEMO, "demo.json"), encoding="utf-8") as file:
        settings = json.load(file)
    options = argparse.ArgumentParser()
    options.add_argument("--base", default=os.path.join(DEMO, "base"))
    options.add_argument("--every", type=int, default=0, help="measure every so many steps too")
    for key in ("rank", "alpha", "steps", "batchSize", "warmup", "seed"):
        options.add_argument("--" + key, type=int, default=settings[key])
    options.add_argument("--lr", type=float, default=settings["lr"])
    options.add_argument("--schedule", default=settings["schedule"])
    args = options.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.base)
    model = AutoModelForCausalLM.from_pretrained(args.base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=args.rank, lora_alpha=args.alpha, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.print_trainable_parameters()
    train, heldout = read_rows("train.jsonl"), read_rows("heldout.jsonl")
    encoded = [encode(tokenizer, row) for row in heldout]
    rows = [encode(tokenizer, row) for row in train]
    print(f"tokens of a row: mean {sum(len(ids) for ids, _ in rows) / len(rows):.1f}, longest {max(len(ids) for ids, _ in rows)}")
    measure("before", model, tokenizer, heldout, encoded, settings["prompts"])

    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.lr, weight_decay=0.0)
    scheduler = get_scheduler(args.schedule, optimizer, args.warmup, args.steps)
    rng, order, tokens, began = random.Random(args.seed), [], 0, time.time()
    for step in range(1, args.steps + 1):
        if len(order) < args.batchSize:
            order = rng.sample(range(len(rows)), len(rows))
        batch = collate([rows[order.pop()] for _ in range(args.batchSize)])
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        tokens += batch["attention_mask"].sum().item()
        if args.every and step % args.every == 0 and step < args.steps:
            print(f"step {step}: train loss {loss.item():.3f}, {tokens} tokens, {time.time() - began:.0f} s")
            measure("  then", model, tokenizer, heldout, encoded, [])
    print(f"{args.steps} steps, {tokens} tokens, {time.time() - began:.0f} s")
    measure("after", model, tokenizer, heldout, encoded, settings["prompts"])


if __name__ == "__main__":
    main()
