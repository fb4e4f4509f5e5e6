"""An encoder in words: its layers and its frame grid."""

from typing import TYPE_CHECKING

from speechfeat.encoders.base import BaseEncoder, Encoder

if TYPE_CHECKING:
    from speechfeat.encoders.text import TextEncoder


def describe_layers(encoder: Encoder) -> str:
    """Lines that name every layer and say where the frames are."""
    return f"{describe_blocks(encoder)}\n{describe_grid(encoder)}"


def describe_text_layers(encoder: "TextEncoder") -> str:
    """Lines that name every layer and say what the tokens are."""
    tokenizer, chunking = encoder.tokenizer, encoder.windows()
    line = (
        f"tokens: {tokenizer.num_classes} of them, special ones before a text: {len(tokenizer.prefix)}, after it: "
        f"{len(tokenizer.suffix)}; windows of {chunking.length + tokenizer.num_special} tokens, "
        f"{chunking.overlap} of them shared with the next"
    )
    return f"{describe_blocks(encoder)}\n{line}"


def describe_blocks(encoder: BaseEncoder) -> str:
    """Lines that name every layer."""
    last = encoder.num_layers
    names = {0: "what enters the first block", last: "last", max(last - 1, 0): "penultimate"}
    if last == 0:
        names = {0: "penultimate and last: the front end itself"}
    lines = [f"{encoder.name}: {last} blocks, layers 0 to {last}"]
    for index in range(last + 1):
        lines.append(f"  {index:3d}  {names.get(index, '')}".rstrip())
    return "\n".join(lines)


def describe_grid(encoder: Encoder) -> str:
    """A line on hop, window and times."""
    grid = encoder.grid
    return (
        f"frames: {grid.frame_rate:g} a second (hop {grid.hop} samples at {grid.sample_rate} Hz), window {grid.window} "
        f"samples ({1000 * grid.window / grid.sample_rate:g} ms), centre of frame i at "
        f"{1000 * grid.times(1)[0]:g} ms + {1000 * grid.hop / grid.sample_rate:g} ms * i, "
        f"shortest input {grid.min_samples} samples"
    )
