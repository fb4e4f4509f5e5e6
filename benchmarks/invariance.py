"""Every family's features alone against padded into a batch, and alone against its own library.

    python -m benchmarks.invariance [--dtype bfloat16]

Tiny random-weight models of every family. In float32 errors are the largest absolute difference over the standard
deviation, and all of ours are to be below 1e-5; `plain` is what the library itself gives for the padded batch with the
right mask. In half precision errors are the root of the mean squared difference over the standard deviation: of padded
from alone, which is to be no more than 2e-2, and of alone from float32.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from speechfeat.diagnosis import deviation, encode_alone, invariance
from tests.families import CASES
from tests.families.case import Case, speech_like

LENGTHS = (16000, 39999, 24321, 8000, 16321)
LIMIT = 1e-5
HALF_LIMIT = 2e-2


def worst(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    return deviation([one[None] for one in found], [other[None] for other in expected]).worst


def measure(case: Case) -> tuple[float, float | None, float, float]:
    """Ours padded, plain padded, ours against the library: penultimate and last."""
    clips = speech_like(*LENGTHS)
    model, extractor = case.make()
    single = [case.single(model, extractor, clip) for clip in clips]
    plain = None
    if case.padded is not None:
        plain = worst(case.padded(model, extractor, clips), [penultimate for penultimate, _ in single])
    ours = invariance(case.encoder("penultimate"), clips).worst
    alone = encode_alone(case.encoder("all"), clips)
    # A front end without blocks has one layer, which is both.
    deep = [values[max(-2, -len(values))] for values in alone]
    penultimate = worst(deep, [reference for reference, _ in single])
    last = worst([values[-1] for values in alone], [reference for _, reference in single])
    return ours, plain, penultimate, last


def compare_half(dtype: str, width: int) -> int:
    """Print the table of half precision; how many models are beyond its limit."""
    print(f"{'family':{width}}  padded from alone  alone from float32")
    clips, failures = speech_like(*LENGTHS), 0
    for case in CASES:
        encoder = case.encoder("penultimate", dtype=dtype)
        if encoder.dtype != dtype:  # features without weights have one precision
            continue
        padded = invariance(encoder, clips).typical
        exact = encode_alone(case.encoder("penultimate"), clips)
        failures += padded > HALF_LIMIT
        print(
            f"{case.name:{width}}  {padded:<17.1e}  {deviation(encode_alone(encoder, clips), exact).typical:.1e}",
            flush=True,
        )
    print(f"{failures} models with more than {HALF_LIMIT:g} between padded and alone")
    return failures


def compare_exact(width: int) -> int:
    """Print the table of float32; how many models are beyond its limit."""
    print(f"{'':{width}}  padded into a batch    alone, against its library")
    print(f"{'family':{width}}  speechfeat  plain      penultimate  last")
    failures = 0
    for case in CASES:
        ours, plain, penultimate, last = measure(case)
        failures += max(ours, penultimate, last) >= LIMIT
        shown = "-" if plain is None else f"{plain:.1e}"
        print(f"{case.name:{width}}  {ours:<10.1e}  {shown:<9}  {penultimate:<11.1e}  {last:.1e}", flush=True)
    print(f"{len(CASES)} models, {failures} with an error of {LIMIT:g} or more")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.invariance", description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    dtype = parser.parse_args().dtype
    width = max(len(case.name) for case in CASES)
    return 1 if (compare_exact(width) if dtype == "float32" else compare_half(dtype, width)) else 0


if __name__ == "__main__":
    sys.exit(main())
