"""Laws of heads on frames, on made stores, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import speechfeat as sf
from speechfeat.classification import average_recall
from speechfeat.heads.base import read_head
from speechfeat.heads.batches import EmbeddingReader, FrameBatches, FrameReader
from speechfeat.heads.binding import Binding
from speechfeat.heads.framed import FRAME_KINDS
from speechfeat.heads.networked import FrameHead
from speechfeat.heads.objectives import class_weights
from speechfeat.store import Store
from speechfeat.store_shards import Row
from speechfeat.store_writer import StoreWriter
from speechfeat.units import FrameGrid, Stage
from tests.frame_stores import DIM, LAYERS, QUICK, SPEAKERS, WORDS, words_of, write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_store(tmp_path_factory.mktemp("train") / "s")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Utterances that nothing was trained on."""
    return write_store(tmp_path_factory.mktemp("test") / "s", seed=5, per=2)


@pytest.fixture(scope="module")
def heads(store: Store) -> dict[str, FrameHead]:
    """One of each kind, and one that compares by cosine."""
    made = {kind: sf.train_frame_head(store, "word", kind, groups="speaker", **QUICK) for kind in FRAME_KINDS}
    return {**made, "angular": sf.train_angular_head(store, "speaker", "mlp-frames", **QUICK)}


@pytest.mark.parametrize("kind", FRAME_KINDS)
def test_every_kind_separates_a_made_task(heads: dict[str, FrameHead], others: Store, kind: str) -> None:
    head = heads[kind]
    answers = head.predict(others)
    assert average_recall(words_of(others), answers["label"]) > 0.9
    assert answers["id"].tolist() == others.ids and head.classes == list(WORDS)
    np.testing.assert_allclose(answers.filter(like="p_").sum(axis=1), 1, atol=1e-5)
    assert head.record.task == "word" and head.record.scores["validation"]["metric"] == "uar"
    assert head.record.training["utterances"] == len(WORDS) * len(SPEAKERS) * 4


def test_the_mix_finds_the_layer_that_tells(heads: dict[str, FrameHead], store: Store, others: Store) -> None:
    for kind in ("linear", "attentive"):
        assert heads[kind].mix.keys() == set(LAYERS) and sum(heads[kind].mix.values()) == pytest.approx(1)
        assert heads[kind].mix[2] > 0.5
    speaker = sf.train_frame_head(store, "speaker", "linear", **QUICK)
    assert speaker.mix[3] > 0.5
    noise = sf.train_frame_head(store, "word", "linear", layers=0, groups="speaker", **QUICK)
    single = sf.train_frame_head(store, "word", "linear", layers=[2], groups="speaker", **QUICK)
    assert noise.mix == {0: 1.0} and single.mix == {2: 1.0}
    scores = [head.record.scores["validation"]["score"] for head in (noise, single, heads["linear"])]
    assert scores[0] < 0.7 < scores[1] <= scores[2]


def test_a_saved_head_gives_the_same_numbers_in_a_new_process(
    heads: dict[str, FrameHead], others: Store, tmp_path: Path
) -> None:
    path = others._paths[0]
    for name, head in heads.items():
        head.save(tmp_path / name)
    code = f"""
import json, sys
from speechfeat.heads.base import read_head
from speechfeat.heads.framed import FrameHead
from speechfeat.store import Store
store, found = Store({str(path)!r}), {{}}
for name in {list(heads)!r}:
    head = FrameHead.from_arrays(*read_head({str(tmp_path)!r} + "/" + name))
    embeddings = head.embed(store, store.ids[:3])
    found[name] = [head.probabilities(store).tolist(), embeddings.tolist(), list(head.mix.items())]
assert "pytorch_metric_learning" not in sys.modules
print(json.dumps(found))
"""
    found = json.loads(subprocess.check_output([sys.executable, "-c", code], text=True))
    assert found.keys() == heads.keys()
    for name, head in heads.items():
        shares, embeddings, mix = found[name]
        np.testing.assert_array_equal(np.float32(shares), head.probabilities(others), err_msg=name)
        np.testing.assert_array_equal(np.float32(embeddings), head.embed(others, others.ids[:3]), err_msg=name)
        assert {layer: share for layer, share in mix} == head.mix  # noqa: C416 - JSON has lists for pairs


