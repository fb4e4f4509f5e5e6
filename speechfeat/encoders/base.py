"""What the rest of speechfeat uses of an encoder: `Encoder` of recordings, `BaseEncoder` of any input."""

import math
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Self

import numpy as np
import torch

from speechfeat.batching import GROUP_SHARE, group_seconds, pad, plan_groups
from speechfeat.encoders.backbone import Backbone
from speechfeat.encoders.devices import choose_device, is_out_of_memory
from speechfeat.encoders.flights import Flight, GpuFlight, frames_of, in_memory
from speechfeat.encoders.modules import weight_hash
from speechfeat.encoders.precision import INT8, Precision
from speechfeat.encoders.shapes import writes_code
from speechfeat.encoders.streams import Streams, default_threads
from speechfeat.encoders.taps import LayerTaps
from speechfeat.errors import AudioError, InputError, ModelError
from speechfeat.layers import Layers, select_layers
from speechfeat.recordings import Recording, RunOptions, embed_recordings, encode_recordings
from speechfeat.types import ALL_FRAMES, Batch, Frames, Hidden, Landed, Wanted

# The rest is left to the allocator's fragments and to others.
GPU_MEMORY_SHARE = 0.5
# Weights of an encoder whose utterances run side by side on a thread each, however many there are.
SMALL = 25_000_000


