"""What is done to batches in training so that a network does not learn them by heart: SpecAugment and mixup."""

from typing import Any, NamedTuple

import numpy as np

from speechfeat.errors import ParameterError


def spec_augment(
    inputs: np.ndarray, rng: np.random.Generator, num_bands: int = 2, num_stretches: int = 2
) -> np.ndarray:
    """Bands and stretches set to the utterance's mean (Park et al., 2019: SpecAugment, without time warping).

    A band is at most a sixth of the dimensions wide, a stretch at most 0.1 of the utterance long.

    Shape:
        inputs `[N', F]` -> `[N', F]`
    """
    result, mean = inputs.copy(), inputs.mean()
    for axis, count, most in ((1, num_bands, inputs.shape[1] // 6), (0, num_stretches, len(inputs) // 10)):
        for _ in range(count):
            width = int(rng.integers(most + 1))
            first = int(rng.integers(inputs.shape[axis] - width + 1))
            np.moveaxis(result, axis, 0)[first : first + width] = mean
    return result


class Mixture(NamedTuple):
    """A batch mixed with itself.

    Attributes:
        inputs: `[B, ...]`, each `share` of itself and the rest of its partner.
        targets: `[B, C]`, likewise.
        partners: `[B]`, the row that each was mixed with; a padded row is as long as the longer of both.
        share: from 0.5 to 1.
    """

    inputs: Any
    targets: Any
    partners: np.ndarray
    share: float


def mixup(inputs: Any, targets: Any, rng: np.random.Generator, alpha: float = 0.2) -> Mixture:
    """Mix the rows of a batch, and what is to be told of them, in pairs (mixup, Zhang et al., 2018).

    Args:
        inputs: array or tensor, of anything that can be averaged.
        targets: array or tensor, the share of each class, such as one-hot rows.
        rng: decides partners and share.
        alpha: of the Beta distribution that the share is drawn from; larger mixes more evenly.

    Shape:
        inputs `[B, ...]`, targets `[B, C]`

    Raises:
        ParameterError: if `alpha` is not above 0, or lengths differ.
    """
    if not alpha > 0 or len(inputs) != len(targets):
        raise ParameterError(f"alpha={alpha} must be above 0, and {len(inputs)} inputs need as many targets")
    partners = rng.permutation(len(inputs))
    share = float(rng.beta(alpha, alpha))
    # Of two partners both are in the batch: less than half would be the same pairs again.
    share = max(share, 1 - share)
    first, second = (share * values + (1 - share) * values[partners] for values in (inputs, targets))
    return Mixture(first, second, partners, share)
