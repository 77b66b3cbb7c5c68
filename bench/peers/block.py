"""The peer of bench/cuda/block.ts: all linears of a decoder layer, one after the other, each forward and backward."""
from lora_linear import kinds, layer_works


def setup(T, layers, r, dtype, device):
    made = [layer_works(T, layer["K"], layer["parts"], r, kinds[dtype], device) for layer in layers]

    def all_of(name):
        return lambda: [works[name]() for works in made]

    return {name: all_of(name) for name in made[0]}, {"works": list(made[0])}
