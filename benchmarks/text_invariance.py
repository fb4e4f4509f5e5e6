"""Every text architecture's states alone against padded into a batch, and alone against transformers.

    python -m benchmarks.text_invariance

Tiny random-weight models in float32. Errors are the largest absolute difference over the standard deviation. `plain` is
what transformers gives for a batch that is padded on its left, as generating models do, with the right mask.
"""

import sys
from collections.abc import Sequence

import numpy as np
import torch

from speechfeat.diagnosis import deviation
from tests.families.text import TEXT_CASES, TEXTS, TextCase, make_tokenizer, stock

LIMIT = 1e-5
INPUTS = ("input_ids", "attention_mask")


def worst(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    return deviation([one[None] for one in found], [other[None] for other in expected]).worst


def padded(case: TextCase, side: str) -> list[np.ndarray]:
    """The penultimate layer of every text of one batch, by transformers."""
    model, tokenizer = case.make(), make_tokenizer(case.template)
    tokenizer.padding_side = side
    inputs = tokenizer(TEXTS, return_tensors="pt", padding=True)
    mask = inputs["attention_mask"].bool()
    with torch.no_grad():
        result = model(**{name: inputs[name] for name in INPUTS}, output_hidden_states=True)
    return [state[own].numpy() for state, own in zip(result.hidden_states[-2], mask, strict=True)]


def measure(case: TextCase) -> tuple[float, float, float, float, float]:
    """Ours padded, plain padded on the left and on the right, ours against transformers: penultimate and last."""
    model, tokenizer = case.make(), make_tokenizer(case.template)
    single = [stock(model, tokenizer, text) for text in TEXTS]
    encoder = case.encoder("penultimate,last")
    tokens = encoder.tokenizer.tokenize(TEXTS)
    inputs, counts = [encoder.prepare(one.samples) for one in tokens], [len(one.samples) for one in tokens]
    alone = [encoder.encode_padded([one], [count])[0] for one, count in zip(inputs, counts, strict=True)]
    ours = deviation(encoder.encode_padded(inputs, counts), alone).worst
    left, right = (worst(padded(case, side), [states[-2] for states in single]) for side in ("left", "right"))
    penultimate, last = (worst([own[at] for own in alone], [states[at] for states in single]) for at in (-2, -1))
    return ours, left, right, penultimate, last


def main() -> int:
    width = max(len(case.name) for case in TEXT_CASES)
    print(f"{'':{width}}  padded into a batch                  alone, against transformers")
    print(f"{'architecture':{width}}  speechfeat  plain left  plain right  penultimate  last")
    failures = 0
    for case in TEXT_CASES:
        ours, left, right, penultimate, last = measure(case)
        failures += max(ours, penultimate, last) >= LIMIT
        print(
            f"{case.name:{width}}  {ours:<10.1e}  {left:<10.1e}  {right:<11.1e}  {penultimate:<11.1e}  {last:.1e}",
            flush=True,
        )
    print(f"{len(TEXT_CASES)} models, {failures} with an error of {LIMIT:g} or more")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
