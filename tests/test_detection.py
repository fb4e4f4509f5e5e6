"""Windows that slide, heads that listen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from speechfeat import windows
from speechfeat.detection import BACKGROUND, Listening, detect
from speechfeat.detectors import train_detector
from speechfeat.errors import ModelError, ParameterError, StoreError
from speechfeat.experiments.mixing import write_long_recordings
from speechfeat.extraction import extract_features
from speechfeat.heads.binding import Binding
from speechfeat.heads.opening import load_head, train_head
from speechfeat.heads.pooled import PooledHead
from speechfeat.pooling import pool_frames
from speechfeat.store import Store
from speechfeat.windows import Slider, window_embeddings
from tests.spoken import write_background, write_words


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Of three made recordings; `.attrs["folder"]` is where they are."""
    top = tmp_path_factory.mktemp("spoken")
    clips, speech = write_words(top / "words"), write_background(top / "background")
    table = write_long_recordings(top / "long", clips, speech, num=3, seconds=14, every=2)
    table.attrs["folder"] = top / "long"
    return table


@pytest.fixture(scope="module")
def store(events: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return extract_features(
        events.attrs["folder"], tmp_path_factory.mktemp("features") / "store", "mfcc", pool="mean+std"
    )


@pytest.fixture(scope="module")
def head(store: Store, events: pd.DataFrame) -> PooledHead:
    return train_detector(store, events, ids=store.ids[:2], hop=0.02)


@pytest.mark.parametrize("pool", windows.POOLS)
@pytest.mark.parametrize(("length", "hop", "piece"), [(1, 1, 2048), (7, 3, 5), (30, 1, 1), (8, 50, 2048)])
def test_windows_are_pooled_as_utterances_are(
    pool: str, length: int, hop: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "PIECE", piece)
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((2, 101, 3)) + 300 * rng.standard_normal((2, 1, 3))).astype(np.float32)
    embeddings, firsts = window_embeddings(values, length, hop, pool)
    assert firsts.tolist() == sorted({*range(0, 101 - length + 1, hop), 101 - length})
    for first, found in zip(firsts, embeddings, strict=True):
        assert np.allclose(found, pool_frames(values[:, first : first + length], pool), rtol=1e-6, atol=1e-5)


def test_a_constant_has_no_deviation_and_a_short_recording_is_one_window() -> None:
    values = np.full((1, 5, 2), 1e4 / 3, np.float32)
    embeddings, firsts = window_embeddings(values, 9, 1, "mean+std")
    assert firsts.tolist() == [0]
    assert embeddings[0, 0].tolist() == [values[0, 0, 0]] * 2 + [0, 0]


