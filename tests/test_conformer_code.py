"""What conformer blocks compute as TorchScript is torch's own, in both dtypes, and with or without it."""

import pytest
import torch

from speechfeat.encoders import conformer_code, scripting

FACTORS = (2, 3)


@pytest.mark.parametrize("most", [1, 2000, 10**6])
def test_attention_by_blocks_of_queries_is_torchs(most: int) -> None:
    torch.manual_seed(0)
    heads, dim, frames, lengths = 3, 8, 70, [70, 1, 33]
    found, difference, places = torch.randn(3, frames, 3, heads, dim), torch.randn(heads, dim), torch.randn(3, dim, 255)
    states = conformer_code.hear_rows(found, difference, places, lengths, most)
    for row, length in enumerate(lengths):
        query, key, value = found[row : row + 1, :length].transpose(1, 3).unbind(2)
        at = 127 - torch.arange(length)[:, None] + torch.arange(length)
        asked = torch.einsum("htd,hdtj->htj", query[0] + difference[:, None], places[:, :, at])
        expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, asked)
        assert torch.allclose(states[row, :length], expected[0].transpose(0, 1), atol=1e-5)
        assert not states[row, length:].any()


@pytest.mark.parametrize("width", [40, 48])
def test_relative_attention_in_half_precision_is_near_float32(width: int) -> None:
    torch.manual_seed(0)
    heads, dim, count = 3, 8, 40
    weights = conformer_code.Attention(
        conformer_code.Norm(torch.ones(24), torch.zeros(24), 1e-5),
        *(torch.randn(72, 24) / 5, torch.randn(72), torch.randn(heads, dim), torch.randn(24, 24) / 5, torch.randn(24)),
    )
    half = weights._replace(
        **{name: getattr(weights, name).bfloat16() for name in ("projection", "projection_bias", "out", "out_bias")}
    )
    states, places = torch.randn(2, count, 24), torch.randn(heads, dim, 127) / 3
    with torch.inference_mode():
        exact = conformer_code.relative_attention(states, weights, places, count, [count, 17])
        with torch.autocast("cpu", torch.bfloat16):
            found = conformer_code.relative_attention(states, half, places.bfloat16(), width, [count, 17])
            assert torch.is_autocast_enabled("cpu")
        again = conformer_code.relative_attention(states, weights, places, count, [count, 17])
    assert torch.equal(exact, again)
    for row, length in enumerate((count, 17)):
        assert (found - exact)[row, :length].square().mean().sqrt() / exact.std() < 0.03


def test_code_is_scripted_and_runs_as_it_stands_where_it_cannot_be(recwarn: pytest.WarningsRecorder) -> None:
    def double(values: torch.Tensor) -> torch.Tensor:
        return 2 * values

    def inside(values: torch.Tensor) -> torch.Tensor:
        return double(values) if FACTORS else values

    known, unknown, ones = scripting.scripted(double), scripting.scripted(inside), torch.ones(2)
    assert torch.equal(known(ones), 2 * ones) and not recwarn.list
    with pytest.warns(UserWarning, match="torch cannot script inside"):
        assert torch.equal(unknown(ones), 2 * ones)