class BaseEncoder:
    """A model that runs up to the deepest layer asked for and no further, on whatever its backbone takes.

    Attributes:
        name: as it was asked for.
        grid: the `FrameGrid` of its frames.
        num_layers: L, its number of blocks.
        selection: the layers it gives.
        dim: D, of each of them.
        device: the torch device it runs on.
        dtype: the name of the dtype of its matrix products.
        weights: hash of all its weights, before any were dropped.
    """

    # In seconds of input: what a batch holds on a CPU, the most that it holds on a GPU, and what speed is measured on.
    cpu_batch_seconds = 30.0
    gpu_batch_seconds = 600.0
    probe_seconds = 8.0
    # Whether a whole batch runs together on a CPU, or only groups of it that a cache holds.
    pads_on_cpu = False

    def __init__(
        self,
        backbone: Backbone,
        *,
        name: str,
        layers: Layers = "penultimate",
        device: str | torch.device = "auto",
        dtype: str = "auto",
    ) -> None:
        self.backbone = backbone
        self.name = name
        self.grid = backbone.grid
        self.num_layers = len(backbone.blocks)
        self.selection = select_layers(layers, self.num_layers)
        self.device = choose_device(device)
        self.precision = Precision.choose(dtype, self.device)
        if not list(backbone.module.parameters()):
            self.precision = Precision("float32")
        self.weights = weight_hash(backbone.module)
        self._lock = threading.Lock()
        self._bytes_per_second: float | None = None
        backbone.module.eval().requires_grad_(False)
        self.precision.convert(backbone.module, self.device)
        backbone.module.to(self.device)
        if self.precision.name != "float32" or self.device.type == "cpu":
            backbone.accelerate(self.device)
        self._streams = Streams()
        if self._is_small or backbone.is_reentrant:
            self.use_threads(default_threads(is_large=not self._is_small))
        self._taps = LayerTaps(backbone.blocks, backbone.final_norm, self.selection, backbone.layout)
        self.dim = self._measure_dim()

    def __deepcopy__(self, memo: object) -> Self:
        """Itself: scikit-learn copies what it clones, and running does not change an encoder."""
        return self

    @property
    def dtype(self) -> str:
        """Name of the dtype of the matrix products."""
        return self.precision.name

    @property
    def num_weights(self) -> int:
        """Of the whole module."""
        return sum(one.numel() for one in self.backbone.module.parameters())

    @property
    def _is_small(self) -> bool:
        """Whether one thread is enough for an utterance on a CPU: others can run beside it, or nothing is to run."""
        return (self.backbone.is_reentrant and self.num_weights < SMALL) or not self.num_weights

    @property
    def num_streams(self) -> int:
        """Utterances that run side by side."""
        return self._streams.count

    @property
    def num_threads(self) -> int | None:
        """Of torch for the products of an utterance on a CPU; None on another device."""
        return (self._streams.threads or torch.get_num_threads()) if self.device.type == "cpu" else None

    def use_threads(self, count: int) -> None:
        """Take so many of torch's threads for an utterance on a CPU, and run as many side by side as there are for."""
        if self.device.type == "cpu":
            others = torch.get_num_threads() // count if self.backbone.is_reentrant else 1
            self._streams = Streams(count, max(1, others))

    def _measure_dim(self) -> int:
        probe = self._probe(0.5)
        return self.encode_prepared([self.prepare(probe)], [len(probe)])[0].shape[-1]

    def _probe(self, seconds: float) -> np.ndarray:
        """Noise `[N]` of a length, or of the nearest that the encoder takes."""
        longest = self.backbone.max_samples or math.inf
        count = int(min(max(self.grid.samples(seconds), self.grid.min_samples), longest))
        return 0.1 * np.random.default_rng(0).standard_normal(count, np.float32)

    def prepare(self, samples: np.ndarray) -> np.ndarray:
        """Normalise and prepare a whole utterance `[N]`, padding it to one window if it is shorter."""
        return self.backbone.prepare(self.lengthen(self.backbone.normalize(samples)))

    def lengthen(self, samples: np.ndarray) -> np.ndarray:
        """Pad with zeros to the shortest input that gives a frame."""
        missing = self.grid.min_samples - len(samples)
        return np.pad(samples, (0, missing)) if missing > 0 else samples

    @property
    def is_asynchronous(self) -> bool:
        """Whether a batch is worked on while the next one is made."""
        return self.device.type == "cuda" or self.num_streams > 1

    def cost(self, seconds: float) -> float:
        """Seconds of input that an utterance of `seconds` makes the encoder run on."""
        if self.backbone.max_samples is None or self.backbone.exact_frames:
            return max(seconds, self.grid.seconds(self.grid.min_samples))
        window = self.grid.seconds(self.backbone.max_samples)
        return window * max(1, math.ceil(seconds / window))

    def num_frames(self, num_samples: int) -> int:
        """Frames that an utterance of `num_samples` samples gives, at least 1."""
        return self.grid.num_frames(max(num_samples, self.grid.min_samples))

    def encode_prepared(self, inputs: Sequence[np.ndarray], num_samples: Sequence[int]) -> list[np.ndarray]:
        """Encode prepared inputs, together where that pays.

        Args:
            inputs: what `prepare` gave for each utterance.
            num_samples: samples that each was made from.

        Returns:
            Features of each, `[L, T, D]` float32, without padding.

        Raises:
            InputError: if one does not fit into the memory even by itself.
        """
        return frames_of(self.launch(inputs, num_samples, alone=True))

    def launch(
        self,
        inputs: Sequence[np.ndarray],
        num_samples: Sequence[int],
        wanted: Wanted = ALL_FRAMES,
        *,
        alone: bool = False,
    ) -> list[Flight]:
        """Begin to encode prepared inputs; a GPU, or streams, go on by themselves until what is launched lands.

        Args:
            inputs: what `prepare` gave for each utterance.
            num_samples: samples that each was made from.
            wanted: of the features.
            alone: whether nothing follows before these have landed.

        Returns:
            Flights that give the features of the utterances in their order.
        """
        tasks = [
            partial(
                self._launch_padded, [inputs[item] for item in group], [num_samples[item] for item in group], wanted
            )
            for group in self._groups(inputs, num_samples)
        ]
        if self.device.type == "cuda":
            return [flight for launch in tasks for flight in launch()]
        return self._streams.begin(tasks, alone=alone)

    def _groups(self, inputs: Sequence[np.ndarray], num_samples: Sequence[int]) -> list[list[int]]:
        """Which prepared inputs run together."""
        items = range(len(inputs))
        on_cpu = self.device.type == "cpu"
        # Inputs are brought to int8 by the largest of a batch: with others they would not be what they are alone.
        if not self.backbone.pads or (on_cpu and self.dtype == INT8):
            return [[item] for item in items]
        if not on_cpu or self.pads_on_cpu:
            return [list(items)]
        costs = [self.cost(self.grid.seconds(count)) for count in num_samples]
        is_half = self.precision.dtype != torch.float32
        most = group_seconds(is_half=is_half, is_shared=self.num_streams > 1 and not self._is_small)
        # Every stream has something to do.
        budget = min(most, sum(costs) / self.num_streams)
        least = GROUP_SHARE if self.backbone.pads_fast else 1.0
        return plan_groups([len(one) for one in inputs], costs, budget, least)

    @property
    def _rounds(self) -> bool:
        """Whether lengths are rounded up; inputs are brought to int8 by the largest of a batch, padding among them."""
        return self.backbone.pads_fast and self.dtype != INT8 and writes_code(self.device, self.precision.dtype)

    def out_of_memory(self, num_samples: int) -> InputError:
        """The error of an input of `num_samples` samples that does not fit into the memory even by itself."""
        raise NotImplementedError

    def encode_padded(self, inputs: Sequence[np.ndarray], num_samples: Sequence[int]) -> list[np.ndarray]:
        """Encode prepared inputs as one padded batch; as `encode_prepared`."""
        return frames_of(self._launch_padded(inputs, num_samples, ALL_FRAMES))

    def _launch_padded(self, inputs: Sequence[np.ndarray], num_samples: Sequence[int], wanted: Wanted) -> list[Flight]:
        """Launch one padded batch, halved as often as memory asks for."""
        is_cuda = self.device.type == "cuda"
        try:
            width = self.backbone.padding.rounded(max(map(len, inputs))) if self._rounds else 0
            if is_cuda:
                event = torch.cuda.Event(enable_timing=True)
                event.record()
                return [GpuFlight(self.forward(pad(inputs, num_samples, width=width, pinned=True)), wanted, event)]
            return [Flight(in_memory(self.forward(pad(inputs, num_samples, width=width))))]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(inputs) == 1:
                return [Flight([Landed(None, error=self.out_of_memory(num_samples[0]))])]
        if is_cuda:
            torch.cuda.empty_cache()
        half = (len(inputs) + 1) // 2
        return [
            *self._launch_padded(inputs[:half], num_samples[:half], wanted),
            *self._launch_padded(inputs[half:], num_samples[half:], wanted),
        ]

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Hidden:
        """Run a padded batch up to the deepest layer; states stay on the device.

        Raises:
            ModelError: if the module does not give the frames that its grid promises.
        """
        return self.states(batch)

    def states(self, batch: Batch) -> Hidden:
        """As `forward`, with gradients for whatever of the module's weights ask for them.

        Raises:
            ModelError: if the module does not give the frames that its grid promises.
        """
        num_frames = tuple(self.num_frames(count) for count in batch.num_samples)
        trains = torch.is_grad_enabled() and any(one.requires_grad for one in self.backbone.module.parameters())
        lock = nullcontext() if self.backbone.is_reentrant else self._lock
        with lock, torch.set_grad_enabled(trains), ExitStack() as stack:
            for context in self.precision.contexts(self.device):
                stack.enter_context(context)
            # States of several layers are stacked, and have to have the same frames.
            wanted = max(num_frames) if len(self.selection.indices) == 1 else None
            self.backbone.padding.set(batch.sizes, batch.inputs.shape[1], wanted)
            inputs = batch.inputs.to(self.device, non_blocking=True)
            states = self._taps.run(lambda: self.backbone.forward(inputs, batch.sizes))
        self._check_frames(states.shape[2] - self.backbone.padding.beyond, max(num_frames), batch.num_samples)
        return Hidden(states, num_frames)

    def _check_frames(self, found: int, promised: int, num_samples: Sequence[int]) -> None:
        if found == promised or (found > promised and not self.backbone.exact_frames):
            return
        raise ModelError(
            f"{self.name} gave {found} frames for {max(num_samples)} samples, where its grid (hop {self.grid.hop}, "
            f"window {self.grid.window}, offset {self.grid.offset}) promises {promised}; correct hop, window or pad"
        )

    def default_batch_seconds(self) -> float:
        """Audio in a batch that suits the device and its free memory; on a CPU it is only what is read together."""
        if self.device.type != "cuda":
            # Of more, more run together, which small ones gain from; but states of many layers are large.
            in_turn = 2 if self._is_small and len(self.selection.indices) == 1 else 1
            return self.cpu_batch_seconds * self.num_streams * in_turn
        if self._bytes_per_second is None:
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            self.measure_speed()
            peak = torch.cuda.max_memory_allocated(self.device) - before
            self._bytes_per_second = max(1.0, peak / self.probe_cost)
        free_bytes, _ = torch.cuda.mem_get_info(self.device)
        return min(self.gpu_batch_seconds, max(1.0, GPU_MEMORY_SHARE * free_bytes / self._bytes_per_second))

    def measure_speed(self) -> float:
        """Seconds of input that the encoder runs on in a second of time here, after warming up."""
        probe = self._probe(self.probe_seconds)
        inputs, counts = [self.prepare(probe)] * self._num_probes, [len(probe)] * self._num_probes
        times = []
        for _ in range(2):
            began = time.perf_counter()
            self.encode_prepared(inputs, counts)
            times.append(time.perf_counter() - began)
        return self.probe_cost / min(times)

    @property
    def probe_cost(self) -> float:
        """Seconds of input that `measure_speed` runs on at a time."""
        return self._num_probes * self.cost(self.grid.seconds(len(self._probe(self.probe_seconds))))

    @property
    def _num_probes(self) -> int:
        """A GPU is slow on little, and streams want something to do."""
        return 2 * self.num_streams if self.device.type == "cpu" else 16

    def describe(self) -> dict[str, object]:
        """What decides the features, for a store's configuration; the name of a model does not."""
        return {
            "family": type(self.backbone).__name__,
            "definition": self.backbone.definition(),
            "weights": self.weights,
            "num_layers": self.num_layers,
            "dim": self.dim,
            "layers": list(self.selection.indices),
            "stacked": self.selection.stacked,
            "dtype": self.dtype,
        }