@pytest.mark.parametrize("kind", FRAME_KINDS)
def test_answers_are_the_same_alone_and_in_a_batch(heads: dict[str, FrameHead], others: Store, kind: str) -> None:
    head, chosen = heads[kind], others.ids[5::-1]
    together = head.probabilities(others, chosen)
    alone = [head.answer(others.frames(key).values[None])[0] for key in chosen]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
    np.testing.assert_allclose(head.probabilities(others)[5::-1], together, rtol=0, atol=1e-5)


def test_class_weights(store: Store) -> None:
    classes = np.array([0, 0, 0, 1, 2, 2])
    assert class_weights(None, ("a", "b", "c"), classes) is None
    balanced = class_weights("balanced", ("a", "b", "c"), classes)
    np.testing.assert_allclose(np.bincount(classes, weights=balanced[classes]), [2, 2, 2])
    given = class_weights({"c": 8, "a": 2, "b": 6}, ("a", "b", "c"), classes)
    np.testing.assert_allclose(given, np.array([2, 6, 8]) * 6 / 28)
    # Of a layer that is noise, a head learns how much each class counts.
    options = {"layers": 0, "epochs": 3, "validation_share": 0, "learning_rate": 1e-2}
    for name in WORDS:
        weights = {other: 99.0 if other == name else 1.0 for other in WORDS}
        head = sf.train_frame_head(store, "word", "linear", class_weight=weights, **options)
        assert head.predict(store)["label"].eq(name).all()
    with pytest.raises(sf.ParameterError, match="for each class: go, né, on, stop"):
        sf.train_frame_head(store, "word", "linear", class_weight={"go": 1.0})


def test_angular_embeddings_tell_speakers_never_trained_on(tmp_path: Path) -> None:
    voices = [f"voice {number:02d}" for number in range(24)]
    means = np.random.default_rng(2).standard_normal((24, DIM))
    encoder = {"family": "T", "definition": {}, "weights": "w", "num_layers": 0, "dim": 2 * DIM}
    config = {
        "encoder": {**encoder, "layers": [0], "stacked": False},
        "grid": FrameGrid(16000, (Stage(400, 320),)).describe(),
        "pool": "mean",
    }
    rng = np.random.default_rng(0)
    with StoreWriter(
        tmp_path / "s", config, {"model": "t"}, label_names=["speaker"], embedding_shape=(2 * DIM,)
    ) as writer:
        for number in range(24 * 8):
            # The voice, and beside it a louder something of the utterance, which it must learn to leave out.
            something = 4 * rng.standard_normal(DIM)
            values = np.concatenate([means[number % 24], something]) + 0.3 * rng.standard_normal((5, 2 * DIM))
            key = f"{number:03d}"
            row = Row(key, key, 0, 1, 5, 16000, labels={"speaker": voices[number % 24]})
            writer.add(row, values.astype(np.float32), values.mean(axis=0))
    store = Store(tmp_path / "s")
    speakers = np.array(store.table()["speaker"])
    heard = np.isin(speakers, voices[:18])
    trained_on = [key for key, inside in zip(store.ids, heard, strict=True) if inside]
    strangers = [key for key, inside in zip(store.ids, heard, strict=True) if not inside]

    def rate(vectors: np.ndarray) -> float:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        one, other = np.triu_indices(len(unit), k=1)
        names = speakers[~heard]
        return sf.equal_error_rate((unit @ unit.T)[one, other], names[one] == names[other])

    before = rate(store.embeddings(strangers)[1])
    options = {"ids": trained_on, "epochs": 15, "learning_rate": 1e-2, "embedding_dim": 8}
    for kind, embeddings in (("linear", False), ("linear", True), ("stats", False)):
        head = sf.train_angular_head(store, "speaker", kind, embeddings=embeddings, **options)
        vectors = head.embed(store, strangers)
        assert vectors.shape == (len(strangers), 8)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert rate(vectors) < 0.5 * before
        # Of the 18 speakers given, three were kept apart: those are no classes.
        assert len(head.classes) == 15 and head.record.scores["validation"]["metric"] == "eer"
        assert head.record.binding.pool == ("mean" if embeddings else "none")


