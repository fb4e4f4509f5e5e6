"""In which dtype an encoder computes.

Half precision here means: the weights of linear layers and convolutions are kept in it and their products run in it
under autocast, while norms, the residual stream and everything stored stay in float32 where the model lets them.

On a CPU oneDNN is called for linear layers without a detour: in half precision, and in float32 where MKL, which torch
takes them to, is slow at them.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechfeat.errors import ParameterError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """The dtype of an encoder's matrix products.

    Attributes:
        name: "float32", "bfloat16" or "float16".
    """

    name: str

    @classmethod
    def choose(cls, dtype: str, device: torch.device) -> "Precision":
        """Resolve "auto": bfloat16 where the device has matrix products in it, else float32.

        Raises:
            ParameterError: for an unknown name, or float16 on a CPU that would emulate it.
        """
        if dtype == "auto":
            return cls("bfloat16" if has_fast_bfloat16(device) else "float32")
        if dtype not in DTYPES:
            raise ParameterError(f"dtype={dtype!r} is not known; use 'auto', {', '.join(map(repr, DTYPES))}")
        if dtype == "float16" and device.type == "cpu" and not has_onednn(device, torch.float16):
            raise ParameterError(
                "dtype='float16' would be emulated on this CPU, many times slower than float32; use 'auto', "
                "'bfloat16' or 'float32'"
            )
        return cls(dtype)

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
        half = self.name != "float32"
        takes_one_dnn = has_onednn(device, DTYPES[self.name]) if half else has_slow_mkl(device)
        for layer in module.modules():
            if half and isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
                layer.to(DTYPES[self.name])
            if takes_one_dnn and type(layer) is nn.Linear:
                layer.__class__ = OneDnnLinear

    def contexts(self, device: torch.device) -> list[AbstractContextManager]:
        """What to enter around a forward pass."""
        if self.name == "float32":
            # TF32, which torch allows in cuDNN by default, keeps 10 bits of mantissa: not float32.
            return [torch.backends.cudnn.flags(enabled=True, allow_tf32=False)] if device.type == "cuda" else []
        return [torch.autocast(device.type, DTYPES[self.name])]


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

    def forward(self, inputs: Tensor) -> Tensor:
        """As the stock layer, in half precision under autocast."""
        dtype = self.weight.dtype
        wants_half = torch.is_autocast_enabled("cpu")
        if torch.is_grad_enabled() or wants_half == (dtype == torch.float32) or not inputs.is_floating_point():
            return super().forward(inputs)
        return torch.ops.mkldnn._linear_pointwise(inputs.to(dtype), self.weight, self.bias, "none", [], "")


def has_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies numbers of a dtype on a device."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    checks = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    return dtype not in checks or getattr(torch.ops.mkldnn, checks[dtype])()


def has_slow_mkl(device: torch.device) -> bool:
    """Whether MKL keeps float32 products from AVX-512 that the processor has, as it does on those of AMD.

    There oneDNN takes half of its time (`python -m benchmarks.cpu_kernels`). On processors of Intel, which have all
    of MKL, oneDNN is not measured.
    """
    if not (has_onednn(device, torch.float32) and torch.backends.mkl.is_available()):
        return False
    found: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(found.get("avx512_f")) and "AMD" in str(found.get("cpu_name"))
