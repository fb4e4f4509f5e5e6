"""Classical features to compare encoders against, as librosa has them: `mfcc` and `logmel`.

They have no blocks: layer 0 is all they give, and it is their penultimate and their last.
"""

import librosa
import numpy as np
from scipy.sparse import csr_array
from torch import nn

from speechfeat.encoders.backbone import Backbone
from speechfeat.errors import ModelError
from speechfeat.units import FrameGrid, Stage

SAMPLE_RATE = 16000

# librosa's own proportions at this rate: 64 ms, of which a quarter is the step. Chosen on FSDD and EmoDB: windows
# twice as long tell digits apart better and emotions worse, those half as long the other way round.
N_FFT = 1024
HOP = 256

NUM_COEFFICIENTS = 20
NUM_MELS = {"mfcc": 40, "logmel": 80}

# Frames that a slope is fitted to, librosa's default.
DELTA_WIDTH = 9


class ClassicalBackbone(Backbone):
    """Mel energies in decibels, or their cosine transform with its slopes.

    "logmel" is `power_to_db(melspectrogram(n_mels=80))`: 10 log10 of the energy, `[T, 80]`. "mfcc" is `mfcc` with 20
    coefficients of 40 mel bands and `delta` of them, `[T, 40]`; where the slopes need more frames than there are
    (fewer than 9), the first and the last frame are repeated (`mode="nearest"`). In both, as in librosa, energies more
    than 80 dB below the loudest of the utterance (or of a chunk of it) are raised to there.

    Args:
        kind: "mfcc" or "logmel".
    """

    def __init__(self, kind: str) -> None:
        grid = FrameGrid(SAMPLE_RATE, (Stage(N_FFT, HOP, N_FFT // 2, N_FFT // 2),))
        super().__init__(nn.Identity(), [], grid, input_stages=0)
        self.kind = kind
        # librosa's one-call functions build the filters anew for every utterance. Of their numbers 98 % are zero, and
        # readers side by side would wait for the threads of a dense product.
        self._filters = csr_array(librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=NUM_MELS[kind]))

    def prepare(self, samples: np.ndarray) -> np.ndarray:
        """Features `[T, D]` of one utterance."""
        # librosa pads so by itself, but warns of inputs shorter than a window.
        padded = np.pad(samples, N_FFT // 2)
        spectrum = librosa.stft(padded, n_fft=N_FFT, hop_length=HOP, center=False)
        decibels = librosa.power_to_db(self._filters @ np.square(np.abs(spectrum)))
        if self.kind == "logmel":
            return np.ascontiguousarray(decibels.T)
        coefficients = librosa.feature.mfcc(S=decibels, n_mfcc=NUM_COEFFICIENTS)
        mode = "interp" if coefficients.shape[1] >= DELTA_WIDTH else "nearest"
        slopes = librosa.feature.delta(coefficients, width=DELTA_WIDTH, mode=mode)
        return np.ascontiguousarray(np.concatenate([coefficients, slopes]).T)


def open_source(name: str, options: object) -> ClassicalBackbone:
    """The features of this name.

    Raises:
        ModelError: for an unknown name.
    """
    del options
    if name not in NUM_MELS:
        raise ModelError(f"there are no classical features {name!r}; there are {', '.join(NUM_MELS)}")
    return ClassicalBackbone(name)
