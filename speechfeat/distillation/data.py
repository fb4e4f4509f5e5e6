"""What a student learns from, at hand: decoded recordings, and the teacher's frames at any times."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from speechfeat.audio import read_audio
from speechfeat.errors import AudioError
from speechfeat.store import Store
from speechfeat.store_config import disk_errors, publish
from speechfeat.types import Frames, Utterance
from speechfeat.units import frame_times

# Utterances that are handed to the threads at a time, so that what is decoded is written before more is.
DECODED_AT_ONCE = 256


def utterance_key(utterance: Utterance) -> str:
    """A name for a stretch of a recording that neither its id nor its place in a list decides."""
    stretch = (os.path.realpath(utterance.path), utterance.start, utterance.duration, utterance.channel)
    return hashlib.blake2b(repr(stretch).encode(errors="surrogateescape"), digest_size=12).hexdigest()


class AudioCache:
    """Recordings decoded once, into one memory-mapped file.

    Args:
        directory: where the file is, or is written.
        utterances: what to read, all of them.
        sample_rate: in Hz.
        exact: keep samples in float32, as they are extracted, rather than in 16 bits, which take half the room.

    Raises:
        AudioError: if any cannot be decoded, after all were tried.
        StoreError: if the file cannot be written.
    """

    def __init__(
        self, directory: Path, utterances: Sequence[Utterance], sample_rate: int, *, exact: bool = False
    ) -> None:
        name = f"audio-{sample_rate}{'-exact' if exact else ''}"
        samples, index = directory / f"{name}.{'f32' if exact else 'i16'}", directory / f"{name}.npz"
        content = _digest(utterances)
        if not index.exists() or str(np.load(index)["content"]) != content:
            # The index is the commit: an interrupted decoding is done again.
            index.unlink(missing_ok=True)
            with disk_errors(f"write {samples}"):
                lengths = _decode(samples, utterances, sample_rate, exact)
                temporary = index.with_suffix(".tmp.npz")
                np.savez(temporary, offsets=np.concatenate([[0], np.cumsum(lengths)]), content=content)
                publish(temporary, index)
        self.sample_rate = sample_rate
        self._offsets = np.load(index)["offsets"]
        self._samples = np.memmap(samples, np.float32 if exact else np.int16, "r")

    def seconds(self, item: int) -> float:
        """The length of an utterance."""
        return float(self._offsets[item + 1] - self._offsets[item]) / self.sample_rate

    def read(self, item: int, start: float = 0.0, duration: float | None = None) -> np.ndarray:
        """Samples of an utterance or a stretch of it, `[N]` float32."""
        first, end = self._offsets[item : item + 2]
        first += round(start * self.sample_rate)
        if duration is not None:
            end = min(end, first + round(duration * self.sample_rate))
        found = self._samples[first:end]
        return found.copy() if found.dtype == np.float32 else found.astype(np.float32) / 32768


def _digest(utterances: Sequence[Utterance]) -> str:
    """Of what is decoded: which stretches of which files, of what size."""
    rows = [f"{utterance_key(one)} {Path(one.path).stat().st_size}" for one in utterances]
    return hashlib.blake2b("\n".join(rows).encode(), digest_size=16).hexdigest()


def _decode(samples: Path, utterances: Sequence[Utterance], sample_rate: int, exact: bool) -> list[int]:
    """Write the samples one utterance after another; how many each has."""
    lengths: list[int] = []
    failures: list[str] = []

    def read(utterance: Utterance) -> np.ndarray:
        try:
            audio = read_audio(utterance.path, sample_rate, utterance.channel, utterance.start, utterance.duration)
        except AudioError as error:
            failures.append(str(error))
            return np.zeros(0, np.int16)
        if exact:
            return audio.samples
        return np.clip(np.round(audio.samples * 32768), -32768, 32767).astype(np.int16)

    with samples.open("wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(utterances), DECODED_AT_ONCE):
            for values in pool.map(read, utterances[first : first + DECODED_AT_ONCE]):
                file.write(values.tobytes())
                lengths.append(len(values))
    refuse_recordings(failures, len(utterances))
    return lengths


def refuse_recordings(failures: Sequence[str], num_utterances: int) -> None:
    """Name what cannot be learnt from, if there is any.

    Raises:
        AudioError: with the first few reasons.
    """
    if failures:
        shown = "; ".join(failures[:5]) + ("; ..." if len(failures) > 5 else "")
        raise AudioError(
            f"{len(failures)} of {num_utterances} recordings cannot be learnt from ({shown}); "
            "leave them out of the manifest"
        )


class TeacherFrames:
    """The teacher's layers from a store, at any times, standardised per layer and dimension.

    Args:
        store: frames of one layer, `[T, D]`, or several, `[L, T, D]`.
        ids: of the utterances, in the order of the items.
        sample: utterances that mean and standard deviation are taken from.
    """

    def __init__(self, store: Store, ids: Sequence[str], sample: int = 200) -> None:
        self.store, self.ids = store, list(ids)
        grid = {name: store.grid[name] for name in ("offset", "window", "hop", "sample_rate")}
        # Times here count from the utterance, those of the store from the recording.
        self.first_time = float(frame_times(1, 0.0, **grid)[0])
        self.hop = store.grid["hop"] / store.grid["sample_rate"]
        picked = np.random.default_rng(0).permutation(len(self.ids))[:sample]
        frames = np.concatenate([self._read(item).values for item in picked], axis=1)
        self.mean = frames.mean(axis=1, keepdims=True)
        deviation = frames.std(axis=1, keepdims=True)
        # A dimension that never changes has nothing to teach, and must not become infinite.
        self.deviation = np.where(deviation > 1e-3 * deviation.mean(), deviation, np.inf)
        self.num_layers, _, self.dim = frames.shape

    def at(self, item: int, times: np.ndarray, hop: float) -> np.ndarray:
        """Average over one student hop around each time, `[L, T, D]`; edges repeat the first and last frame.

        Args:
            item: number of the utterance.
            times: `[T]` in seconds of the utterance.
            hop: of the student, in seconds of the utterance.
        """
        frames = self._read(item)
        parts = max(1, round(hop / self.hop))
        shifts = ((np.arange(parts) + 0.5) / parts - 0.5) * hop
        position = (times[:, None] + shifts - self.first_time) / self.hop
        position = np.clip(position, 0, frames.num_frames - 1)
        low = np.minimum(position.astype(int), max(0, frames.num_frames - 2))
        share = (position - low).astype(np.float32)[..., None]
        high = np.minimum(low + 1, frames.num_frames - 1)
        values = frames.values[:, low] * (1 - share) + frames.values[:, high] * share
        return (values.mean(axis=2) - self.mean) / self.deviation

    def _read(self, item: int) -> Frames:
        """The stored frames, `[L, T, D]` for a single layer too."""
        frames = self.store.frames(self.ids[item])
        return replace(frames, values=frames.values.reshape(-1, *frames.values.shape[-2:]))
