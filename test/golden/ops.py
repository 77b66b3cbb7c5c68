"""Writes ops.json: small cases of the ops and their gradients, by PyTorch autograd, transformers and PEFT.

Inputs are f32 values; everything is computed in f64, so that the oracle (also f64) is held to 1e-12 and not to f32's 1e-6.
Half-float cases are the exception: they are f32 values and the bits torch gives them.
"""

import json
import math
import pathlib

import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from transformers.activations import ACT2FN
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding, apply_rotary_pos_emb

HERE = pathlib.Path(__file__).parent
torch.manual_seed(1)
torch.set_num_threads(1)
OPS: dict[str, list] = {}


def rand(*shape, scale=1.0):
    """f32 values held as f64, three decimals, so that the file stays short."""
    return (torch.randn(*shape) * scale * 1000).round().div(1000).float().double()


def leaf(*shape, scale=1.0):
    return rand(*shape, scale=scale).requires_grad_()


def add(op, name, numbers, arrays):
    flat = {k: v.detach().reshape(-1).tolist() for k, v in arrays.items()}
    OPS.setdefault(op, []).append({"name": name, "numbers": numbers, "arrays": flat})


def rms_norm():
    for N, C, eps in [(3, 7, 1e-5), (1, 1, 1e-6), (2, 16, 0.5)]:
        norm = LlamaRMSNorm(C, eps).double()
        norm.weight.data = rand(C)
        # LlamaRMSNorm computes its statistics in f32; the formula below is its own, kept in f64.
        x, dy = leaf(N, C), rand(N, C)
        y = norm.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))
        assert torch.allclose(y, norm(x.float()).double(), atol=1e-5)
        y.backward(dy)
        add("rms_norm", f"{N}x{C}", {"N": N, "C": C, "eps": eps},
            {"x": x, "w": norm.weight, "dy": dy, "y": y, "dx": x.grad})


def layer_norm():
    for N, C, eps in [(3, 7, 1e-5), (2, 16, 1e-3)]:
        x, w, b, dy = leaf(N, C), rand(C), rand(C), rand(N, C)
        y = F.layer_norm(x, (C,), w, b, eps)
        y.backward(dy)
        add("layer_norm", f"{N}x{C}", {"N": N, "C": C, "eps": eps}, {"x": x, "w": w, "b": b, "dy": dy, "y": y, "dx": x.grad})


def qk_norm():
    T, H, G, D, eps = 3, 4, 2, 6, 1e-6
    x, wq, wk, dy = leaf(T, H + 2 * G, D), rand(D), rand(D), rand(T, H + 2 * G, D)
    q, k, v = x.split([H, G, G], dim=1)
    y = torch.cat([F.rms_norm(q, (D,), wq, eps), F.rms_norm(k, (D,), wk, eps), v], dim=1)
    y.backward(dy)
    add("qk_norm", "4 q heads, 2 kv heads", {"T": T, "H": H, "G": G, "D": D, "eps": eps},
        {"x": x, "wq": wq, "wk": wk, "dy": dy, "y": y, "dx": x.grad})


