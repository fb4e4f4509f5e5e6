"""A store holds what was added and opens with common tools alone."""

import os
import pickle

import numpy as np
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from speechfeat import store_shards
from speechfeat.errors import AudioError, ParameterError, StoreError
from speechfeat.store import Store
from speechfeat.store_config import write_behind
from speechfeat.store_shards import Row
from speechfeat.store_writer import StoreWriter
from tests.made_stores import CONFIG, GRID, ODD_IDS, features, files, fill, open_writer, row


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("layers", [0, 3])
def test_reads_back_what_was_added(tmp_path, dtype, layers):
    shape = (layers, 4) if layers else (4,)
    with open_writer(tmp_path / "s", store_dtype=dtype, embedding_shape=shape) as writer:
        for number, key in enumerate(ODD_IDS):
            writer.add(row(key, flags=("short",), size=number), *features(key, layers=layers))
            if number % 3 == 2:
                writer.commit()
    store = Store(tmp_path / "s")
    assert store.ids == list(store) == sorted(ODD_IDS)
    assert len(store) == len(ODD_IDS) and "plain" in store and "nobody" not in store
    ids, embeddings = store.embeddings()
    for index, key in enumerate(ids):
        frames, embedding = features(key, layers=layers)
        found = store.frames(key)
        assert found.values.dtype == np.float32
        np.testing.assert_array_equal(found.values, frames.astype(dtype).astype(np.float32))
        np.testing.assert_array_equal(embeddings[index], embedding)
        np.testing.assert_allclose(found.times, GRID.times(7, start=0.5))
        assert found.flags == ("short",) and found.id == key
        found.values[:] = 0  # the caller's own copy
    np.testing.assert_array_equal(store.frames(ids[0]).values, features(ids[0], layers=layers)[0].astype(dtype))
    chosen = [ids[5], ids[0], ids[5]]
    assert store.embeddings(chosen)[0] == chosen
    np.testing.assert_array_equal(store.embeddings(chosen)[1], embeddings[[5, 0, 5]])
    table = store.table()
    assert table["id"].tolist() == ids and "embedding" not in table
    assert table["size"].tolist() == [ODD_IDS.index(key) for key in ids]
    assert table["flags"].iloc[0] == ("short",)


