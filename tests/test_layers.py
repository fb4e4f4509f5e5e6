"""Which layer is which."""

import pytest

from speechfeat.errors import ParameterError
from speechfeat.layers import select_layers


@pytest.mark.parametrize(
    ("layers", "indices", "stacked"),
    [
        ("penultimate", (11,), False),
        ("last", (12,), False),
        ("7", (7,), False),
        (7, (7,), False),
        ("-2", (11,), False),
        ("-1", (12,), False),
        ("0,4,8", (0, 4, 8), True),
        ([8, "last", 0], (8, 12, 0), True),
        ("all", tuple(range(13)), True),
    ],
)
def test_names_and_numbers(layers: object, indices: tuple, stacked: bool) -> None:
    selection = select_layers(layers, 12)  # type: ignore[arg-type]
    assert (selection.indices, selection.stacked) == (indices, stacked)
    assert selection.deepest == max(indices)


def test_a_front_end_without_blocks_has_one_layer() -> None:
    assert select_layers("penultimate", 0).indices == select_layers("last", 0).indices == (0,)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("13", "layer 13 is outside this encoder, which has layers 0 to 12"),
        ("-14", "outside"),
        ("second", "layer 'second' is not known"),
        ("1,1", "twice"),
        ("11,penultimate", "twice"),
        ([], "empty"),
        ("", "not known"),
    ],
)
def test_bad_layers_are_refused(layers: object, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        select_layers(layers, 12)  # type: ignore[arg-type]
