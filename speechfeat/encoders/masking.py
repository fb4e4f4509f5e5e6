"""What makes padding invisible: valid lengths at every depth of a front end, and the modules that need them.

Stock implementations let padding leak in three places, which an attention mask does not reach: a group norm over
time takes its statistics from the padding too, and a depthwise or a positional convolution reads the padding beside
the last valid frame. Alone, an utterance meets zeros there; so zeros are what it is given in a batch.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from speechfeat.encoders.shapes import rounded
from speechfeat.encoders.thread_state import ThreadState
from speechfeat.units import Stage, count_windows, fewest_inputs


class _InFlight(ThreadState):
    """Of one thread: whether its batch is padded, the lengths at every depth, and masks made of them."""

    padded = False
    lengths: tuple[list[int], ...] = ()
    wanted: int | None = None
    beyond = 0
    attended: tuple[Tensor, Tensor] | None = None

    def __init__(self) -> None:
        self.masks: dict[tuple, Tensor] = {}


class Padding:
    """The valid lengths of the batch in flight, of each thread its own, shared by the hooks of one encoder.

    Args:
        stages: the windows between the model's inputs and its blocks.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)
        self._in_flight = _InFlight()

    def set(self, sizes: Sequence[int], width: int, wanted: int | None = None) -> None:
        """Announce a batch: `sizes` valid inputs of the first stage, padded to `width`; the frames wanted, or None."""
        lengths = [list(sizes)]
        for stage in self.stages:
            lengths.append([stage.count(length) for length in lengths[-1]])
        state = self._in_flight
        state.padded, state.lengths, state.masks = any(size != width for size in sizes), tuple(lengths), {}
        state.attended = None
        state.wanted, state.beyond = wanted, count_windows(self.stages, width) - max(lengths[-1])

    def rounded(self, size: int) -> int:
        """Inputs, no fewer than `size`, of which there are few numbers: all that give a rounded number of frames."""
        following = rounded(count_windows(self.stages, size)) + 1
        return max(size, fewest_inputs(self.stages, following) - 1)

    @property
    def padded(self) -> bool:
        """Whether some inputs of the batch are shorter than it is wide."""
        return self._in_flight.padded

    @property
    def wanted(self) -> int | None:
        """Of the deepest block, the frames that anybody asks for: of a window of silence the first; None for all."""
        return self._in_flight.wanted

    @property
    def beyond(self) -> int:
        """Frames of the batch past those of its longest utterance."""
        return self._in_flight.beyond

    def lengths(self, depth: int = -1) -> list[int]:
        """Valid lengths after the first `depth` stages; -1 means after all of them."""
        return self._in_flight.lengths[depth]

    def mask(self, width: int, device: torch.device, depth: int = -1) -> Tensor:
        """True where valid, `[B, width]`, after the first `depth` stages."""
        masks, key = self._in_flight.masks, (width, device, depth)
        if key not in masks:
            lengths = torch.tensor(self.lengths(depth)).to(device, non_blocking=True)
            masks[key] = torch.arange(width, device=device) < lengths[:, None]
        return masks[key]

    def attend_somewhere(self, mask: Tensor) -> Tensor:
        """A boolean mask of attention `[B, 1, T, T]` in which frames without any attend every valid frame."""
        state = self._in_flight
        # All blocks are given the same one.
        if state.attended is None or state.attended[0] is not mask:
            valid = self.mask(mask.shape[-1], mask.device)[:, None, None]
            state.attended = mask, mask | (~mask.any(-1, keepdim=True) & valid)
        return state.attended[1]

    def blank(self, states: Tensor, depth: int = -1) -> None:
        """Fill states `[B, T, ...]` with zeros past each length, in place."""
        blank(states, self.lengths(depth), 1, 0.0)


def blank(states: Tensor, lengths: list[int], axis: int, value: float) -> None:
    """Fill states `[B, ..., T, ...]`, with T at an axis, past each length, in place: on a CPU faster than by a mask."""
    width = states.shape[axis]
    for row, length in enumerate(lengths):
        if length < width:
            states[row].narrow(axis - 1, length, width - length).fill_(value)


class MaskedGroupNorm(nn.Module):
    """Group norm over time whose mean and variance come from the valid frames only.

    Each utterance goes through the stock kernel over exactly its own frames, so that the result is that of the
    utterance alone, to the bit.

    Shape:
        `[B, C, T]` -> `[B, C, T]`, zeros past each length
    """

    def __init__(self, norm: nn.GroupNorm, padding: Padding, depth: int) -> None:
        super().__init__()
        self.norm = norm
        self.padding = padding
        self.depth = depth

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise each utterance over its valid frames."""
        if not self.padding.padded:
            return self.norm(inputs)
        outputs = torch.zeros_like(inputs)
        for row, length in enumerate(self.padding.lengths(self.depth)):
            outputs[row, :, :length] = self.norm(inputs[row : row + 1, :, :length])[0]
        return outputs


def zero_padding_before(module: nn.Module, padding: Padding, *, depth: int = -1, time_axis: int = -1) -> None:
    """Zero what lies past each length in the input of `module`, `[B, ..., T, ...]` with T at `time_axis`."""

    def hook(_module: nn.Module, args: tuple) -> tuple | None:
        if not padding.padded:
            return None
        inputs = args[0]
        axis = time_axis % inputs.ndim
        mask = padding.mask(inputs.shape[axis], inputs.device, depth)
        shape = [1] * inputs.ndim
        shape[0], shape[axis] = mask.shape
        return (inputs.masked_fill(~mask.view(shape), 0), *args[1:])

    module.register_forward_pre_hook(hook)


def attend_somewhere(blocks: Iterable[nn.Module], padding: Padding) -> None:
    """Let frames whose attention mask is empty attend every valid frame.

    Only padded frames have an empty mask, and what they give is not used; but some attention kernels make it NaN, and
    NaN times an attention weight of zero is NaN in the valid frames of the next block.

    Args:
        blocks: called with `attention_mask` by name; a boolean `[B, 1, T, T]` is completed, anything else left alone.
        padding: of their encoder, with the blocks' frames at its last depth.
    """

    def hook(_block: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        mask = kwargs.get("attention_mask")
        if padding.padded and isinstance(mask, Tensor) and mask.dtype == torch.bool:
            kwargs["attention_mask"] = padding.attend_somewhere(mask)
        return args, kwargs

    for block in blocks:
        block.register_forward_pre_hook(hook, with_kwargs=True)
