"""In which dtype an encoder computes.

Half precision here means: the weights of linear layers and convolutions are kept in it and their products run in it
under autocast, while norms, the residual stream and everything stored stay in float32 where the model lets them.

On a CPU oneDNN is called for linear layers without a detour, in half precision and, with AVX-512, in float32, where
torch takes them to MKL.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from speechfeat.encoders.onednn import has_room, laid_out, multiply
from speechfeat.errors import ParameterError

INT8 = "int8"
# Smaller layers gain nothing in int8.
LEAST_INT8 = 64
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """The dtype of an encoder's matrix products.

    Attributes:
        name: "float32", "bfloat16", "float16", or "int8": of linear layers alone, the rest as "auto" has it.
    """

    name: str

    @classmethod
    def choose(cls, dtype: str, device: torch.device) -> "Precision":
        """Resolve "auto": bfloat16 where the device has matrix products in it, else float32.

        Raises:
            ParameterError: for an unknown name, float16 on a CPU that would emulate it, or int8 where there are no
                products of it.
        """
        if dtype == "auto":
            return cls("bfloat16" if has_fast_bfloat16(device) else "float32")
        if dtype not in (*DTYPES, INT8):
            raise ParameterError(f"dtype={dtype!r} is not known; use 'auto', {', '.join(map(repr, (*DTYPES, INT8)))}")
        if dtype == "float16" and device.type == "cpu" and not has_onednn(device, torch.float16):
            raise ParameterError(
                "dtype='float16' would be emulated on this CPU, many times slower than float32; use 'auto', "
                "'bfloat16' or 'float32'"
            )
        if dtype == INT8 and not has_int8(device):
            raise ParameterError(
                f"dtype='int8' is for CPUs with AVX-512 VNNI, and {device} is none; use 'auto', 'bfloat16' or 'float32'"
            )
        return cls(dtype)

    @property
    def dtype(self) -> torch.dtype:
        """Of all products that are not in int8."""
        if self.name == INT8:
            return torch.bfloat16 if has_fast_bfloat16(torch.device("cpu")) else torch.float32
        return DTYPES[self.name]

    def convert(self, module: nn.Module, device: torch.device) -> None:
        """Bake weight normalisation, bring matrix products to this dtype and all else to float32, in place.

        Args:
            module: to be run without gradients.
            device: that it will run on.
        """
        module.float()
        for layer in module.modules():
            if nn.utils.parametrize.is_parametrized(layer, "weight"):
                nn.utils.parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        half = self.dtype != torch.float32
        takes_onednn, lays_out = prefers_onednn(device, self.dtype), has_room(module, self.dtype)
        for layer in module.modules():
            if self.name == INT8 and type(layer) is nn.Linear and min(layer.weight.shape) >= LEAST_INT8:
                to_int8(layer)
            elif takes_onednn and type(layer) is nn.Linear:
                layer.__class__ = OneDnnLinear
                layer.__dict__["lays_out"] = lays_out
            if half and isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
                layer.to(self.dtype)

    def contexts(self, device: torch.device) -> list[AbstractContextManager]:
        """What to enter around a forward pass."""
        if self.dtype == torch.float32:
            # TF32, which torch allows in cuDNN by default, keeps 10 bits of mantissa: not float32.
            return [torch.backends.cudnn.flags(enabled=True, allow_tf32=False)] if device.type == "cuda" else []
        return [torch.autocast(device.type, self.dtype)]


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32 ones on a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, check, bool)() for check in checks)
    return False


class OneDnnLinear(nn.Linear):
    """A linear layer on a CPU whose product oneDNN makes in the dtype of its weights, where no gradient is wanted."""

    lays_out = True

    def forward(self, inputs: Tensor) -> Tensor:
        """As the stock layer, in half precision under autocast."""
        dtype = self.weight.dtype
        wants_half = torch.is_autocast_enabled("cpu")
        if torch.is_grad_enabled() or wants_half == (dtype == torch.float32) or not inputs.is_floating_point():
            return super().forward(inputs)
        return multiply(inputs.to(dtype), laid_out(self) if self.lays_out else self.weight, self.bias)


def is_plain(layer: nn.Module) -> bool:
    """Whether the weights of a layer say all of what it does: neither an adapter nor 8 bits have taken its place."""
    return type(layer) in (nn.Linear, OneDnnLinear, nn.Conv1d)


class Int8Linear(nn.Linear):
    """A linear layer on a CPU with weights in int8, a scale for each output; inputs are rounded to 8 bits, too.

    Inputs share one scale: what is encoded together changes what each gives. Training would change the weights that it
    was made of and not those that it runs on.
    """

    packed: Any

    def forward(self, inputs: Tensor) -> Tensor:
        """As the stock layer, to 8 bits of the largest input; float32."""
        # What is not finite has no scale; it is passed on for the run to tell of.
        if torch.is_grad_enabled() or not inputs.isfinite().all():
            return super().forward(inputs.to(self.weight.dtype)).float()
        return torch.ops.quantized.linear_dynamic(inputs.float(), self.packed, False)


def to_int8(layer: nn.Linear) -> None:
    """Round a layer's weights to 8 bits of the largest of each output, in place."""
    weight = layer.weight.detach().float()
    scales = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
    rounded = torch.quantize_per_channel(weight, scales, torch.zeros_like(scales, dtype=torch.long), 0, torch.qint8)
    bias = None if layer.bias is None else layer.bias.detach().float()
    engine = torch.backends.quantized.engine
    torch.backends.quantized.engine = "onednn"
    try:
        packed = torch.ops.quantized.linear_prepack(rounded, bias)
    finally:
        torch.backends.quantized.engine = engine
    layer.__class__ = Int8Linear
    layer.packed = packed


def has_int8(device: torch.device) -> bool:
    """Whether a device multiplies int8 faster than anything else."""
    if device.type != "cpu" or "onednn" not in torch.backends.quantized.supported_engines:
        return False
    return bool(_capabilities().get("avx512_vnni"))


def has_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies numbers of a dtype on a device."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    checks = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    return dtype not in checks or getattr(torch.ops.mkldnn, checks[dtype])()


def prefers_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN is called for linear layers without a detour.

    In float32 where it was seen to be faster than MKL: with AVX-512, by 2 on processors of AMD, by 1.0 to 1.5 on those
    of Intel (`python -m benchmarks.cpu_kernels`).
    """
    if dtype != torch.float32:
        return has_onednn(device, dtype)
    return has_onednn(device, dtype) and bool(_capabilities().get("avx512_f"))


def has_slow_mkl(device: torch.device) -> bool:
    """Whether MKL, which torch takes attention to, keeps from AVX-512 that the processor has, as on those of AMD."""
    return (
        prefers_onednn(device, torch.float32)
        and torch.backends.mkl.is_available()
        and "AMD" in str(_capabilities().get("cpu_name"))
    )


@cache
def _capabilities() -> Mapping[str, object]:
    """Of the processor."""
    return getattr(torch.cpu, "get_capabilities", dict)()