def test_crops_in_training_only(store: Store) -> None:
    binding = Binding.of(store, frames=True)
    reader = FrameReader(store, binding, store.ids)
    batches = FrameBatches(reader, range(len(store)), crop=4)
    starts = set()
    for batch in batches.epoch(0):
        assert batch.frames.shape[2] <= 4
        for frames, length, row in zip(batch.frames, batch.lengths.tolist(), batch.rows, strict=True):
            whole = store.frames(store.ids[row]).values
            assert length == min(4, whole.shape[1])
            (start,) = (
                at for at in range(whole.shape[1]) if np.array_equal(frames[:, :length], whole[:, at : at + length])
            )
            starts.add(start)
    assert len(starts) > 3
    assert sorted(np.concatenate([batch.lengths for batch in batches.once()])) == sorted(reader.lengths)


def test_batches_cover_every_utterance_once_an_epoch(store: Store) -> None:
    reader = FrameReader(store, Binding.of(store, [3, 0], frames=True), store.ids)
    rows = np.arange(0, len(store), 2)
    batches = FrameBatches(reader, rows, batch_frames=40, batch_size=5, seed=1)

    def order(batches: FrameBatches, epoch: int) -> list[list[int]]:
        return [batch.rows.tolist() for batch in batches.epoch(epoch)]

    for epoch in range(3):
        for batch in batches.epoch(epoch):
            assert len(batch.rows) <= 5 and batch.frames.shape[0] * batch.frames.shape[2] <= 40
            assert batch.frames.shape[2] == max(batch.lengths)
            for frames, length, row in zip(batch.frames, batch.lengths.tolist(), batch.rows, strict=True):
                expected = store.frames(store.ids[row]).values[[2, 0]]
                np.testing.assert_array_equal(frames[:, :length], expected)
                assert not frames[:, length:].any()
        assert sorted(np.concatenate(order(batches, epoch))) == rows.tolist()
    assert order(batches, 0) == order(FrameBatches(reader, rows, batch_frames=40, batch_size=5, seed=1), 0)
    assert order(batches, 0) != order(batches, 1)
    assert {frozenset(batch) for batch in order(batches, 0)} != {frozenset(batch) for batch in order(batches, 1)}
    assert sorted(np.concatenate([batch.rows for batch in batches.once()])) == rows.tolist()


