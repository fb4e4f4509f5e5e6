"""An encoder in words: its layers and its frame grid."""

from speechfeat.encoders.base import Encoder


def describe_layers(encoder: Encoder) -> str:
    """Lines that name every layer and say where the frames are."""
    last = encoder.num_layers
    names = {0: "what enters the first block", last: "last", max(last - 1, 0): "penultimate"}
    if last == 0:
        names = {0: "penultimate and last: the front end itself"}
    lines = [f"{encoder.name}: {last} blocks, layers 0 to {last}"]
    for index in range(last + 1):
        lines.append(f"  {index:3d}  {names.get(index, '')}".rstrip())
    return "\n".join([*lines, describe_grid(encoder)])


def describe_grid(encoder: Encoder) -> str:
    """A line on hop, window and times."""
    grid = encoder.grid
    return (
        f"frames: {grid.frame_rate:g} a second (hop {grid.hop} samples at {grid.sample_rate} Hz), window {grid.window} "
        f"samples ({1000 * grid.window / grid.sample_rate:g} ms), centre of frame i at "
        f"{1000 * grid.times(1)[0]:g} ms + {1000 * grid.hop / grid.sample_rate:g} ms * i, "
        f"shortest input {grid.min_samples} samples"
    )