@pytest.mark.parametrize(
    ("shape", "length", "hop", "pool", "message"),
    [
        ((5, 2), 2, 1, "mean", r"shape \(5, 2\)"),
        ((1, 0, 2), 2, 1, "mean", "T above 0"),
        ((1, 5, 2), 0, 1, "mean", "length=0"),
        ((1, 5, 2), 2, 0, "mean", "hop=0"),
        ((1, 5, 2), 2, 1, "first", "pool='first' says nothing"),
    ],
)
def test_windows_that_cannot_be(shape: tuple, length: int, hop: int, pool: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        window_embeddings(np.zeros(shape, np.float32), length, hop, pool)


def test_spans_are_those_of_the_windows_and_of_their_frames(store: Store) -> None:
    slider = Slider(store, Binding.of(store), (0.3, 0.1, 0.301), 0.03)
    key = store.ids[0]
    found = list(slider.slide(key))
    starts, ends = (np.concatenate(parts) for parts in zip(*slider.spans(key), strict=True))
    assert np.array_equal(np.concatenate([piece.starts for piece in found]), starts)
    assert np.array_equal(np.concatenate([piece.ends for piece in found]), ends)
    assert [piece.length for piece in found] == [6, 19]
    frames = store.frames(key)
    inside = (frames.times > found[0].starts[50]) & (frames.times < found[0].ends[50])
    assert inside.sum() == 6
    assert np.allclose(found[0].embeddings[50, 0], pool_frames(frames.values[inside], "mean+std"), atol=1e-4)


def test_keywords_are_found_where_they_are(head: PooledHead, store: Store, events: pd.DataFrame) -> None:
    key = store.ids[2]
    spoken = events[events["id"] == key]
    found = detect(head, store, [key])
    assert head.classes == [BACKGROUND, "high", "low"]
    assert found["label"].tolist() == spoken["label"].tolist()
    assert np.abs(found["start"].to_numpy() - spoken["start"].to_numpy()).max() < 0.2
    assert np.abs(found["end"].to_numpy() - spoken["end"].to_numpy()).max() < 0.2
    assert list(found.columns) == ["id", "label", "probability", "start", "end"]


def test_what_is_found_at_a_threshold_is_what_lies_above_it(head: PooledHead, store: Store) -> None:
    everything = detect(head, store, threshold=0.0)
    for threshold in (0.02, 0.3, 0.9):
        above = everything[everything["probability"] >= threshold].reset_index(drop=True)
        pd.testing.assert_frame_equal(detect(head, store, threshold=threshold), above)


def test_pieces_change_nothing(head: PooledHead, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = detect(head, store, threshold=0.1)
    monkeypatch.setattr(windows, "PIECE", 17)
    pd.testing.assert_frame_equal(detect(head, store, threshold=0.1), whole, atol=1e-5)


def test_detections_overlap_no_more_than_they_may(head: PooledHead, store: Store) -> None:
    for overlap in (0.0, 0.5):
        found = detect(head, store, store.ids[:1], threshold=0.0, overlap=overlap)
        start, end = found["start"].to_numpy(), found["end"].to_numpy()
        shared = np.minimum(end[1:], end[:-1]) - np.maximum(start[1:], start[:-1])
        assert (shared <= overlap * np.minimum((end - start)[1:], (end - start)[:-1]) + 1e-9).all()
        assert len(found) > 10


def test_a_stretch_of_a_recording_keeps_the_times_of_the_recording(
    head: PooledHead, events: pd.DataFrame, tmp_path: Path
) -> None:
    manifest = tmp_path / "cut.csv"
    file = events.attrs["folder"] / events["id"].iloc[0]
    manifest.write_text(f"path,start,end,id\n{file},5,12,cut\n")
    cut = extract_features(manifest, tmp_path / "store", "mfcc", pool="mean+std")
    spoken = events[(events["id"] == file.name) & (events["start"] > 5) & (events["end"] < 12)]
    found = detect(head, cut)
    inside = found[found["start"] > 5.2]
    assert np.abs(inside["start"].to_numpy()[: len(spoken)] - spoken["start"].to_numpy()).max() < 0.2


def test_a_saved_head_listens_as_before(head: PooledHead, store: Store, tmp_path: Path) -> None:
    head.save(tmp_path / "head")
    opened = load_head(tmp_path / "head")
    assert Listening.of(opened) == Listening.of(head)
    pd.testing.assert_frame_equal(detect(opened, store), detect(head, store))


@pytest.mark.parametrize(
    "kept", [{}, {"windows": 3}, {"windows": [0.3], "hop": "often"}, {"windows": [0.3], "hop": -1}]
)
def test_a_head_that_does_not_say_how_it_listens_is_damaged(kept: dict, head: PooledHead, store: Store) -> None:
    damaged = PooledHead(replace(head.record, options={**head.record.options, "detection": kept}), head.pipeline)
    with pytest.raises(ModelError, match="is damaged"):
        detect(damaged, store)


def test_a_head_of_clips_listens_if_it_is_told_how(store: Store, tmp_path: Path) -> None:
    write_words(tmp_path / "words", 4)
    clips = extract_features(tmp_path / "words", tmp_path / "store", "mfcc", pool="mean+std")
    plain = train_head(clips, ["low" if key.startswith("low") else "high" for key in clips.ids])
    with pytest.raises(ParameterError, match=r"was not made to listen.*windows="):
        detect(plain, store)
    with pytest.raises(ParameterError, match="background='noise' is none of the classes"):
        detect(plain, store, windows=(0.4,), background="noise")
    with pytest.raises(ParameterError, match="'window' is no option"):
        detect(plain, store, window=0.4)
    found = detect(plain, store, windows=(0.4,))
    assert set(found["label"]) == {"high", "low"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": ()}, "windows"),
        ({"windows": (0.3, -1)}, "seconds above 0"),
        ({"hop": 0}, "hop=0"),
        ({"threshold": 2}, "threshold=2"),
        ({"overlap": -1}, "overlap=-1"),
    ],
)
def test_listening_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Listening(**{"windows": (0.4,), **options})


def test_features_that_do_not_fit_are_refused(
    head: PooledHead, store: Store, events: pd.DataFrame, tmp_path: Path
) -> None:
    folder = events.attrs["folder"]
    with pytest.raises(StoreError, match="no utterance 'other'"):
        detect(head, store, ["other"])
    without = extract_features(folder, tmp_path / "a", "mfcc", pool="mean+std", frames=False)
    with pytest.raises(ParameterError, match="keeps no frames"):
        detect(head, without)
    with pytest.raises(ParameterError, match=r"'mfcc', and .* is of 'logmel'"):
        detect(head, extract_features(folder, tmp_path / "b", "logmel"))
    # The pooling of whole recordings does not matter.
    assert len(detect(head, extract_features(folder, tmp_path / "c", "mfcc", pool="max"))) == len(detect(head, store))


@pytest.mark.parametrize("kind", ["lda", "mlp"])
def test_other_kinds_and_a_layer_of_its_choice(kind: str, store: Store, events: pd.DataFrame) -> None:
    head = train_detector(store, events, kind, layers="auto", hop=0.04, rounds=0, negatives=5, windows=(0.3, 0.5))
    assert head.record.binding.layers == (0,)
    assert Listening.of(head) == Listening((0.3, 0.5), 0.04)
    assert len(detect(head, store, store.ids[:1])) >= 5


def test_the_best_of_several_layers_is_taken(store: Store, events: pd.DataFrame, tmp_path: Path) -> None:
    deep = extract_features(events.attrs["folder"], tmp_path / "deep", layers="0,1", pool="mean")
    head = train_detector(deep, events, layers="auto", rounds=0, negatives=5)
    layers, scores = head.record.options["layer_scores"]
    assert layers == [0, 1]
    assert head.record.binding.layers == (layers[int(np.argmax([score for score, _, _ in scores]))],)
    with pytest.raises(ParameterError, match="in 2 groups give no two folds"):
        train_detector(deep, events.assign(group="one"), ids=deep.ids[:1], layers="auto")
    both = train_detector(deep, events.drop(columns="group"), rounds=0, negatives=5)
    assert both.record.binding.layers == (0, 1)
    assert len(detect(both, deep, deep.ids[:1])) >= 5


def test_events_that_do_not_fit_are_refused(store: Store, events: pd.DataFrame) -> None:
    with pytest.raises(ParameterError, match="no column start"):
        train_detector(store, events.drop(columns="start"))
    with pytest.raises(ParameterError, match=r"none of .* events is in a recording"):
        train_detector(store, events.assign(id="elsewhere"))
    with pytest.raises(ParameterError, match=r"do not lie in their recordings, first '(low|high)' from"):
        train_detector(store, events.assign(start=events["start"] + 100))
    with pytest.raises(ParameterError, match="'_background_' is what is not in any event"):
        train_detector(store, events.assign(label=BACKGROUND))
    with pytest.raises(ParameterError, match="a label that is no name"):
        train_detector(store, events.assign(label=7))
    with pytest.raises(ParameterError, match="nothing but keywords"):
        whole = pd.DataFrame({"id": store.ids, "label": ["a", "b", "a"], "start": 0.0, "end": 14.0})
        train_detector(store, whole, windows=(14.0,))
    with pytest.raises(ParameterError, match=r"no window is like 'high', which takes 0\.4. s"):
        train_detector(store, events, windows=(3.0,))
    with pytest.raises(ParameterError, match="negatives=0"):
        train_detector(store, events, negatives=0)


def test_only_pooled_heads_slide(head: PooledHead, store: Store) -> None:
    class Framed(PooledHead.__mro__[1]):  # type: ignore[misc, name-defined] - any other head
        probabilities = arrays = None

    Framed.__abstractmethods__ = frozenset()
    with pytest.raises(ParameterError, match="'xvector' head does not slide"):
        detect(Framed(replace(head.record, kind="xvector")), store)