def test_batches_of_large_frames_are_small(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = FrameReader(store, Binding.of(store, frames=True), store.ids)
    assert max(len(batch.rows) for batch in FrameBatches(reader, range(len(store))).once()) == 32
    monkeypatch.setattr("speechfeat.heads.batches.MOST_VALUES", 30 * len(LAYERS) * DIM)
    for batches in (FrameBatches(reader, range(len(store))).once(), FrameBatches(reader, range(len(store))).epoch(0)):
        assert max(batch.frames.numel() for batch in batches) <= 30 * len(LAYERS) * DIM


def test_what_is_kept_in_memory_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    binding, ids = Binding.of(store, [2], frames=True), store.ids[:10]
    sizes = [DIM * 4 * store.frames(key).num_frames for key in ids]  # of one layer of three
    reader = FrameReader(store, binding, ids, cache_bytes=sum(sizes[:4]))
    first = [reader.read(row) for row in range(10)]
    asked: list[str] = []
    frames = Store.frames
    monkeypatch.setattr(Store, "frames", lambda self, key: asked.append(key) or frames(self, key))
    for row, values in enumerate(first):
        np.testing.assert_array_equal(reader.read(row), values)
    kept = sum(size for key, size in zip(ids, sizes, strict=True) if key not in asked)
    assert asked and sum(sizes[:4]) - max(sizes) < kept <= sum(sizes[:4])


def test_embeddings_are_utterances_of_one_frame(store: Store) -> None:
    binding = Binding.of(store, [0, 3])
    reader = EmbeddingReader(store, binding, store.ids)
    np.testing.assert_array_equal(reader.read(4), store.embeddings()[1][4, [0, 2]][:, None])


BAD = [
    ({"kind": "xvectr"}, "kind='xvectr' is no head on frames"),
    ({"labels": ["a"] * 96}, "all of 96 labels are a"),
    ({"labels": ["a", None] * 48}, "48 of 96 utterances have no label"),
    ({"groups": ["a", None] * 48}, "48 of 96 utterances have no group"),
    ({"ids": ["0-000", "0-000"]}, "1 of 2 ids repeat"),
    ({"layers": 1}, "takes layer 1"),
    ({"layers": 9}, "layer 9 is outside"),
    ({"epoch": 3}, "'epoch' is no option"),
    ({"epochs": 0}, "epochs=0 must be at least 1"),
    ({"dropout": 1.0}, "dropout=1.0"),
    ({"learning_rate": 0.0}, "learning_rate=0.0"),
    ({"validation_share": 0.9}, "validation_share=0.9"),
    ({"hidden": (0,)}, r"hidden=\(0,\)"),
    ({"normalize": "batch"}, "normalize='batch'"),
    ({"class_weight": "even"}, "class_weight='even'"),
    ({"crop_seconds": 0.0}, "crop_seconds=0.0"),
    ({"mix_starts": -1}, "mix_starts=-1 must be at least 0"),
    ({"device": "cuda:99"}, "device='cuda:99'"),
    ({"rates": (1.0,), "validation_share": 0.0}, "compared on a validation part"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_calls_get_one_sentence(store: Store, arguments: dict, message: str) -> None:
    with pytest.raises(sf.ParameterError, match=message):
        sf.train_frame_head(store, **{"labels": "word", **arguments})


def test_bad_stores_get_one_sentence(store: Store, heads: dict[str, FrameHead], tmp_path: Path) -> None:
    bare = write_store(tmp_path / "bare", frames=False)
    with pytest.raises(sf.ParameterError, match="keeps no frames; extract without --no-frames"):
        sf.train_frame_head(bare, "word")
    with pytest.raises(sf.StoreError, match="keeps no frames"):
        heads["linear"].probabilities(bare)
    with pytest.raises(sf.ParameterError, match="takes features of 'tiny'"):
        heads["linear"].probabilities(write_store(tmp_path / "other", weights="cd"))
    with pytest.raises(sf.StoreError, match="no utterance 'nobody'"):
        sf.train_frame_head(store, ["a"], ids=["nobody"])
    with pytest.raises(sf.StoreError, match="no utterance 'nobody'"):
        heads["linear"].embed(store, ["nobody"])
    assert heads["linear"].probabilities(store, []).shape == (0, 3)


def test_bad_angular_calls_get_one_sentence(store: Store) -> None:
    for arguments, message in (
        ({"margin": 11.5}, "radians"),
        ({"class_weight": "balanced"}, "class_weight='balanced'"),
        ({"kind": "lstm", "embeddings": True}, "for embeddings use linear or mlp-frames"),
        ({"speakers": "word"}, "3 speakers, 3 of them"),
    ):
        with pytest.raises(sf.ParameterError, match=message):
            sf.train_angular_head(store, **{"speakers": "speaker", **arguments})


def test_a_checkpoint_replaces_nothing_unasked(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(sf.ParameterError, match="is there already"):
        sf.train_frame_head(store, "word", checkpoint=tmp_path / "mine")
    path = tmp_path / "head"
    for seed in (0, 1):
        sf.train_frame_head(store, "word", "linear", checkpoint=path, overwrite=True, epochs=1, seed=seed)
    assert read_head(path)[0].options["config"]["seed"] == 1


def test_arrays_of_another_head_are_refused(heads: dict[str, FrameHead]) -> None:
    with pytest.raises(sf.ModelError, match="'cnn' head are not of its record"):
        FrameHead.from_arrays(heads["cnn"].record, heads["gru"].arrays())


def test_one_layer_store(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", layers=(2,))
    head = sf.train_frame_head(store, "word", "linear", groups="speaker", **QUICK)
    assert head.mix == {2: 1.0} and head.record.scores["validation"]["score"] > 0.9
    # And serves on a store that has more of them.
    more = write_store(tmp_path / "more", seed=9)
    assert average_recall(words_of(more), head.predict(more)["label"]) > 0.9


def test_hidden_layers_and_norms_are_kept(store: Store) -> None:
    head = sf.train_frame_head(store, "word", "stats", hidden=[5, 4], normalize="layer", epochs=1)
    again = FrameHead.from_arrays(head.record, head.arrays())
    np.testing.assert_array_equal(again.probabilities(store), head.probabilities(store))
    assert sum(name.endswith("weight") for name in head.arrays()) == 4
