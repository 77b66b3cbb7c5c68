"""The peer of bench/cuda/attention.ts: PyTorch's scaled_dot_product_attention, causal, of sequences of one length."""
import torch
from torch.nn.functional import scaled_dot_product_attention


def setup(sequences, length, heads, kv_heads, size, scale):
    torch.manual_seed(1)

    def rows(count):
        return torch.randn(sequences, count, length, size, dtype=torch.bfloat16, device="cuda").div_(8).requires_grad_(True)

    q, k, v, dy = rows(heads), rows(kv_heads), rows(kv_heads), rows(heads).detach()

    def forward():
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=heads != kv_heads)

    y = forward()

    def backward():
        torch.autograd.grad(y, [q, k, v], dy, retain_graph=True)

    backward()
    return {"forward": forward, "backward": backward}, {}
