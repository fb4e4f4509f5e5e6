"""Laws of batches."""

import numpy as np
import pytest

from speechfeat.batching import group_seconds, pad, plan_batches, plan_groups
from speechfeat.errors import ParameterError

COSTS = np.random.default_rng(0).uniform(0.5, 20, 200).tolist()


@pytest.mark.parametrize(("budget", "most"), [(30.0, None), (5.0, None), (60.0, 3)])
def test_every_item_once_and_no_batch_over_budget(budget: float, most: int | None) -> None:
    batches = plan_batches(COSTS, budget, most)
    assert sorted(item for batch in batches for item in batch) == list(range(len(COSTS)))
    for batch in batches:
        padded = len(batch) * max(COSTS[item] for item in batch)
        assert padded <= budget or len(batch) == 1
        assert most is None or len(batch) <= most


def test_little_padding() -> None:
    batches = plan_batches(COSTS, 60.0)
    padded = sum(len(batch) * max(COSTS[item] for item in batch) for batch in batches)
    assert padded < 1.1 * sum(COSTS)


def test_no_budget_is_refused() -> None:
    with pytest.raises(ParameterError, match="above 0"):
        plan_batches(COSTS, 0.0)


def test_padding_is_zeros() -> None:
    batch = pad([np.ones((3, 2), np.float32), np.ones((5, 2), np.float32)], [30, 50])
    assert batch.inputs.shape == (2, 5, 2)
    assert batch.sizes == (3, 5)
    assert batch.inputs[0, 3:].abs().sum() == 0


@pytest.mark.parametrize("least", [0.8, 1.0])
def test_groups_hold_every_input_once_within_budget_and_share(least: float) -> None:
    sizes = [round(100 * cost) for cost in COSTS]
    groups = plan_groups(sizes, COSTS, 12.0, least)
    assert [item for group in groups for item in group] == list(range(len(COSTS)))
    for group in groups:
        assert len(group) == 1 or max(COSTS[item] for item in group) * len(group) <= 12.0
        assert min(sizes[item] for item in group) >= least * max(sizes[item] for item in group)


def test_groups_have_few_sizes() -> None:
    sizes = {len(plan_groups([100] * count, [1.0] * count, 500.0, 1.0)[0]) for count in range(1, 500)}
    assert sorted(sizes)[:16] == [*range(1, 9), 10, 12, 14, 16, 20, 24, 28, 32]


def test_a_large_model_in_several_threads_takes_small_groups() -> None:
    assert group_seconds(is_half=True, is_shared=True) == group_seconds(is_half=False, is_shared=False)
    assert group_seconds(is_half=True, is_shared=False) > group_seconds(is_half=True, is_shared=True)
