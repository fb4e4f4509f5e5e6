"""Every family's features alone against padded into a batch, and alone against its own library.

    python -m benchmarks.invariance

Tiny random-weight models of every family, in float32. Errors are the largest absolute difference over the standard
deviation. `plain` is what the library itself gives for the padded batch with the right mask.
"""

import sys
from collections.abc import Sequence

import numpy as np

from speechfeat.diagnosis import deviation, encode_alone, invariance
from tests.families import CASES
from tests.families.case import Case, speech_like

LENGTHS = (16000, 39999, 24321, 8000, 16321)
LIMIT = 1e-5


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


def main() -> int:
    width = max(len(case.name) for case in CASES)
    print(f"{'':{width}}  padded into a batch    alone, against its library")
    print(f"{'family':{width}}  speechfeat  plain      penultimate  last")
    failures = 0
    for case in CASES:
        ours, plain, penultimate, last = measure(case)
        failures += max(ours, penultimate, last) >= LIMIT
        shown = "-" if plain is None else f"{plain:.1e}"
        print(f"{case.name:{width}}  {ours:<10.1e}  {shown:<9}  {penultimate:<11.1e}  {last:.1e}", flush=True)
    print(f"{len(CASES)} models, {failures} with an error of {LIMIT:g} or more")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
