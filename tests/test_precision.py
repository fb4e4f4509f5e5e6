"""What an encoder's dtype does to its modules."""

import pytest
import torch
from torch import nn

from speechfeat.encoders import precision
from speechfeat.encoders.precision import Int8Linear, OneDnnLinear, Precision, has_int8, has_onednn, to_int8
from speechfeat.errors import ParameterError

CPU = torch.device("cpu")


class Own(nn.Linear):
    """A layer whose class says more than its weights."""


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch is built without oneDNN here")
@pytest.mark.parametrize("bias", [True, False])
def test_products_by_onednn_are_those_of_the_stock_layer(bias: bool) -> None:
    torch.manual_seed(0)
    stock = nn.Linear(24, 7, bias=bias)
    other = nn.Linear(24, 7, bias=bias)
    other.load_state_dict(stock.state_dict())
    other.__class__ = OneDnnLinear
    inputs = [torch.randn(24), torch.randn(5, 24), torch.randn(2, 24, 3).transpose(1, 2), torch.randn(0, 24)]
    inputs += [torch.randn(1, 24).expand(4, 24), torch.randn(2, 3, 48)[..., ::2], torch.randn(2, 3, 4, 24)]
    with torch.inference_mode():
        for one in inputs:
            found, expected = other(one), stock(one)
            assert found.shape == expected.shape
            assert torch.allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.skipif(not has_onednn(CPU, torch.bfloat16), reason="oneDNN does not multiply bfloat16 here")
def test_products_by_onednn_in_half_precision_are_those_under_autocast() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(24, 7).bfloat16()
    inputs = torch.randn(5, 24)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = layer(inputs)
        layer.__class__ = OneDnnLinear
        found = layer(inputs)
    assert found.dtype == expected.dtype == torch.bfloat16
    assert torch.allclose(found, expected, rtol=2**-7, atol=2**-7)


@pytest.mark.skipif(not has_int8(CPU), reason="this CPU has no products of int8")
@pytest.mark.parametrize("bias", [True, False])
def test_int8_is_near_float32(bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(128, 96, bias=bias)
    inputs = torch.randn(2, 40, 128)
    expected = layer(inputs)
    engine = torch.backends.quantized.engine
    to_int8(layer)
    assert torch.backends.quantized.engine == engine
    with torch.inference_mode():
        found = layer(inputs)
        broken = layer(torch.full((1, 128), torch.nan))
    assert broken.isnan().all()
    assert 0 < (found - expected).square().mean().sqrt() / expected.std() < 0.02


@pytest.mark.skipif(not has_int8(CPU), reason="this CPU has no products of int8")
def test_only_large_linear_layers_are_in_int8() -> None:
    module = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8), Own(64, 64), nn.Conv1d(64, 64, 1))
    Precision("int8").convert(module, CPU)
    assert [isinstance(layer, Int8Linear) for layer in module] == [True, False, False, False]


def test_int8_is_refused_where_it_would_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_capabilities", dict)
    with pytest.raises(ParameterError, match="'int8' is for CPUs with AVX-512 VNNI, and cpu is none; use 'auto'"):
        Precision.choose("int8", CPU)


def test_layers_of_onednn_learn_and_run_in_other_precisions() -> None:
    layer = nn.Linear(24, 7)
    layer.__class__ = OneDnnLinear
    inputs = torch.randn(5, 24)
    layer(inputs).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(inputs).dtype == torch.bfloat16
        assert layer(inputs.bfloat16()).dtype == torch.bfloat16


def test_only_stock_layers_change_and_in_float32_where_onednn_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, dtype, expected in (
        ({"avx512_f": True}, "float32", OneDnnLinear),
        ({"avx512_f": False}, "float32", nn.Linear),
        ({"avx512_f": False}, "bfloat16", OneDnnLinear),
    ):
        monkeypatch.setattr(precision, "_capabilities", lambda found=found: found)
        module = nn.Sequential(nn.Linear(2, 2), Own(2, 2))
        Precision(dtype).convert(module, CPU)
        assert [type(layer) for layer in module] == [expected, Own]


@pytest.mark.parametrize(
    ("device", "found", "slow"),
    [
        ("cpu", {"avx512_f": True, "cpu_name": "AMD EPYC"}, True),
        ("cpu", {"avx512_f": False, "cpu_name": "AMD EPYC"}, False),
        ("cpu", {"avx512_f": True, "cpu_name": "Intel Xeon"}, False),
        ("cpu", {}, False),
        ("cuda", {"avx512_f": True, "cpu_name": "AMD EPYC"}, False),
    ],
)
def test_mkl_is_slow_on_amd_with_avx512(device: str, found: dict, slow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_capabilities", lambda: found)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert precision.has_slow_mkl(torch.device(device)) is slow
