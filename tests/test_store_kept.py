"""What a store keeps of runs that resume, fail, are killed or meet another."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from speechfeat.errors import StoreError
from speechfeat.store import Store
from speechfeat.store_config import free_disk_bytes
from speechfeat.store_shards import Row, printable
from tests.made_stores import CONFIG, GRID, features, files, fill, open_writer, row


def test_errors_are_those_not_done_later(tmp_path):
    with open_writer(tmp_path / "s") as writer:
        writer.fail("b", "/data/\udcff.wav", "empty")
        writer.fail("a", "/data/a", "first reason")
        writer.commit()
        assert files(tmp_path / "s") == ["00000.parquet"]
        writer.fail("a", "/data/a", "second\nreason")
        writer.fail("c", "/data/c", "tried in the same shard")
        writer.add(row("c"), *features("c"))
    lines = (tmp_path / "s/errors.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == Store(tmp_path / "s").errors()
    assert [tuple(json.loads(line).values()) for line in lines] == [
        ("a", "/data/a", "second\nreason"),
        ("b", "/data/\\udcff.wav", "empty"),
    ]
    (tmp_path / "s/errors.jsonl").unlink()
    with open_writer(tmp_path / "s") as writer:
        assert (tmp_path / "s/errors.jsonl").read_text().splitlines() == lines
        writer.fail("b", "/data/\udcff.wav", "empty")
        assert writer.num_pending == 0  # said before
        writer.add(row("b"), *features("b"))
        writer.commit()
        assert list(writer.failed) == ["a"] and set(writer.done) == {"b", "c"}
    assert [error["id"] for error in Store(tmp_path / "s").errors()] == ["a"]


def test_resuming_knows_what_is_done(tmp_path):
    path = os.fsdecode(b"/data/\xff.wav")
    with open_writer(tmp_path / "s") as writer:
        writer.add(Row("a", path, 0, 1, 7, 16000, size=123), *features("a"))
    with open_writer(tmp_path / "s") as writer:
        assert writer.done["a"][:2] == (printable(path), 123) == ("/data/\\udcff.wav", 123)
        with pytest.raises(StoreError, match="'a' is in the store"):
            writer.add(row("a"), *features("a"))
        with pytest.raises(StoreError, match="'a' is in the store"):
            writer.fail("a", path, "why")
    assert files(tmp_path / "s") == ["00000.parquet", "00000.safetensors"]


def test_another_configuration_is_refused_with_the_fields(tmp_path):
    fill(tmp_path / "s", ["a"])
    other = {**CONFIG, "model": {"name": "tiny", "hash": "cd"}, "pool": "mean"}
    with pytest.raises(StoreError) as caught:
        open_writer(tmp_path / "s", other, store_dtype="float32")
    for words in ('model.hash: "ab" -> "cd"', "pool: absent", 'store.dtype: "float16" -> "float32"', "--overwrite"):
        assert words in str(caught.value)
    assert "tiny" not in str(caught.value) and "grid" not in str(caught.value)
    reordered = dict(reversed(CONFIG.items())) | {"layers": (2,)}
    with open_writer(tmp_path / "s", reordered, info={"date": "today"}) as writer:
        assert "a" in writer.done


def test_overwrite_removes_the_store_and_nothing_else(tmp_path):
    fill(tmp_path / "s", ["a", "b"])
    (tmp_path / "s/shards/notes.parquet.bak").write_text("mine")
    (tmp_path / "s/notes.txt").write_text("mine")
    with open_writer(tmp_path / "s", {"grid": GRID.describe()}, overwrite=True) as writer:
        assert not writer.done
        writer.add(row("c"), *features("c"))
    assert Store(tmp_path / "s").ids == ["c"]
    assert files(tmp_path / "s")[-1] == "notes.parquet.bak" and (tmp_path / "s/notes.txt").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_store_is_left_alone(tmp_path, overwrite):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("mine")
    (tmp_path / "file").write_text("mine")
    fill(tmp_path / "damaged", ["a"])
    (tmp_path / "damaged/store.json").write_text('{"format": 1,')
    fill(tmp_path / "edited", ["a"])
    content = (tmp_path / "edited/store.json").read_text()
    (tmp_path / "edited/store.json").write_text(content.replace("tiny", "huge"))
    for name, words in [
        ("full", "thesis.tex"),
        ("file", "is a file"),
        ("file/below", "cannot make"),
        ("damaged", "damaged"),
        ("edited", "edited"),
    ]:
        with pytest.raises(StoreError, match=words):
            open_writer(tmp_path / name, overwrite=overwrite)
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    for name, words in [("full", "no store.json"), ("nowhere", "no such directory"), ("edited", "edited")]:
        with pytest.raises(StoreError, match=words):
            Store(tmp_path / name)
    assert (tmp_path / "damaged/shards/00000.parquet").exists()


def test_a_second_writer_is_refused_at_once(tmp_path):
    with open_writer(tmp_path / "s") as writer:
        started = time.monotonic()
        with pytest.raises(StoreError, match="being written by another run"):
            open_writer(tmp_path / "s")
        assert time.monotonic() - started < 1
        writer.add(row("a"), *features("a"))
    assert Store(tmp_path / "s").ids == ["a"]
    with open_writer(tmp_path / "s") as writer:
        assert writer.done


def test_writers_with_prefixes_share_a_directory(tmp_path):
    first, second = (open_writer(tmp_path / "s", prefix=f"{number}of2-") for number in (1, 2))
    with pytest.raises(StoreError, match="another run"):
        open_writer(tmp_path / "s", prefix="1of2-")
    with pytest.raises(StoreError, match="another run"):
        open_writer(tmp_path / "s", overwrite=True)
    for number in range(2):
        for name, writer in [("x", first), ("y", second)]:
            writer.add(row(f"{name}{number}"), *features(f"{name}{number}"))
            writer.fail(f"{name} bad {number}", "p", "r")
            writer.commit()
    second.add(row("y last"), *features("y last"))
    with pytest.raises(StoreError, match="'y1' is in the store"):
        first.commit() or second.add(row("y1"), *features("y1"))
    second.begin("y part", (7, 4))
    first.abort()
    second.close()
    assert [name for name in files(tmp_path / "s") if "safe" in name] == [
        "1of2-00000.safetensors",
        "1of2-00001.safetensors",
        "2of2-00000.safetensors",
        "2of2-00001.safetensors",
        "2of2-00002.safetensors",
    ]
    store = Store(tmp_path / "s")
    assert store.ids == ["x0", "x1", "y last", "y0", "y1"]
    assert len((tmp_path / "s/errors.jsonl").read_text().splitlines()) == len(store.errors()) == 4
    with open_writer(tmp_path / "s", prefix="1of3-") as other:
        assert len(other.done) == 5


def test_damage_is_named(tmp_path):
    store = fill(tmp_path / "s", ["a", "b"])
    tensors, rows = (tmp_path / "s/shards" / f"00000.{ending}" for ending in ("safetensors", "parquet"))
    content = tensors.read_bytes()
    store.frames("a")
    tensors.write_bytes(content[:-10])
    with pytest.raises(StoreError, match=r"00000\.safetensors is damaged"):
        store.frames("a")
    tensors.unlink()
    with pytest.raises(StoreError, match=r"00000\.safetensors is damaged or missing"):
        Store(tmp_path / "s").frames("a")
    with pytest.raises(StoreError, match=r"lost 00000\.safetensors"):
        open_writer(tmp_path / "s")
    rows.write_bytes(rows.read_bytes()[:-10])
    for opener in (Store, open_writer):
        with pytest.raises(StoreError, match=r"00000\.parquet is damaged"):
            opener(tmp_path / "s")
    fill(tmp_path / "other", ["c"], config={**CONFIG, "pool": "max"})
    rows.write_bytes((tmp_path / "other/shards/00000.parquet").read_bytes())
    with pytest.raises(StoreError, match="another configuration"):
        Store(tmp_path / "s")


def test_a_full_disk_closes_the_writer_and_keeps_what_was_committed(tmp_path, monkeypatch):
    writer = open_writer(tmp_path / "s")
    writer.add(row("a"), *features("a"))
    writer.commit()
    writer.add(row("b"), *features("b"))

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("speechfeat.store_writer.publish", refuse)
        with pytest.raises(StoreError, match="No space left on device"):
            writer.commit()
    with pytest.raises(StoreError, match="closed"):
        writer.add(row("c"), *features("c"))
    assert fill(tmp_path / "s", ["b"]).ids == ["a", "b"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_added_outlives_an_error_around_it(tmp_path, error):
    with pytest.raises(error), open_writer(tmp_path / "s") as writer:
        writer.add(row("a"), *features("a"))
        writer.begin("b", (7, 4))
        raise error
    assert Store(tmp_path / "s").ids == ["a"]


WRITE_FOREVER = """
    import sys
    sys.path.insert(0, {tests!r})
    from test_store import features, open_writer, row
    with open_writer({path!r}) as writer:
        number = len(writer.done) + len(writer.failed)
        while True:
            key = f"{{number:05d}}"
            frames, embedding = features(key, num=60)
            if number % 5 == 4:
                writer.fail(key, key, "every fifth")
            elif number % 5 == 3:
                writer.begin(key, frames.shape)
                writer.write(key, frames[20:], 20)
                writer.write(key, frames[:20], 0)
                writer.finish(row(key, 60), embedding)
            else:
                writer.add(row(key, 60), frames, embedding)
            if number % 7 == 0:
                writer.commit()
                print("committed", flush=True)
            number += 1
