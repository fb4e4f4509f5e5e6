"""Log mel frames as FastConformers take them, `[N]` samples -> `[N', F]`, without transformers."""

from typing import Protocol

import numpy as np
import torch
from scipy.sparse import csr_array

from speechfeat.units import Stage

# As LasrFeatureExtractor has them: the least energy in a band, and the frequencies that bands span, in Hz.
LEAST_ENERGY = np.float32(1e-5)
LOWEST, HIGHEST = 125.0, 7500.0


class LogMel(Protocol):
    """A front end of FastConformers.

    Attributes:
        sample_rate: of the samples, in Hz.
        stage: from samples to frames.
        max_samples: the longest input that it takes, or None.
    """

    sample_rate: int
    stage: Stage
    max_samples: int | None

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Frames of an utterance, `[N]` -> `[N', F]` float32."""
        ...


class LasrLogMel:
    """What transformers' `LasrFeatureExtractor` computes, without complex absolute values and the zeros of its filters.

    Args:
        sampling_rate: in Hz.
        n_fft: samples of a transform.
        win_length: samples of a window.
        hop_length: samples from a window to the next.
        feature_size: F, the number of bands.
    """

    max_samples: int | None = None

    def __init__(self, sampling_rate: int, n_fft: int, win_length: int, hop_length: int, feature_size: int) -> None:
        self.sample_rate, self.n_fft = sampling_rate, n_fft
        self.stage = Stage(win_length, hop_length)
        self.window = torch.hann_window(win_length, periodic=False, dtype=torch.float64)
        filters = mel_filters(feature_size, n_fft, sampling_rate)
        # For squares of real and imaginary parts, which lie side by side.
        self.filters = csr_array(np.repeat(filters.astype(np.float32).T, 2, axis=1))

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Log mel frames, `[N]` -> `[N', F]`; spectra in float64, as there, since quiet bands lie beside loud ones."""
        frames = torch.from_numpy(samples).double().unfold(0, self.stage.kernel, self.stage.stride) * self.window
        squares = torch.view_as_real(torch.fft.rfft(frames, n=self.n_fft)).flatten(1).square_().float()
        return np.log(np.maximum((self.filters @ squares.numpy().T).T, LEAST_ENERGY, order="C"))


def mel_filters(bands: int, n_fft: int, sample_rate: int) -> np.ndarray:
    """Triangles on the mel scale of HTK's formula, `[n_fft / 2 + 1, F]` float64; the lowest bin is in none."""
    bins = _mel(np.linspace(0.0, sample_rate / 2, n_fft // 2 + 1))[1:, None]
    lowest, highest = _mel(np.array([LOWEST, HIGHEST]))
    edges = np.linspace(float(lowest), float(highest), bands + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre))
    return np.pad(np.maximum(triangles, 0.0), ((1, 0), (0, 0)))


def _mel(frequencies: np.ndarray) -> np.ndarray:
    return 1127.0 * np.log(1.0 + frequencies / 700.0)
