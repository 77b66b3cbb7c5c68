"""A layer of PEFT's on torch's memory, by DLPack, through the C ABI: on `cuda` (the default) on a stream of torch's, or on `cpu`.

    LOWRANK_LIBRARY=build/Release/liblowrank.so python test/capi/torch_layer.py [cuda|cpu]
"""

import contextlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../examples/embed-pytorch"))
import torch
from lowrank_torch import Lowrank, replace_layers
from peft import LoraConfig, get_peft_model

T, K, N = 67, 48, 40
device = sys.argv[1] if len(sys.argv) > 1 else "cuda"
torch.manual_seed(1)
peft = get_peft_model(torch.nn.Sequential(torch.nn.Linear(K, N)), LoraConfig(r=4, lora_alpha=8, target_modules=["0"], init_lora_weights=False)).to(device)
x, dy = torch.randn(T, K, device=device), torch.randn(T, N, device=device)
adapter = [parameter for parameter in peft.parameters() if parameter.requires_grad]


def results():
    given = x.clone().requires_grad_()
    for parameter in adapter:
        parameter.grad = None
    y = peft(given)
    y.backward(dy)
    return [each.detach().clone() for each in (y, given.grad, *(parameter.grad for parameter in adapter))]


wanted = results()
stream = torch.cuda.Stream() if device == "cuda" else None
if stream is not None:
    torch.cuda.synchronize()
with contextlib.nullcontext() if stream is None else torch.cuda.stream(stream):
    replaced = replace_layers(peft, Lowrank(os.environ["LOWRANK_LIBRARY"], 2, stream))
    found = results()
if stream is not None:
    stream.synchronize()
furthest = max(float(((a - b).abs() / (1 + b.abs())).max()) for a, b in zip(found, wanted))
good = replaced == 1 and len(found) == 4 and furthest < 1e-4
print(f"{'ok' if good else 'FAILED'} y, dx, dA and dB of a layer on torch.{device} are PEFT's within 1e-4 (found {furthest:.1e})")
sys.exit(0 if good else 1)
