"""The peers of bench/optimizer.ts: torch's fused AdamW over 128 tensors and over one flat tensor, the same numbers on both sides."""
import torch


def setup(count, lr, beta1, beta2, eps, weightDecay, step):
    at = torch.arange(count, dtype=torch.float64)
    values, gradients = torch.sin(at).float(), (torch.cos(at) / 16).float()
    del at
    works, first = {}, {}
    for name, pieces in (("torch fused, 128 tensors", 128), ("torch fused, one tensor", 1)):
        parameters = [torch.nn.Parameter(piece.clone()) for piece in values.tensor_split(pieces)]
        for parameter, piece in zip(parameters, gradients.tensor_split(pieces)):
            parameter.grad = piece.clone()
        optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weightDecay, fused=True)
        optimizer.step()
        first[name] = torch.cat([p.detach() for p in parameters])[:16].tolist()
        works[name] = optimizer.step
        works[f"{name}, with clipping"] = clipped(parameters, optimizer)
    return works, {"works": list(works), "first": first}


def clipped(parameters, optimizer):
    def once():
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return once