def rope():
    T, H, G, D, P = 4, 3, 1, 6, 12
    config = LlamaConfig(hidden_size=H * D, num_attention_heads=H, head_dim=D, max_position_embeddings=P)
    embed = LlamaRotaryEmbedding(config)
    cos, sin = embed(torch.zeros(1, dtype=torch.float32), torch.arange(P)[None])
    table = torch.cat([cos[0, :, : D // 2], sin[0, :, : D // 2]], dim=1).double()
    positions = torch.tensor([0, 3, 11, 1])
    x, dy = leaf(T, H + 2 * G, D), rand(T, H + 2 * G, D)
    q, k, v = x.split([H, G, G], dim=1)
    turn = [t[0, positions].double()[None] for t in (cos, sin)]
    q2, k2 = apply_rotary_pos_emb(q.transpose(0, 1)[None], k.transpose(0, 1)[None], *turn)
    y = torch.cat([q2[0].transpose(0, 1), k2[0].transpose(0, 1), v], dim=1)
    y.backward(dy)
    add("rope", "positions out of order", {"T": T, "H": H, "G": G, "D": D, "P": P, "theta": 10000.0},
        {"x": x, "positions": positions, "table": table, "dy": dy, "y": y, "dx": x.grad})


def attention():
    cases = [
        ("one sequence", 5, 2, 2, 4, 0, [0, 5]),
        ("grouped heads, packed", 7, 4, 2, 4, 0, [0, 3, 3, 4, 7]),
        ("window of 3, one kv head", 8, 3, 1, 6, 3, [0, 8]),
        ("window of 2, packed", 9, 4, 2, 2, 2, [0, 4, 9]),
    ]
    for name, T, H, G, D, window, offsets in cases:
        qkv, dy = leaf(T, H + 2 * G, D), rand(T, H, D)
        owner = torch.bucketize(torch.arange(T), torch.tensor(offsets[1:]), right=True)
        i, j = torch.arange(T)[:, None], torch.arange(T)[None]
        mask = (j <= i) & (owner[:, None] == owner[None])
        if window:
            mask &= j > i - window
        q, k, v = (t.transpose(0, 1)[None] for t in qkv.split([H, G, G], dim=1))
        scale = 0.7 / math.sqrt(D)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)
        y = y[0].transpose(0, 1)
        y.backward(dy)
        scores = scale * q[0] @ k[0].repeat_interleave(H // G, 0).transpose(1, 2)
        lse = scores.masked_fill(~mask, -math.inf).logsumexp(-1).T
        add("attention", name, {"T": T, "H": H, "G": G, "D": D, "window": window, "scale": scale},
            {"qkv": qkv, "offsets": torch.tensor(offsets), "dy": dy, "y": y, "lse": lse, "dqkv": qkv.grad})


def lora_linear():
    """Three PEFT LoRA layers that read one x, as q, k and v do; k has no adapter."""
    T, K, bias = 4, 5, True
    parts = [(6, 2, 7.0), (3, 0, 0.0), (3, 3, 4.0)]
    x, dy = leaf(T, K), rand(T, sum(n for n, _, _ in parts))
    layers = torch.nn.ModuleDict({f"p{i}": torch.nn.Linear(K, n, bias=bias) for i, (n, _, _) in enumerate(parts)})
    adapted = {f"p{i}": (r, a) for i, (_, r, a) in enumerate(parts) if r}
    config = LoraConfig(r=2, target_modules=list(adapted), rank_pattern={k: r for k, (r, _) in adapted.items()},
                        alpha_pattern={k: a for k, (_, a) in adapted.items()})
    inject_adapter_in_model(config, layers)
    layers.double()
    for p in layers.parameters():
        p.data = rand(*p.shape)
    base = [getattr(m, "base_layer", m) for m in layers.values()]
    loras = [m for m in layers.values() if hasattr(m, "lora_A")]
    y = torch.cat([m(x) for m in layers.values()], dim=1)
    y.backward(dy)
    A = [m.lora_A["default"].weight for m in loras]
    B = [m.lora_B["default"].weight for m in loras]
    flat = lambda tensors: torch.cat([t.reshape(-1) for t in tensors])
    add("lora_linear", "q and v of q|k|v", {"T": T, "K": K},
        {"x": x, "W": flat([m.weight for m in base]), "b": flat([m.bias for m in base]), "A": flat(A), "B": flat(B),
         "N": torch.tensor([n for n, _, _ in parts]), "r": torch.tensor([r for _, r, _ in parts]),
         "s": torch.tensor([a / r if r else 0 for _, r, a in parts], dtype=torch.float64),
         "dy": dy, "y": y, "dx": x.grad, "dA": flat([t.grad for t in A]), "dB": flat([t.grad for t in B])})


def activations():
    x, dy = leaf(3, 10, scale=2.0), rand(3, 5)
    gate, up = x.split(5, dim=1)
    y = ACT2FN["silu"](gate) * up
    y.backward(dy)
    add("swiglu", "3x5", {"T": 3, "F": 5}, {"x": x, "dy": dy, "y": y, "dx": x.grad})
    for kind, name in [("erf", "gelu"), ("tanh", "gelu_new")]:
        x = torch.tensor([-9.0, -6.5, -3.0, -2.8, -1.0, -1e-3, 0.0, 1e-3, 0.5, 2.0, 2.9, 4.0, 8.0]).double().requires_grad_()
        dy = rand(13)
        y = ACT2FN[name](x)
        y.backward(dy)
        add("gelu", kind, {}, {"x": x, "dy": dy, "y": y, "dx": x.grad})


def cross_entropy():
    T, C, V, scale = 6, 4, 9, 0.25
    x, W = leaf(T, C), rand(V, C, scale=2.0)
    targets = torch.tensor([3, -100, 0, 8, -100, 3])
    logits = x @ W.T
    logits.retain_grad()
    loss = F.cross_entropy(logits, targets, reduction="sum")
    (loss * scale).backward()
    add("cross_entropy", "two ignored", {"T": T, "C": C, "V": V, "scale": scale, "loss": loss.item()},
        {"x": x, "W": W, "targets": targets, "logits": logits, "dlogits": logits.grad, "dx": x.grad})


def optimizers():
    grads = rand(4, 5)
    settings = {
        "adamw": [dict(lr=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01), dict(lr=0.02, betas=(0.5, 0.9), eps=1e-2, weight_decay=0.0)],
        "sgd": [dict(lr=0.1, momentum=0.0, weight_decay=0.0), dict(lr=0.1, momentum=0.9, weight_decay=0.1)],
    }
    for op, cases in settings.items():
        for number, case in enumerate(cases):
            p = leaf(5)
            start, steps = p.detach().clone(), []
            optimizer = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[op]([p], **case)
            for g in grads:
                p.grad = g.clone()
                optimizer.step()
                steps.append(p.detach().clone())
            numbers = {k: v for k, v in case.items() if k != "betas"}
            if "betas" in case:
                numbers |= {"beta1": case["betas"][0], "beta2": case["betas"][1]}
            add(op, f"settings {number}", numbers, {"p": start, "grads": grads, "steps": torch.stack(steps)})
    g = leaf(7, scale=3.0)
    for clip in (1.0, 100.0):
        g.grad = g.detach().clone()
        norm = torch.nn.utils.clip_grad_norm_([g], clip)
        add("clip", f"clip {clip}", {"clip": clip, "norm": norm.item()}, {"g": g, "clipped": g.grad})


def half():
    values = torch.cat([
        torch.tensor([0.0, -0.0, 1.0, -2.5, 65504.0, 65519.0, 65520.0, 1e30, 3.4028235e38, -3.39e38, 6e-8, 2.98e-8, 2.9802322e-8, 3e-8,
                      6.1e-5, 6.097e-5, 6.1035156e-05, 1e-40, 9.2e-41, 4.6e-41, 4.5e-41, 1e-45, 1.00048828125, 1.00146484375, 1.00390625, 1.01171875, 2047.9, 2049.0, 2051.0]),
        torch.randn(40), torch.randn(40) * 10.0 ** torch.randint(-9, 6, (40,)),
    ]).float()
    bits = lambda t: t.view(torch.int16).int() & 0xFFFF
    add("half", "f32 to 16 bits", {}, {"x": values.double(), "f16": bits(values.half()), "bf16": bits(values.bfloat16())})


for write in (rms_norm, layer_norm, qk_norm, rope, attention, lora_linear, activations, cross_entropy, optimizers, half):
    write()
lines = ",\n".join(f'{json.dumps(op)}: [\n' + ",\n".join(json.dumps(c) for c in cases) + "]" for op, cases in OPS.items())
(HERE / "ops.json").write_text("{" + lines + "}\n")
