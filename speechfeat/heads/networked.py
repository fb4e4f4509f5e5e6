"""A head that is a network on frames."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from speechfeat.encoders.devices import choose_device
from speechfeat.encoders.precision import Precision
from speechfeat.errors import ModelError, ParameterError
from speechfeat.heads.base import Head, HeadRecord
from speechfeat.heads.batches import FrameBatches, open_reader
from speechfeat.heads.networks import FrameNetwork
from speechfeat.store import Store


class FrameHead(Head):
    """A trained network on frames.

    Args:
        record: what is known of it.
        network: the network that its options describe.
    """

    def __init__(self, record: HeadRecord, network: FrameNetwork) -> None:
        super().__init__(record)
        self.network = network.eval()

    @classmethod
    def from_arrays(cls, record: HeadRecord, arrays: Mapping[str, np.ndarray]) -> Self:
        """The head that `record` and `arrays` were taken from, on the CPU.

        Raises:
            ModelError: if they do not belong together.
        """
        try:
            network = FrameNetwork(record.kind, **record.options["network"])
            network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
        except (KeyError, TypeError, RuntimeError, ParameterError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"the arrays of this {record.kind!r} head are not of its record ({reason})") from error
        return cls(record, network)

    def arrays(self) -> dict[str, np.ndarray]:
        """What `save` writes beside the record."""
        return {name: value.detach().cpu().numpy() for name, value in self.network.state_dict().items()}

    def to(self, device: str | torch.device) -> Self:
        """Move it to a device, or for "auto" to the best there is."""
        self.network.to(choose_device(device))
        return self

    @property
    def mix(self) -> dict[int, float]:
        """The share of each layer in what it takes, by the layer's number; they sum to 1."""
        return dict(zip(self.record.binding.layers, self.network.mix.weights.tolist(), strict=True))

    def probabilities(self, store: Store, ids: Sequence[str] | None = None) -> np.ndarray:
        """Of every class, `[n, C]`; see `Head.probabilities`."""
        return self._run(store, ids, self._shares, len(self.classes))

    def embed(self, store: Store, ids: Sequence[str] | None = None) -> np.ndarray:
        """Embeddings `[n, E]`, in the order of `ids`, or of `store.ids`; of length 1 if it compares by cosine.

        Raises:
            ParameterError: if the features are not those that it was trained on.
            StoreError: if an id is not in the store.
        """
        return self._run(store, ids, self._embeddings, self.record.options["network"]["embedding_dim"])

    def answer(self, frames: np.ndarray, lengths: Sequence[int] | None = None) -> np.ndarray:
        """Probabilities of every class straight from frames of the layers of the binding, in order.

        Args:
            frames: padded.
            lengths: valid frames of each, at least 1; None where all are.

        Shape:
            frames `[n, L, T, D]`, lengths `[n]` -> `[n, C]`
        """
        counts = [frames.shape[2]] * len(frames) if lengths is None else list(lengths)
        return self._compute(self._shares, torch.from_numpy(np.array(frames, np.float32)), torch.tensor(counts))

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _shares(self, frames: Tensor, lengths: Tensor) -> Tensor:
        return self.network(frames, lengths).softmax(dim=1)

    def _embeddings(self, frames: Tensor, lengths: Tensor) -> Tensor:
        embeddings = self.network.embed(frames, lengths)
        return embeddings if self.record.options["network"]["scale"] is None else F.normalize(embeddings, dim=1)

    def _run(
        self, store: Store, ids: Sequence[str] | None, compute: Callable[[Tensor, Tensor], Tensor], size: int
    ) -> np.ndarray:
        self.record.binding.check(store)
        reader = open_reader(store, self.record.binding, store.ids if ids is None else ids)
        result = np.empty((len(reader.ids), size), np.float32)
        for frames, lengths, rows in FrameBatches(reader, range(len(reader.ids))).once():
            result[rows] = self._compute(compute, frames, lengths)
        return result

    def _compute(self, compute: Callable[[Tensor, Tensor], Tensor], frames: Tensor, lengths: Tensor) -> np.ndarray:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            for context in Precision("float32").contexts(self._device):
                stack.enter_context(context)
            return compute(frames.to(self._device), lengths.to(self._device)).cpu().numpy()
