"""The peer of bench/decode.ts: greedy decoding with a cache. The loop is the model's forward pass and an argmax: generate() adds to that."""
import peft
import torch
import transformers


def decoder(model, prompt, tokens, texts=1):
    with torch.inference_mode():
        out = model(input_ids=torch.tensor([prompt] * texts), use_cache=True)
    cache, first = out.past_key_values, out.logits[:, -1].float()

    def work():
        ids = [first.argmax(-1, keepdim=True)]
        with torch.inference_mode():
            cache.crop(len(prompt))
            while len(ids) < tokens:
                ids.append(model(input_ids=ids[-1], past_key_values=cache, use_cache=True).logits[:, -1].argmax(-1, keepdim=True))
        return torch.cat(ids, 1)[0].tolist()

    return work, {"ids": work(), "logits": first[0, :64].tolist()}


def setup(folder, adapter, prompt, tokens, texts):
    transformers.logging.set_verbosity_error()

    def base(dtype):
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()

    def adapted(dtype):
        return peft.PeftModel.from_pretrained(base(dtype), adapter).eval()

    models = {
        "PEFT f32, base": base(torch.float32),
        "PEFT f32, adapter": adapted(torch.float32),
        "PEFT f32, merged": adapted(torch.float32).merge_and_unload(),
        "PEFT bf16, base": base(torch.bfloat16),
        "PEFT bf16, adapter": adapted(torch.bfloat16),
    }
    made = {who: decoder(model, prompt, tokens) for who, model in models.items()}
    made |= {f"{who} of {texts} texts": decoder(models[who], prompt, tokens, texts) for who in ("PEFT f32, adapter", "PEFT bf16, adapter")}
    return {who: work for who, (work, _) in made.items()}, {who: facts for who, (_, facts) in made.items()}
