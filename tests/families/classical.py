"""MFCC and log-mel beside librosa's own calls."""

import librosa
import numpy as np

from speechfeat.encoders.classical import HOP, N_FFT
from tests.families.case import Case

OPTIONS = {"sr": 16000, "n_fft": N_FFT, "hop_length": HOP}


def mfcc(_name: str, _extractor: None, clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    coefficients = librosa.feature.mfcc(y=clip, n_mfcc=20, n_mels=40, **OPTIONS)
    mode = "interp" if coefficients.shape[1] >= 9 else "nearest"
    features = np.concatenate([coefficients, librosa.feature.delta(coefficients, mode=mode)]).T
    return features, features


def logmel(_name: str, _extractor: None, clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features = librosa.power_to_db(librosa.feature.melspectrogram(y=clip, n_mels=80, **OPTIONS)).T
    return features, features


CASES = [Case("mfcc", lambda: ("mfcc", None), mfcc), Case("logmel", lambda: ("logmel", None), logmel)]
