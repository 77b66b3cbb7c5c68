"""The peers of bench/lora-linear.ts: nn.Linear frozen, and PEFT's LoRA layer over it; backward to x, A and B."""
import peft
import torch


def setup(T, K, N, r, dtypes):
    works = {}
    for dtype in dtypes:
        prefix = "" if dtype == "f32" else f"{dtype} "
        for name, once in layer_works(T, K, N, r, {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype]).items():
            works[prefix + name] = once
    return works, {"works": list(works)}


def layer_works(T, K, N, r, dtype):
    torch.manual_seed(1)
    base = torch.nn.Linear(K, N, bias=False, dtype=dtype)
    base.weight.requires_grad_(False)
    x = torch.randn(T, K, dtype=dtype).div_(8).requires_grad_(True)
    dy = torch.randn(T, N, dtype=dtype).div_(8)
    layers = {f"p={p:g}": adapted(base, r, p) for p in (0, 0.1)}

    def work(layer):
        trained = [p for p in layer.parameters() if p.requires_grad]

        def once():
            for tensor in [x, *trained]:
                tensor.grad = None
            layer(x).backward(dy)

        return once

    works = {"frozen": work(base), **{name: work(layer) for name, layer in layers.items()}}
    for once in works.values():
        once()
    grads = [p.grad is not None for p in layers["p=0"].parameters() if p.requires_grad]
    if grads != [True, True] or x.grad is None:
        raise RuntimeError(f"PEFT's layer must give gradients to x, A and B (it gave {grads})")
    return works


def adapted(base, rank, dropout):
    """PEFT's layer over the same W0."""
    holder = torch.nn.Module()
    holder.layer = base
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=dropout, target_modules=["layer"])
    layer = peft.inject_adapter_in_model(config, holder).layer
    torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.02)
    return layer.train()
