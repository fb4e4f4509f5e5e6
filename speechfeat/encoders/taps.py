"""Reading the states of chosen layers while a model runs, and stopping it after the deepest one."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from speechfeat.encoders.thread_state import ThreadState
from speechfeat.errors import ModelError
from speechfeat.layers import Selection


class _DeepestReached(Exception):  # noqa: N818 - control flow, not an error
    """Raised inside the forward pass when nothing beyond is wanted."""


class _Taken(ThreadState):
    """Of one thread: whether it runs, and the states that it has met."""

    running = False

    def __init__(self) -> None:
        self.states: dict[int, Tensor] = {}


class LayerTaps:
    """Hooks on a stack of blocks.

    Layer 0 is read where the first block is entered, layer k where block k is left, layer L behind the final norm
    if there is one. Blocks deeper than the deepest layer are dropped where the stack allows it.

    Args:
        blocks: the stack, in order.
        final_norm: the norm after it, or None.
        selection: the layers to read.
        layout: the axes of a state, such as "BTD" or "BCFT", or a function from a state to `[B, T, D]`.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        final_norm: nn.Module | None,
        selection: Selection,
        layout: str | Callable[[Tensor], Tensor],
    ) -> None:
        self.selection = selection
        self.layout = layout
        self._has_blocks = len(blocks) > 0
        # The hooks do nothing outside of `run`.
        self._taken = _Taken()
        for index in sorted(set(selection.indices)):
            if index == 0 and blocks:
                blocks[0].register_forward_pre_hook(self._before_first, with_kwargs=True)
            elif index == len(blocks) and final_norm is not None:
                final_norm.register_forward_hook(self._after(index))
            elif blocks:
                blocks[index - 1].register_forward_hook(self._after(index))
        if isinstance(blocks, nn.ModuleList | nn.Sequential):
            # The first block stays: layer 0 is read where it is entered.
            del blocks[max(1, selection.deepest) :]

    def run(self, forward: Callable[[], object]) -> Tensor:
        """States of the layers asked for during `forward`, `[B, L, T, D]`."""
        taken = self._taken
        taken.states, taken.running = {}, True
        try:
            result = forward()
        except _DeepestReached:
            pass
        else:
            # A model without blocks is its own layer 0.
            if isinstance(result, Tensor) and not self._has_blocks:
                taken.states[0] = result
        finally:
            taken.running = False
        missing = [index for index in self.selection.indices if index not in taken.states]
        if missing:
            raise ModelError(f"layers {missing} were never reached: the model does not run these blocks in order")
        states = [self._standard(taken.states[index]) for index in self.selection.indices]
        taken.states = {}
        dims = [state.shape[1:] for state in states]
        if len(set(dims)) > 1:
            raise ModelError(
                f"layers {self.selection.indices} have frames and dimensions {[tuple(dim) for dim in dims]} and cannot "
                "be stacked; ask for one of them, or for layers of one shape"
            )
        return torch.stack(states, dim=1)

    def _before_first(self, _module: nn.Module, args: tuple, kwargs: dict) -> None:
        state = args[0] if args else kwargs.get("hidden_states", next(iter(kwargs.values()), None))
        self._record(0, state)

    def _after(self, index: int) -> Callable:
        def hook(_module: nn.Module, _args: tuple, output: object) -> None:
            self._record(index, output)

        return hook

    def _record(self, index: int, output: object) -> None:
        taken = self._taken
        if not taken.running:
            return
        state = getattr(output, "last_hidden_state", output)
        if isinstance(state, tuple | list):
            state = state[0]
        if not isinstance(state, Tensor):
            raise ModelError(f"layer {index} gives {type(state).__name__} where a tensor was expected")
        if index == self.selection.deepest:
            taken.states[index] = state
            raise _DeepestReached
        # A later block may write into its input.
        taken.states[index] = state.clone()

    def _standard(self, state: Tensor) -> Tensor:
        """To `[B, T, D]`, every axis that is neither B nor T folded into D."""
        if callable(self.layout):
            return self.layout(state)
        if self.layout == "BTD":
            return state
        if state.ndim != len(self.layout):
            raise ModelError(
                f"a state has the shape {tuple(state.shape)}, which does not fit layout={self.layout!r}; "
                "name its axes in order, such as 'BTD', 'TBD', 'BDT' or 'BCFT'"
            )
        others = [axis for axis, letter in enumerate(self.layout) if letter not in "BT"]
        order = [self.layout.index("B"), self.layout.index("T"), *others]
        return state.permute(order).flatten(2)