"""


def test_killed_at_any_moment_only_whole_shards_stay(tmp_path):
    path, chance = tmp_path / "s", random.Random(3)
    script = textwrap.dedent(WRITE_FOREVER).format(tests=str(Path(__file__).parent), path=str(path))
    seen = 0
    for _ in range(5):
        run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert run.stdout.readline() == b"committed\n"
        time.sleep(chance.uniform(0.0, 0.15))
        run.send_signal(signal.SIGKILL)
        run.communicate()
        Store(path)  # opens with the leftovers in place
        with open_writer(path) as writer:
            assert not [name for name in files(path) if "tmp" in name]
            assert {Path(name).suffix for name in files(path)} <= {".parquet", ".safetensors"}
            keys = sorted([*writer.done, *writer.failed])
        assert keys == [f"{number:05d}" for number in range(len(keys))] and len(keys) >= seen
        seen = len(keys)
    store = Store(path)
    ids, embeddings = store.embeddings()
    assert seen >= 5 and len(ids) == sum(number % 5 != 4 for number in range(seen))
    for index, key in enumerate(ids):
        frames, embedding = features(key, num=60)
        np.testing.assert_array_equal(store.frames(key).values, frames.astype(np.float16))
        np.testing.assert_array_equal(embeddings[index], embedding)
    assert len((path / "errors.jsonl").read_text().splitlines()) == seen // 5


def test_a_stale_lock_file_is_no_lock(tmp_path):
    fill(tmp_path / "s", ["a"])
    (tmp_path / "s/.lock").touch()
    open_writer(tmp_path / "s").close()
    held = FileLock(tmp_path / "s/.lock-3of8")
    with held, pytest.raises(StoreError):
        open_writer(tmp_path / "s", prefix="3of8-")


def test_free_disk_of_a_directory_not_yet_made(tmp_path):
    assert free_disk_bytes(tmp_path / "a/b") > 0


def test_a_shard_replaced_while_the_store_is_open_is_told(tmp_path: Path) -> None:
    store = fill(tmp_path / "s", ["a", "b"])
    fill(tmp_path / "s", ["c", "d"], overwrite=True)
    with pytest.raises(StoreError, match="was replaced since"):
        store.embeddings()
    np.testing.assert_array_equal(Store(tmp_path / "s").embeddings()[1][1], features("d")[1])