def test_opens_without_speechfeat(tmp_path):
    with open_writer(tmp_path / "s", label_names=["speaker", "path"]) as writer:
        for key in ODD_IDS:
            labels = {"speaker": "ann", "path": "p"} if key == "plain" else {}
            writer.add(row(key, labels=labels), *features(key))
            writer.commit()
        writer.fail("bad", "/data/bad", "empty")
    parquets = sorted((tmp_path / "s/shards").glob("*.parquet"))
    assert len(parquets) == len(ODD_IDS) + 1
    frame = pd.concat(map(pd.read_parquet, parquets)).set_index("id")
    assert list(frame.index) == ODD_IDS
    assert frame.loc["plain", ["speaker", "path", "path_label"]].tolist() == ["ann", "/data/plain", "p"]
    np.testing.assert_array_equal(np.stack(frame["embedding"])[1], features(ODD_IDS[1])[1])
    assert pyarrow.dataset.dataset(parquets).to_table().num_rows == len(ODD_IDS)
    assert len({str(pq.read_schema(file).remove_metadata()) for file in parquets}) == 1
    found = {}
    for file in (tmp_path / "s/shards").glob("*.safetensors"):
        with safe_open(file, "numpy") as tensors:
            found |= {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118
    assert set(found) == set(ODD_IDS)
    np.testing.assert_array_equal(found["line\nbreak"], features("line\nbreak")[0].astype(np.float16))


@pytest.mark.parametrize("layers", [0, 2])
def test_pieces_in_any_order_equal_one_call(tmp_path, layers):
    frames, embedding = features("long", num=50, layers=layers)
    other, other_embedding = features("other", layers=layers)
    options = {"embedding_shape": embedding.shape}
    with open_writer(tmp_path / "whole", **options) as writer:
        writer.add(row("long", 50), frames, embedding)
    with open_writer(tmp_path / "pieces", **options) as writer:
        writer.begin("long", frames.shape)
        writer.begin("dropped", frames.shape)
        for at in (30, 0, 10):
            writer.write("long", frames[..., at : at + (20 if at else 10), :], at)
            writer.add(row(f"other{at}"), other, other_embedding)
            writer.commit()  # a commit passes the unfinished ones by
        writer.finish(row("long", 50), embedding)
    whole, pieces = Store(tmp_path / "whole"), Store(tmp_path / "pieces")
    np.testing.assert_array_equal(whole.frames("long").values, pieces.frames("long").values)
    assert len(pieces) == 4 and "dropped" not in pieces
    assert not [name for name in files(tmp_path / "pieces") if "tmp" in name]


def test_a_full_header_starts_the_next_shard(tmp_path):
    keys = [f"{number:04d}" + "\n" * 1500 for number in range(200)]
    store = fill(tmp_path / "s", keys)
    assert len(files(tmp_path / "s")) == 2 * 3
    assert store.ids == keys
    np.testing.assert_array_equal(store.frames(keys[99]).values, features(keys[99])[0].astype(np.float16))


def test_the_disk_is_sent_whole_utterances_once_and_in_order(tmp_path, monkeypatch):
    sent = []

    def record(file, start, num_bytes):
        assert file.seek(0, os.SEEK_END) >= start + num_bytes  # nothing is sent that is not written yet
        sent.append((start, num_bytes))
        write_behind(file, start, num_bytes)

    monkeypatch.setattr(store_shards, "write_behind", record)
    num, dim = 1000, 300
    frames = np.random.default_rng(0).standard_normal((num, dim)).astype(np.float32)
    with open_writer(tmp_path / "s", store_dtype="float32") as writer:
        for key in "abcdefghijk":
            writer.add(row(key, num), frames, frames[0, :4])
    ends = [start + num_bytes for start, num_bytes in sent]
    assert [start for start, _ in sent] == [store_shards.DATA_START, *ends[:-1]]
    assert all(store_shards.BLOCK_BYTES <= num_bytes < 2 * store_shards.BLOCK_BYTES for _, num_bytes in sent)
    assert {num_bytes % frames.nbytes for _, num_bytes in sent} == {0}
    np.testing.assert_array_equal(Store(tmp_path / "s").frames("k").values, frames)


def test_values_beyond_float16_are_clipped_and_flagged(tmp_path):
    frames, embedding = features("big")
    frames[2, 1], frames[3, 1] = 1e6, -1e6
    with open_writer(tmp_path / "s") as writer:
        writer.add(row("big"), frames, embedding)
        writer.add(row("fine"), *features("fine"))
    store = Store(tmp_path / "s")
    assert store.frames("big").flags == ("overflow",) and store.frames("fine").flags == ()
    assert store.frames("big").values[2:4, 1].tolist() == [65504, -65504]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_leave_no_trace(tmp_path, bad, dtype):
    frames, embedding = features("a", num=9)
    broken = frames.copy()
    broken[8, 3] = bad
    with open_writer(tmp_path / "s", store_dtype=dtype) as writer:
        with pytest.raises(AudioError, match="NaN or infinite"):
            writer.add(row("a", 9), broken, embedding)
        with pytest.raises(AudioError, match="NaN or infinite"):
            writer.add(row("a", 9), frames, embedding * bad)
        writer.begin("b", broken.shape)
        writer.write("b", broken[:4], 0)
        with pytest.raises(AudioError, match="NaN or infinite"):
            writer.write("b", broken[4:], 4)
        with pytest.raises(ParameterError, match="not begun"):
            writer.write("b", broken[:4], 0)
        assert writer.num_pending == writer.pending_bytes == 0
        writer.fail("b", "/data/b", "NaN")
        writer.commit()
        assert files(tmp_path / "s")[0] == "00000.parquet"
        writer.add(row("c"), *features("c"))
    assert Store(tmp_path / "s").ids == ["c"]
    with safe_open(tmp_path / "s/shards/00001.safetensors", "numpy") as tensors:
        assert list(tensors.keys()) == ["c"]


def test_stores_without_frames_or_embeddings(tmp_path):
    with open_writer(tmp_path / "e", frames=False) as writer:
        writer.add(row("a"), None, features("a")[1])
        with pytest.raises(ParameterError, match="frames=False"):
            writer.add(row("b"), *features("b"))
        with pytest.raises(ParameterError, match="frames=False"):
            writer.begin("b", (7, 4))
    assert files(tmp_path / "e") == ["00000.parquet"]
    with pytest.raises(StoreError, match="keeps no frames"):
        Store(tmp_path / "e").frames("a")
    with open_writer(tmp_path / "f", embedding_shape=None) as writer:
        writer.add(row("a"), features("a")[0])
        with pytest.raises(ParameterError, match="embedding_shape=None"):
            writer.add(row("b"), *features("b"))
    assert Store(tmp_path / "f").frames("a").num_frames == 7
    with pytest.raises(StoreError, match="has no embeddings"):
        Store(tmp_path / "f").embeddings()


def test_an_empty_store_opens(tmp_path):
    store = fill(tmp_path / "s", [])
    assert len(store) == 0 and store.errors() == [] and files(tmp_path / "s") == []
    assert store.embeddings()[1].shape == (0, 4)
    assert len(store.table()) == 0 and "path" in store.table()
    with open_writer(tmp_path / "s") as writer:
        writer.add(Row("a", "p", 0, 0, 0, 16000), np.zeros((0, 4), np.float32), np.zeros(4))
        writer.add(row("b"), *features("b"))
    assert Store(tmp_path / "s").frames("a").values.shape == (0, 4)


def test_several_stores_open_as_one(tmp_path):
    fill(tmp_path / "all/1", ["a", "d"])
    fill(tmp_path / "all/2", ["c", "b"])
    fill(tmp_path / "other", ["e"], config={**CONFIG, "pool": "max"})
    for store in (Store([tmp_path / "all/1", tmp_path / "all/2"]), Store(tmp_path / "all")):
        assert store.ids == ["a", "b", "c", "d"]
        np.testing.assert_array_equal(store.embeddings()[1][2], features("c")[1])
        np.testing.assert_array_equal(store.frames("d").values, features("d")[0].astype(np.float16))
    with pytest.raises(StoreError, match='pool: absent -> "max"'):
        Store([tmp_path / "all/1", tmp_path / "other"])
    with pytest.raises(StoreError, match=r"'a' is in .*1/shards/00000.parquet"):
        Store([tmp_path / "all", tmp_path / "all/1"])
    assert pickle.loads(pickle.dumps(store)).frames("a").num_frames == 7


@pytest.mark.parametrize("asked", ["", "a", "fbd", "eca", "ace", "bb", "aceace", "fedcba", "ccceb"])
def test_embeddings_come_as_they_are_asked_for(tmp_path, asked):
    with open_writer(tmp_path / "s") as writer:
        for number, key in enumerate("caefdb"):  # shards "cae" and "fdb": neither sorted nor one after the other
            writer.add(row(key), *features(key))
            if number == 2:
                writer.commit()
    ids, embeddings = Store(tmp_path / "s").embeddings(list(asked))
    assert ids == list(asked) and embeddings.shape == (len(asked), 4)
    np.testing.assert_array_equal(embeddings, [features(key)[1] for key in asked] or np.empty((0, 4)))


def test_ids_are_sorted_as_python_sorts(tmp_path):
    keys = ["z", "Z", "é", "e\u0301", "\uffee", "\U0001f600", "日本", "a" * 300, "a"]
    assert fill(tmp_path / "s", keys).ids == sorted(keys)


def test_an_unknown_id_is_answered_with_a_near_one(tmp_path):
    store = fill(tmp_path / "s", ["speaker1/a.wav", "speaker2/a.wav"])
    for asked, meant in [("speker1/a.wav", "speaker1/a.wav"), ("speaker2/a", "speaker2/a.wav")]:
        with pytest.raises(StoreError, match=f"no utterance '{asked}'.*did you mean '{meant}'"):
            store.frames(asked)


def test_arguments_that_cannot_be_stored_are_refused(tmp_path):
    frames, embedding = features("a")
    with open_writer(tmp_path / "s", label_names=["speaker"]) as writer:
        for key in ("", "__metadata__", "\udcff", "x" * 5000):
            with pytest.raises(ParameterError, match="utterance id"):
                writer.add(row(key), frames, embedding)
        with pytest.raises(ParameterError, match="num_frames=6"):
            writer.add(row("a", 6), frames, embedding)
        with pytest.raises(ParameterError, match=r"must be \[T, D\]"):
            writer.add(row("a"), frames[0], embedding)
        with pytest.raises(ParameterError, match=r"shape \[3\]"):
            writer.add(row("a"), frames, embedding[:3])
        with pytest.raises(ParameterError, match="labels"):
            writer.add(row("a", labels={"gender": "f"}), frames, embedding)
        writer.begin("a", (7, 4))
        for piece, at in [(frames, 1), (frames, -1), (frames[:, :3], 0), (frames[None], 0), (frames[0], 0)]:
            with pytest.raises(ParameterError, match="do not fit"):
                writer.write("a", piece, at)
        writer.write("a", frames[:4], 0)
        with pytest.raises(ParameterError, match="4 frames of 7"):
            writer.finish(row("a"), embedding)
    for options in ({"prefix": "a/"}, {"prefix": "12"}, {"store_dtype": "int8"}, {"prefix": "1-", "overwrite": True}):
        with pytest.raises(ParameterError):
            open_writer(tmp_path / "s", **options)
    for config in ({"x": {1, 2}}, {"x": float("nan")}, {"store": 1}):
        with pytest.raises(ParameterError, match="configuration"):
            StoreWriter(tmp_path / "s", config)
    assert len(Store(tmp_path / "s")) == 0
