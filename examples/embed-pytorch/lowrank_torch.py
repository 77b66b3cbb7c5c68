"""lowrank for PyTorch: ctypes structs of lowrank.h, tensors by DLPack, and a torch.autograd.Function that does what PEFT's LoRA linear does."""

import ctypes

import torch
from peft.tuners.lora import Linear as PeftLinear


class Tensor(ctypes.Structure):  # lowrank_tensor
    _fields_ = [("data", ctypes.c_void_p), ("dtype", ctypes.c_int32), ("rank", ctypes.c_int32), ("dims", ctypes.c_int64 * 4),
                ("row_pitch", ctypes.c_int64)] + [(name, ctypes.c_int32) for name in ("device_type", "device_index", "spare", "reserved")]


class Weight(ctypes.Structure):  # lowrank_weight
    _fields_ = [("data", ctypes.c_void_p * 3), ("out", ctypes.c_int64 * 3), ("in_", ctypes.c_int64), ("row_pitch", ctypes.c_int64)] + [
        (name, ctypes.c_int32) for name in ("dtype", "order", "parts", "border", "device_type", "device_index")]


class Options(ctypes.Structure):  # lowrank_options
    _fields_ = [("abi", ctypes.c_uint32)] + [(name, ctypes.c_int32) for name in (
        "device_type", "device_index", "threads", "matmul_precision", "reserved")] + [("stream", ctypes.c_void_p)]


ADAPTER = [("rank", ctypes.c_int64 * 3), ("scale", ctypes.c_float * 3), ("layer", ctypes.c_uint32 * 3), ("dropout", ctypes.c_float),
           ("seed_low", ctypes.c_uint32), ("seed_high", ctypes.c_uint32), ("step", ctypes.c_uint32)]


class Forward(ctypes.Structure):  # lowrank_lora_linear_args
    _fields_ = [("y", Tensor), ("u", Tensor), ("x", Tensor), ("w", Weight)] + [(n, Tensor) for n in ("bias", "carry", "a", "b")] + ADAPTER


class Backward(ctypes.Structure):  # lowrank_lora_linear_grad_args
    _fields_ = [(n, Tensor) for n in ("dx", "da", "db", "dy", "x", "u")] + [("w", Weight), ("a", Tensor), ("b", Tensor)] + ADAPTER


class Lowrank:
    """The library with one context: on the CPU, or on the GPU of a stream (torch.cuda.Stream)."""

    def __init__(self, library, threads, stream=None):
        self.library = ctypes.CDLL(library)
        self.library.lowrank_last_error.restype = ctypes.c_char_p
        self.library.lowrank_abi.restype = ctypes.c_uint32
        self.context = ctypes.c_void_p()
        where = dict(device_type=1) if stream is None else dict(device_type=2, device_index=stream.device.index, stream=stream.cuda_stream)
        options = Options(abi=self.library.lowrank_abi(), threads=threads, **where)
        self.check(self.library.lowrank_open(ctypes.byref(options), ctypes.byref(self.context)))

    def check(self, status):
        if status != 0:
            raise RuntimeError(self.library.lowrank_last_error().decode())

    def call(self, op, args):
        self.check(getattr(self.library, f"lowrank_{op}")(self.context, ctypes.byref(args)))

    def tensor(self, t):
        """A view of a torch tensor, by way of DLPack; the capsule dies here and torch keeps the bytes."""
        capsule = torch.utils.dlpack.to_dlpack(t.detach())
        pointer, view = ctypes.pythonapi.PyCapsule_GetPointer, Tensor()
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        self.check(self.library.lowrank_tensor_from_dlpack(ctypes.c_void_p(pointer(capsule, b"dltensor")), ctypes.byref(view)))
        return view


class LoraLinear(torch.autograd.Function):
    """y = x W^T + bias + scale (x A^T) B^T; W and bias are frozen."""

    @staticmethod
    def forward(ctx, x, layer, a, b):  # a and b are named so that autograd knows them; their views are in layer.operands
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        y, u = rows.new_empty(len(rows), layer.out), rows.new_empty(len(rows), len(a))
        view = layer.lowrank.tensor
        args = Forward(y=view(y), u=view(u), x=view(rows), **layer.operands)
        if layer.bias is not None:
            args.bias = view(layer.bias)
        layer.lowrank.call("lora_linear", args)
        ctx.save_for_backward(rows, u)
        ctx.layer, ctx.shape = layer, x.shape
        return y.view(*x.shape[:-1], layer.out)

    @staticmethod
    def backward(ctx, dy):
        rows, u = ctx.saved_tensors
        layer, view = ctx.layer, ctx.layer.lowrank.tensor
        dy, da, db = dy.reshape(-1, dy.shape[-1]).contiguous(), torch.zeros_like(layer.a), torch.zeros_like(layer.b)
        args = Backward(da=view(da), db=view(db), dy=view(dy), x=view(rows), u=view(u), **layer.operands)
        dx = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        if dx is not None:
            args.dx = view(dx)
        layer.lowrank.call("lora_linear_grad", args)
        return None if dx is None else dx.view(ctx.shape), None, da, db


def refuse_more_than_lora(peft):
    """Raises for what PEFT would do in this layer and Layer doesn't."""
    dropout = getattr(peft.lora_dropout["default"], "p", 0.0)
    more = [f"dropout (lora_dropout {dropout})"] * (dropout > 0) + [type(v).__name__ for v in peft.lora_variant.values()]
    more += ["lora_bias"] * (peft.lora_B["default"].bias is not None) + ["merged weights"] * peft.merged
    more += [f"adapters beside it ({', '.join(peft.active_adapters)})"] * (list(peft.active_adapters) != ["default"])
    if more:
        raise ValueError(f"lowrank.Layer: must be plain LoRA of one adapter, \"default\" (found {', '.join(more)})")


class Layer(torch.nn.Module):
    """In place of a peft.tuners.lora.Linear, on its own parameters."""

    def __init__(self, peft, lowrank):
        super().__init__()
        refuse_more_than_lora(peft)
        base = peft.get_base_layer()
        self.a, self.b = peft.lora_A["default"].weight, peft.lora_B["default"].weight
        self.frozen, self.bias, self.lowrank, self.out = base.weight, base.bias, lowrank, base.out_features
        w = lowrank.tensor(base.weight)
        weight = Weight(data=(w.data,), out=(base.out_features,), in_=base.in_features, dtype=w.dtype, parts=1)
        # Optimizers change A and B where they are, so these views stay true.
        self.operands = dict(w=weight, a=lowrank.tensor(self.a), b=lowrank.tensor(self.b), rank=(len(self.a),), scale=(peft.scaling["default"],))

    def forward(self, x):
        return LoraLinear.apply(x, self, self.a, self.b)


def replace_layers(model, lowrank):
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, PeftLinear)]
    for name, module in found:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, Layer(module, lowrank))
    return len(found)
