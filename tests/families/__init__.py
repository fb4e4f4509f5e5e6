"""Tiny random-weight encoders of every family, with what their own libraries say of them."""

from tests.families import classical, spectral, torchaudio_family, waveform, windowed
from tests.families.case import Case

CASES: list[Case] = [*waveform.CASES, *windowed.CASES, *spectral.CASES, *torchaudio_family.CASES, *classical.CASES]
