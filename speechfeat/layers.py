"""Which layers are wanted: names and numbers on one scale for every family.

Layer 0 is what enters the first block, layer k what leaves block k, layer L (= `num_layers`) what leaves the
last block, through the model's final norm if it has one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from speechfeat.errors import ParameterError

ALLOWED = "'penultimate', 'last', 'all', a number such as 7 or -2, or a list such as '0,4,8'"

Layers = str | int | Sequence[int]


@dataclass(frozen=True)
class Selection:
    """Layers chosen from an encoder.

    Attributes:
        indices: layer numbers, 0 to L, in the order asked for.
        stacked: whether features carry a layer axis, `[L, T, D]` rather than `[T, D]`.
    """

    indices: tuple[int, ...]
    stacked: bool

    @property
    def deepest(self) -> int:
        """The last layer that has to be computed."""
        return max(self.indices)


def select_layers(layers: Layers, num_layers: int) -> Selection:
    """Resolve a choice of layers for an encoder with `num_layers` blocks.

    An encoder without blocks (a classical front end) has layer 0 alone, which is then its penultimate and its last.

    Raises:
        ParameterError: for an unknown word, a layer outside the encoder, or a layer given twice.

    Example:
        >>> select_layers("penultimate", 12).indices
        (11,)
        >>> select_layers("0,4,-1", 12).indices
        (0, 4, 12)
    """
    if layers == "all":
        return Selection(tuple(range(num_layers + 1)), stacked=True)
    parts = _parts(layers)
    indices = tuple(_index(part, num_layers) for part in parts)
    if len(set(indices)) < len(indices):
        raise ParameterError(f"layers={layers!r} names a layer twice ({indices}); give each once")
    return Selection(indices, stacked=len(indices) > 1)


def _parts(layers: Layers) -> list[str | int]:
    if isinstance(layers, str):
        parts: list[str | int] = [part.strip() for part in layers.split(",")]
    elif isinstance(layers, int):
        parts = [layers]
    else:
        parts = list(layers)
    if not parts:
        raise ParameterError(f"layers={layers!r} is empty; give {ALLOWED}")
    return parts


def _index(part: str | int, num_layers: int) -> int:
    named = {"penultimate": max(num_layers - 1, 0), "last": num_layers}
    if part in named:
        return named[str(part)]
    try:
        number = int(part)
    except (TypeError, ValueError):
        raise ParameterError(f"layer {part!r} is not known; give {ALLOWED}") from None
    index = number if number >= 0 else num_layers + 1 + number
    if not 0 <= index <= num_layers:
        raise ParameterError(
            f"layer {number} is outside this encoder, which has layers 0 to {num_layers} (or -1 to {-num_layers - 1})"
        )
    return index
