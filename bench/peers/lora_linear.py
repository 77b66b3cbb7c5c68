"""The peers of bench/lora-linear.ts: nn.Linear frozen, and PEFT's LoRA layer over it; backward to x, A and B."""
import peft
import torch

kinds = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def setup(T, K, N, r, dtypes, device="cpu"):
    """The works of the first dtype go by their names, those of others behind their dtype's."""
    works = {}
    for dtype in dtypes:
        prefix = "" if dtype == dtypes[0] else f"{dtype} "
        for name, once in layer_works(T, K, [N], r, kinds[dtype], device).items():
            works[prefix + name] = once
    return works, {"works": list(works)}


def layer_works(T, K, parts, r, dtype, device):
    """Forward and backward of layers that read one x (q, k, v), with PEFT's adapters or without."""
    torch.manual_seed(1)
    bases = [torch.nn.Linear(K, N, bias=False, dtype=dtype, device=device) for N in parts]
    for base in bases:
        base.weight.requires_grad_(False)
    x = torch.randn(T, K, dtype=dtype, device=device).div_(8).requires_grad_(True)
    dys = [torch.randn(T, N, dtype=dtype, device=device).div_(8) for N in parts]

    def work(layers):
        trained = [p for layer in layers for p in layer.parameters() if p.requires_grad]

        def once():
            for tensor in [x, *trained]:
                tensor.grad = None
            torch.autograd.backward([layer(x) for layer in layers], dys)

        return once

    adapted_layers = {f"p={p:g}": [adapted(base, r, p) for base in bases] for p in (0, 0.1)}
    works = {"frozen": work(bases), **{name: work(layers) for name, layers in adapted_layers.items()}}
    for once in works.values():
        once()
    grads = [p.grad is not None for layer in adapted_layers["p=0"] for p in layer.parameters() if p.requires_grad]
    if grads != [True] * (2 * len(parts)) or x.grad is None:
        raise RuntimeError(f"PEFT's layer must give gradients to x, A and B (it gave {grads})")
    return works


def adapted(base, rank, dropout):
    """PEFT's layer over the same W0. On a GPU A and B have the type of W0, which is what it runs fastest with."""
    holder = torch.nn.Module()
    holder.layer = base
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=dropout, target_modules=["layer"])
    layer = peft.inject_adapter_in_model(config, holder).layer
    torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.02)
    return (layer.to(base.weight.dtype) if base.weight.is_cuda else layer).train()
