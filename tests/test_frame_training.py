"""How heads on frames are trained: early stopping, validation, sweeps of rates, starts of mixes."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import speechfeat as sf
from speechfeat.classification import average_recall
from speechfeat.heads.base import read_head
from speechfeat.heads.fitting import Training
from speechfeat.heads.holdout import split_validation
from speechfeat.heads.networked import FrameHead
from speechfeat.heads.objectives import CrossEntropy, Validation
from speechfeat.store import Store
from tests.frame_stores import EVEN, LAYERS, QUICK, words_of, write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_store(tmp_path_factory.mktemp("train") / "s")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Utterances that nothing was trained on."""
    return write_store(tmp_path_factory.mktemp("test") / "s", seed=5, per=2)


def test_same_seed_same_weights(store: Store) -> None:
    options = {**QUICK, "epochs": 2, "crop_seconds": 0.1}
    one, same, other = (
        sf.train_frame_head(store, "word", "bigru", groups="speaker", seed=seed, **options) for seed in (3, 3, 4)
    )
    assert all(np.array_equal(value, same.arrays()[name]) for name, value in one.arrays().items())
    assert one.record == same.record
    assert any(not np.array_equal(value, other.arrays()[name]) for name, value in one.arrays().items())


def test_training_leaves_the_callers_chance_alone(store: Store) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    sf.train_frame_head(store, "word", "linear", epochs=1)
    assert torch.equal(torch.rand(3), expected)


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> list[dict[str, np.ndarray]]:
    """Let validation find these scores, epoch by epoch; the weights after each."""
    states: list[dict[str, np.ndarray]] = []

    def validate(objective, network, batches, device):
        states.append({name: value.numpy().copy() for name, value in network.state_dict().items()})
        score = scores[len(states) - 1]
        if score < 0:
            raise KeyboardInterrupt
        return Validation(score, (score,))

    monkeypatch.setattr(CrossEntropy, "validate", validate)
    return states


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(value, other[name]) for name, value in one.items())


