"""The convolutions of wav2vec 2.0 and its kin on a CPU, a few seconds at a time.

Behind the first of them a second of audio has 3,200 states of 512 channels: half a minute is 100 MB in half precision.
Those of a stretch stay in the cache and in memory that is kept: glibc gives every larger block back, and the system
clears it anew for each convolution. Frames are what they are without stretches: they see the same samples, and a group
norm takes its mean and variance from the whole utterance.
"""

from typing import Any

import torch
from torch import Tensor, nn

from speechfeat.encoders.channels_last import first_layer
from speechfeat.encoders.modules import change_class
from speechfeat.encoders.shapes import spans
from speechfeat.units import FrameGrid, conv_stages

# Of the states behind the first convolution.
STRETCH_BYTES = 2**24


def run_in_stretches(front_end: nn.Module, size: int = STRETCH_BYTES) -> None:
    """Change a stack of `ChannelsLastLayer`, in place.

    Args:
        front_end: the stack.
        size: bytes of the states behind its first layer, at most.
    """
    layers: Any = front_end.conv_layers
    convs = [layer.conv for layer in layers[1:]]
    rest = FrameGrid(1, conv_stages([conv.kernel_size[0] for conv in convs], [conv.stride[0] for conv in convs]))
    # A layer norm is made in float32.
    is_wide = isinstance(getattr(layers[0], "layer_norm", None), nn.LayerNorm)
    width = 4 if is_wide else layers[0].conv.weight.dtype.itemsize
    frame_bytes = rest.hop * layers[0].conv.out_channels * width
    change_class(front_end, StretchedFrontEnd)
    front_end.__dict__.update(rest=rest, most=max(1, size // frame_bytes))


class StretchedFrontEnd(nn.Module):
    """What the stack becomes.

    Attributes:
        rest: the grid of its frames over the windows of its first layer.
        most: frames of a stretch, of all utterances in it.
    """

    rest: FrameGrid
    most: int

    def forward(self, input_values: Tensor) -> Tensor:
        """Run it, `[B, N]` -> `[B, C, T]`, whose strides are those of `[B, T, C]`."""
        if torch.is_grad_enabled():
            return super().forward(input_values)
        stock: Any = self
        first, *others = stock.conv_layers
        run_first = first_layer(first, input_values)
        (kernel,), (stride,) = first.conv.kernel_size, first.conv.stride
        length = self.rest.num_frames((input_values.shape[1] - kernel) // stride + 1)
        outputs = None
        for rows in spans(len(input_values), max(1, self.most // length)):
            for frames in spans(length, self.most):
                windows = slice(frames.start * self.rest.hop, (frames.stop - 1) * self.rest.hop + self.rest.window)
                states = run_first(rows, windows)
                for layer in others:
                    states = layer(states)
                if outputs is None:
                    outputs = states.new_empty(len(input_values), length, states.shape[1])
                outputs[rows, frames] = states.transpose(1, 2)
        assert outputs is not None
        return outputs.transpose(1, 2)
