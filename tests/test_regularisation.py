import numpy as np
import pytest
import torch

from speechfeat.errors import ParameterError
from speechfeat.regularisation import mixup, spec_augment


def test_spec_augment_sets_bands_and_stretches_to_the_mean() -> None:
    inputs = np.random.default_rng(0).standard_normal((100, 80)).astype(np.float32)
    masked = spec_augment(inputs, np.random.default_rng(1))
    changed = masked != inputs
    assert changed.any()
    assert np.allclose(masked[changed], inputs.mean())
    # What is changed is whole bands and whole stretches.
    bands, stretches = changed.all(axis=0), changed.all(axis=1)
    assert np.array_equal(changed, bands[None, :] | stretches[:, None])


@pytest.mark.parametrize("wrap", [np.asarray, torch.from_numpy])
def test_mixup_mixes_inputs_and_targets_of_the_same_pairs(wrap) -> None:
    inputs, targets = np.random.default_rng(0).standard_normal((6, 5, 2)), np.eye(6)
    mixed = mixup(wrap(inputs), wrap(targets), np.random.default_rng(1), alpha=1.0)
    assert type(mixed.inputs) is type(wrap(inputs))
    assert 0.5 <= mixed.share < 1
    assert sorted(mixed.partners) == list(range(6))
    # The targets, of which each row is a class of its own, say what the inputs were made of.
    assert np.allclose(np.asarray(mixed.inputs), np.tensordot(np.asarray(mixed.targets), inputs, axes=1))
    assert np.allclose(np.asarray(mixed.targets).sum(axis=1), 1)


def test_mixup_of_nothing_drawn_is_refused() -> None:
    with pytest.raises(ParameterError, match="alpha=0 must be above 0"):
        mixup(np.zeros((2, 3)), np.eye(2), np.random.default_rng(0), alpha=0)
