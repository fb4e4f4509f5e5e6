"""The extract command, as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

import speechfeat as sf
from speechfeat.extract import main


def command(*arguments: object, **options: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "speechfeat.extract", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def run(*arguments: object) -> tuple[int, str, str]:
    process = command(*arguments)
    output, errors = process.communicate(timeout=300)
    assert "Traceback" not in errors, errors
    return process.returncode, output, errors


def same(one: Path, other: Path) -> bool:
    first, second = sf.Store(one), sf.Store(other)
    assert first.ids == second.ids
    assert np.array_equal(first.embeddings()[1], second.embeddings()[1])
    return all(np.array_equal(first.frames(key).values, second.frames(key).values) for key in first.ids)


def test_a_directory_becomes_a_store(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    code, output, errors = run(corpus, "-o", tmp_path / "out", "-m", checkpoint, "--dtype", "float32", "--json")
    assert code == 0, errors
    assert json.loads(output)["done"] == 12
    store = sf.Store(tmp_path / "out")
    assert store.ids[0] == "speaker0/clip00.flac"
    encoder = sf.load_encoder(str(checkpoint), dtype="float32")
    for key in store.ids[:3]:
        (expected,) = encoder.encode([str(corpus / key)])
        found = store.frames(key)
        assert np.allclose(found.values, expected.values, atol=2e-3 * np.abs(expected.values).max())
        assert np.array_equal(found.times, expected.times)
    ids, vectors = store.embeddings()
    assert np.allclose(vectors[0], encoder.embed([str(corpus / ids[0])])[0], atol=1e-5)


def test_the_same_command_again_does_nothing(corpus: Path, tmp_path: Path) -> None:
    arguments = (corpus, "-o", tmp_path / "out", "-m", "logmel", "--json")
    assert run(*arguments)[0] == 0
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.parquet")}
    code, output, _ = run(*arguments)
    assert code == 0
    assert json.loads(output)["already"] == 12
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.parquet")}


def test_kill_and_resume_equal_an_undisturbed_run(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    # Small batches and a slow start make room for a kill in the middle.
    arguments = (corpus, "-m", checkpoint, "--batch-size", "1", "--store-dtype", "float32", "-q")
    assert run(*arguments, "-o", tmp_path / "whole")[0] == 0
    for wait in (0.0, 0.05, 0.3):
        process = command(*arguments, "-o", tmp_path / "killed")
        deadline = time.monotonic() + 120
        while not (tmp_path / "killed" / "store.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(wait)
        process.kill()
        process.communicate()
    code, _, errors = run(*arguments, "-o", tmp_path / "killed")
    assert code == 0, errors
    assert same(tmp_path / "whole", tmp_path / "killed")
    files = {file.name: file.read_bytes() for file in (tmp_path / "whole" / "shards").iterdir()}
    assert files == {file.name: file.read_bytes() for file in (tmp_path / "killed" / "shards").iterdir()}


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    long = np.random.default_rng(0).standard_normal(16000 * 600).astype(np.float32) * 0.1
    soundfile.write(corpus / "z_long.flac", long, 16000)
    arguments = (corpus, "-o", tmp_path / "out", "-m", checkpoint, "--batch-seconds", "30", "-q")
    process = command(*arguments)
    while not (tmp_path / "out" / "store.json").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert "Traceback" not in errors
    if process.returncode == 130:
        assert "the same command goes on from here" in errors
    code, _, errors = run(*arguments)
    assert code == 0, errors
    assert len(sf.Store(tmp_path / "out")) == 13


def test_bad_inputs_are_explained_and_the_others_done(corpus: Path, tmp_path: Path) -> None:
    (corpus / "empty.wav").write_bytes(b"")
    (corpus / "text.wav").write_text("this is no audio")
    (corpus / "link.flac").symlink_to(corpus / "nowhere.flac")
    soundfile.write(corpus / "nan.wav", np.full(8000, np.nan, np.float32), 16000, subtype="FLOAT")
    soundfile.write(corpus / "silent.wav", np.zeros(8000), 16000)
    soundfile.write(corpus / "short.wav", np.full(30, 0.1), 16000)
    odd = corpus / os.fsdecode(b"odd \xff\nname.wav")
    with odd.open("wb") as file:
        soundfile.write(file, np.full(8000, 0.1), 16000, format="WAV")
    code, output, errors = run(corpus, "-o", tmp_path / "out", "-m", "logmel", "--json")
    assert code == 3, errors
    summary = json.loads(output)
    assert (summary["done"], summary["failed"]) == (15, 4)
    store = sf.Store(tmp_path / "out")
    assert sorted(failure["id"] for failure in store.errors()) == ["empty.wav", "link.flac", "nan.wav", "text.wav"]
    assert all(failure["reason"] for failure in store.errors())
    flags = store.table().set_index("id")["flags"]
    assert "silent" in flags["silent.wav"]
    assert "short" in flags["short.wav"]
    assert any("odd" in key for key in store.ids)


def test_max_errors_stops_a_hopeless_run(corpus: Path, tmp_path: Path) -> None:
    for number in range(5):
        (corpus / f"bad{number}.wav").write_text("no audio")
    code, _, errors = run(corpus, "-o", tmp_path / "out", "-m", "logmel", "--max-errors", "3")
    assert code == 1
    assert "more than --max-errors 3" in errors


def test_shards_open_as_one(corpus: Path, tmp_path: Path) -> None:
    for part in ("1/3", "2/3", "3/3"):
        assert main([str(corpus), "-o", str(tmp_path / "parts"), "-m", "logmel", "--shard", part, "-q"]) == 0
    assert main([str(corpus), "-o", str(tmp_path / "whole"), "-m", "logmel", "-q"]) == 0
    assert same(tmp_path / "parts", tmp_path / "whole")


def test_all_channels_and_segments(tmp_path: Path) -> None:
    stereo = np.stack([np.full(32000, 0.1), np.linspace(-0.5, 0.5, 32000)], axis=1)
    soundfile.write(tmp_path / "two.wav", stereo, 16000)
    (tmp_path / "list.csv").write_text(
        "path,start,end,id,speaker\ntwo.wav,0.5,1.5,first,ann\ntwo.wav,1.0,,second,bob\n"
    )
    assert main([str(tmp_path / "two.wav"), "-o", str(tmp_path / "all"), "-m", "logmel", "--channel", "all", "-q"]) == 0
    assert sf.Store(tmp_path / "all").ids == ["two.wav:ch0", "two.wav:ch1"]
    assert main([str(tmp_path / "list.csv"), "-o", str(tmp_path / "cut"), "-m", "logmel", "-q"]) == 0
    table = sf.Store(tmp_path / "cut").table().set_index("id")
    assert table.loc["first", "duration"] == pytest.approx(1.0)
    assert table.loc["second", "duration"] == pytest.approx(1.0)
    assert table.loc["second", "speaker"] == "bob"
    assert sf.Store(tmp_path / "cut").frames("first").times[0] > 0.49


def test_a_long_recording_is_cut_and_joined(checkpoint: Path, tmp_path: Path) -> None:
    clip = np.random.default_rng(0).standard_normal(16000 * 20).astype(np.float32) * 0.1
    soundfile.write(tmp_path / "long.wav", clip, 16000)
    common = [str(tmp_path / "long.wav"), "-m", str(checkpoint), "--dtype", "float32", "-q", "-l", "0,1", "-o"]
    assert main([*common, str(tmp_path / "whole")]) == 0
    assert main([*common, str(tmp_path / "cut"), "--chunk", "6", "--overlap", "2", "--chunk-above", "6"]) == 0
    whole, cut = (sf.Store(tmp_path / name).frames("long.wav") for name in ("whole", "cut"))
    assert whole.values.shape == cut.values.shape == (2, 999, 32)
    assert np.array_equal(whole.times, cut.times)
    assert "chunked" in sf.Store(tmp_path / "cut").table()["flags"][0]
    assert np.abs(whole.values - cut.values).mean() < 0.05 * whole.values.std()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such input: 'nowhere'"),
        ([".", "-m", "wavlm-bse"], "did you mean 'wavlm-base'"),
        ([".", "--pool", "median"], "pool='median' is not known"),
        ([".", "-l", "penultimat"], "layer 'penultimat' is not known"),
        ([".", "--overlap", "40"], "overlap=40"),
        ([".", "--device", "cuda:99"], "device='cuda:99' is not available"),
        ([".", "--dtype", "int8"], "dtype='int8' is not known"),
        ([".", "--channel", "left"], "--channel 'left' is not known"),
        ([".", "--batch-seconds", "-1"], "batch_seconds=-1"),
        ([".", "--pool", "none", "--no-frames"], "would store nothing"),
        ([".", "--shard", "9/8"], "9/8"),
    ],
)
def test_bad_calls_get_one_sentence(
    arguments: list[str], message: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from speechfeat.errors import SpeechfeatError

    monkeypatch.chdir(corpus)
    with pytest.raises(SpeechfeatError, match=message) as caught:
        main([*arguments, "-o", str(tmp_path / "out")])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_store_of_another_configuration_is_refused(corpus: Path, tmp_path: Path) -> None:
    assert main([str(corpus), "-o", str(tmp_path / "out"), "-m", "logmel", "-q"]) == 0
    code, _, errors = run(corpus, "-o", tmp_path / "out", "-m", "logmel", "--pool", "max")
    assert code == 1
    assert "pool" in errors
    assert "--overwrite" in errors
    assert main([str(corpus), "-o", str(tmp_path / "out"), "-m", "logmel", "--pool", "max", "--overwrite", "-q"]) == 0


def test_changed_recordings_are_noticed(corpus: Path, tmp_path: Path) -> None:
    arguments = (corpus, "-o", tmp_path / "out", "-m", "logmel")
    assert run(*arguments)[0] == 0
    soundfile.write(corpus / "speaker0" / "clip00.flac", np.full(9999, 0.1), 16000)
    code, _, errors = run(*arguments)
    assert code == 1
    assert "speaker0/clip00.flac" in errors


def test_a_failed_input_is_tried_again(corpus: Path, tmp_path: Path) -> None:
    arguments = (corpus, "-o", tmp_path / "out", "-m", "logmel")
    (corpus / "later.wav").write_text("no audio")
    assert run(*arguments)[0] == 3
    soundfile.write(corpus / "later.wav", np.full(9999, 0.1), 16000)
    assert run(*arguments)[0] == 0
    assert (tmp_path / "out" / "errors.jsonl").read_text() == ""


def test_listing_and_dry_run(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    code, output, _ = run("--list-models")
    assert code == 0
    assert "wavlm-base-plus" in output
    code, output, _ = run("--list-layers", checkpoint)
    assert code == 0
    assert "penultimate" in output
    assert "12.4688 ms" in output
    code, output, _ = run(corpus, "-o", tmp_path / "out", "-m", checkpoint, "--dry-run", "--json")
    assert code == 0
    assert json.loads(output)["utterances"] == 12
    assert not (tmp_path / "out").exists()