class Encoder(BaseEncoder):
    """An encoder of recordings.

    Made by `load_encoder` and `wrap_module`; its attributes are those of `BaseEncoder`.
    """

    @property
    def sample_rate(self) -> int:
        """Rate of the samples it takes, in Hz."""
        return self.grid.sample_rate

    def out_of_memory(self, num_samples: int) -> InputError:
        """The error of an input that does not fit into the memory by itself."""
        return AudioError(
            f"{self.grid.seconds(num_samples):.1f} s do not fit into the memory of {self.device}; "
            "cut long recordings into shorter chunks (--chunk, --chunk-above) or use --dtype bfloat16"
        )

    def encode(
        self, recordings: Sequence[Recording], *, sample_rate: int | None = None, **options: object
    ) -> list[Frames]:
        """Features of recordings, in their order; the same alone and in any company.

        Args:
            recordings: paths, or arrays `[N]` (floats in [-1, 1], or integers of full range).
            sample_rate: of the arrays, in Hz; None means that of the encoder.
            options: `batch_seconds`, `num_workers`, `chunking` (see `recordings.RunOptions`).

        Returns:
            `.values` `[T, D]`, or `[L, T, D]` if several layers were asked for, float32; `.times` `[T]` seconds.

        Raises:
            AudioError: for the first recording that cannot be encoded.
        """
        return encode_recordings(self, recordings, sample_rate, RunOptions(**options))  # type: ignore[arg-type]

    def embed(
        self, recordings: Sequence[Recording], pool: str = "mean", *, sample_rate: int | None = None, **options: object
    ) -> np.ndarray:
        """One vector a recording: `[n, D']`, or `[n, L, D']` if several layers were asked for, float32.

        Args:
            recordings: as in `encode`.
            pool: "mean", "std", "mean+std", "max", "first" or "last".
            sample_rate: as in `encode`.
            options: as in `encode`.
        """
        return embed_recordings(self, recordings, pool, sample_rate, RunOptions(**options))  # type: ignore[arg-type]