def test_early_stopping_keeps_the_best(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    states = scripted(monkeypatch, [0.5, 0.8, 0.7, 0.8, 0.7, 0.9])
    head = sf.train_frame_head(store, "word", "linear", checkpoint=tmp_path / "head", patience=3, epochs=20, **EVEN)
    assert len(states) == 5  # 0.8 again is no better
    assert equal(head.arrays(), states[1]) and not equal(states[1], states[4])
    told = head.record.training
    assert (told["epoch"], told["ended"], len(told["history"])) == (2, "patience", 5)
    assert head.record.scores["validation"]["score"] == 0.8
    record, arrays = read_head(tmp_path / "head")
    assert equal(arrays, states[1]) and record.scores == head.record.scores


def test_ctrl_c_keeps_the_best(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    states = scripted(monkeypatch, [0.5, 0.8, 0.7, -1])
    head = sf.train_frame_head(store, "word", "linear", checkpoint=tmp_path / "head", **EVEN)
    assert equal(head.arrays(), states[1]) and equal(read_head(tmp_path / "head")[1], states[1])
    assert head.record.training["ended"] == "stop"
    scripted(monkeypatch, [-1])
    with pytest.raises(KeyboardInterrupt):
        sf.train_frame_head(store, "word", "linear")
    # A second Ctrl-C, where the first one sets an event, is to interrupt.
    scripted(monkeypatch, [0.5, -1])
    with pytest.raises(KeyboardInterrupt):
        sf.train_frame_head(store, "word", "linear", stop=threading.Event())


def test_the_best_so_far_is_on_disk_when_a_run_is_killed(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scripted(monkeypatch, [0.5, 0.8, 0.7])  # then an IndexError
    with pytest.raises(IndexError):
        sf.train_frame_head(store, "word", "linear", checkpoint=tmp_path / "head", **EVEN)
    head = FrameHead.from_arrays(*read_head(tmp_path / "head"))
    assert head.record.scores["validation"]["score"] == 0.8 and head.probabilities(store).shape == (96, 3)


def test_an_event_ends_the_training(store: Store) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        sf.train_frame_head(store, "word", "linear", stop=stop)


def test_without_validation_the_last_epoch_is_kept(store: Store) -> None:
    head = sf.train_frame_head(store, "word", "linear", validation_share=0, epochs=3, patience=1)
    told = head.record.training
    assert (told["epoch"], told["ended"], told["validation"]) == (3, "epochs", 0)
    assert head.record.scores == {}


def test_validation_keeps_groups_apart() -> None:
    rng = np.random.default_rng(0)
    for seed in range(5):
        groups = rng.integers(7, size=90)
        classes = (np.arange(90) + groups) % 4
        train, apart = split_validation(classes, list("wxyz"), groups, 0.2, seed)
        assert sorted([*train, *apart]) == list(range(90))
        assert not set(groups[train]) & set(groups[apart]) and set(classes[train]) == {0, 1, 2, 3}
        assert 0.05 < len(apart) / 90 < 0.4


def test_a_group_that_alone_has_a_class_is_trained_on() -> None:
    groups = np.repeat(np.arange(4), 10)
    classes = np.where(groups == 2, np.arange(40) % 3, np.arange(40) % 2)
    for seed in range(5):
        assert 2 in groups[split_validation(classes, list("xyz"), groups, 0.25, seed)[0]]
    with pytest.raises(sf.ParameterError, match="such as 'x', which is in one group only"):
        split_validation(groups, list("xyzw"), groups, 0.25)
    with pytest.raises(sf.ParameterError, match="one group"):
        split_validation(classes, list("xyz"), np.zeros(40), 0.25)


def test_without_groups_every_class_is_divided() -> None:
    classes = np.repeat([0, 1, 2, 3], [50, 10, 2, 1])
    train, apart = split_validation(classes, list("wxyz"), None, 0.2)
    assert np.bincount(classes[apart], minlength=4).tolist() == [10, 2, 1, 0]
    assert sorted([*train, *apart]) == list(range(63))
    with pytest.raises(sf.ParameterError, match="no class has two"):
        split_validation(np.arange(3), list("xyz"), None, 0.2)


def test_a_listed_validation_part(store: Store) -> None:
    listed = store.ids[:24]
    head = sf.train_frame_head(store, "word", "linear", validation=listed, epochs=1)
    assert head.record.training["validation"] == 24
    bad = {"stranger": (["x"], "not among"), "all": (store.ids, "part of them")}
    for ids, message in bad.values():
        with pytest.raises(sf.ParameterError, match=message):
            sf.train_frame_head(store, "word", "linear", validation=ids)
    stops = [key for key, word in zip(store.ids, words_of(store), strict=True) if word == "stop"]
    with pytest.raises(sf.ParameterError, match="'stop' is among the utterances to validate"):
        sf.train_frame_head(store, "word", "linear", validation=stops)


def test_a_sweep_takes_a_sensible_rate_and_records_all(store: Store, others: Store, tmp_path: Path) -> None:
    options = {**QUICK, "checkpoint": tmp_path / "head", "groups": "speaker", "epochs": 4}
    rates = (1e3, 1e-1, 1e-2, 1e-6)
    head = sf.sweep_rates(store, "word", "mlp-frames", rates, **options)
    rows = head.record.training["trials"]
    assert [row["learning_rate"] for row in rows] == list(rates)
    chosen = head.record.options["config"]["learning_rate"]
    assert chosen in (1e-1, 1e-2)
    scores = {row["learning_rate"]: row["score"] for row in rows}
    assert scores[chosen] == max(score for score in scores.values() if score is not None)
    assert head.record.scores["validation"]["score"] == scores[chosen] > 0.9 > scores[1e-6]
    assert average_recall(words_of(others), head.predict(others)["label"]) > 0.9
    record, arrays = read_head(tmp_path / "head")
    assert equal(arrays, head.arrays()) and record.training["trials"] == rows
    # From the same seed as one rate alone.
    del options["checkpoint"]
    alone = sf.train_frame_head(store, "word", "mlp-frames", **{**options, "learning_rate": chosen})
    assert equal(alone.arrays(), head.arrays())


def test_a_rate_that_diverges_is_one_error_or_one_row(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    learn = Training._learn
    monkeypatch.setattr(
        Training,
        "_learn",
        lambda self, *rest: float("nan") if self.config.learning_rate == 1 else learn(self, *rest),
    )
    with pytest.raises(sf.ParameterError, match="with learning_rate 1; use a lower one"):
        sf.train_frame_head(store, "word", "linear", learning_rate=1, epochs=1)
    head = sf.sweep_rates(store, "word", "linear", (1, 1e-2), epochs=1, **EVEN)
    assert [(row["score"] is None, row["ended"]) for row in head.record.training["trials"]] == [
        (True, "divergence"),
        (False, "epochs"),
    ]


def test_a_mix_that_starts_at_a_layer_is_tried_and_the_better_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The probe finds the layer of the words, and of speakers that of the voices.
    options = {**QUICK, "mix_starts": 1, "epochs": 1}
    for labels, groups, layer in (("word", "speaker", 2), ("speaker", None, 3)):
        head = sf.train_frame_head(store, labels, "linear", groups=groups, **options)
        assert [row["start"] for row in head.record.training["trials"]] == [None, layer]
        assert head.mix[layer] > 0.8
    voices = sf.train_angular_head(store, "speaker", "linear", **options)
    assert [row["start"] for row in voices.record.training["trials"]] == [None, 3]
    for scores, kept in (
        ([0.5, 0.6, 0.7, 0.3, 0.5, 0.6], 2),
        ([0.5, 0.8, 0.7, 0.3, 0.6, 0.8], 1),
        ([0.5, 0.6, 0.6, 0.3, 0.1, 0.7], 5),
    ):
        states = scripted(monkeypatch, scores)
        saved = {"checkpoint": tmp_path / "head", "overwrite": True}
        head = sf.train_frame_head(store, "word", **saved, epochs=2, mix_starts=2)
        assert equal(head.arrays(), states[kept]) and equal(read_head(tmp_path / "head")[1], states[kept])
        starts = [row["start"] for row in head.record.training["trials"]]
        assert starts[:2] == [None, 2] and starts[2] in LAYERS and starts[2] != 2
        assert head.record.scores["validation"]["score"] == max(scores)
