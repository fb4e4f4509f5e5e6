"""Tiny random-weight encoders of every family, with what their own libraries say of them."""

from tests.families import waveform
from tests.families.case import Case

CASES: list[Case] = [*waveform.CASES]
