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
from speechfeat import doctor
from speechfeat.extract import main
from speechfeat.planning import survey
from speechfeat.pooling import Pooler


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


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run two utterances side by side."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")


@pytest.mark.usefixtures("two_threads")
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


@pytest.mark.usefixtures("two_threads")
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


def test_what_is_done_stays_done_when_its_recording_is_gone(corpus: Path, tmp_path: Path) -> None:
    arguments = [str(corpus), "-o", str(tmp_path / "out"), "-m", "logmel", "-q"]
    assert main(arguments) == 0
    (corpus / "speaker0" / "clip00.flac").write_bytes(b"")
    assert main(arguments) == 0
    assert len(sf.Store(tmp_path / "out")) == 12


def test_two_utterances_of_one_id_are_refused(corpus: Path) -> None:
    path = str(corpus / "speaker0" / "clip00.flac")
    with pytest.raises(sf.ParameterError, match="same id 'a'"):
        survey([sf.Utterance("a", path), sf.Utterance("b", path), sf.Utterance("a", path, start=0.1)])


def test_a_disk_that_is_too_small_is_refused_before_a_store_is_begun(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speechfeat.extracting.free_disk_bytes", lambda path: 1000)
    with pytest.raises(sf.StoreError, match="GiB free"):
        main([str(corpus), "-o", str(tmp_path / "out"), "-m", "logmel", "-q"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("extra", [[], ["--dry-run"]])
def test_an_output_out_of_reach_is_one_sentence(
    extra: list[str], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists = Path.exists

    def denied(path: Path, **options: object) -> bool:
        if str(tmp_path / "closed") in str(path):
            raise PermissionError(13, "Permission denied")
        return exists(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "exists", denied)
    with pytest.raises(sf.StoreError, match=r"closed.*Permission denied"):
        main([str(corpus), "-o", str(tmp_path / "closed" / "out"), "-m", "logmel", "-q", *extra])


def test_more_ctrl_c_wait_for_what_is_being_written(corpus: Path, tmp_path: Path) -> None:
    # Two commits run at once otherwise: that of the writer thread and that of the store's closing.
    extractor = sf.Extractor(sf.load_encoder("logmel"), sf.ExtractConfig(num_workers=1))
    found = extractor.survey(extractor.discover(corpus))
    writer = extractor.open(tmp_path / "out", found)
    add, threads = writer.add, []

    def slow_add(*arguments: object) -> None:
        threads.append("begun")
        if len(threads) == 1:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
        add(*arguments)
        threads.append("ended")

    writer.add = slow_add  # type: ignore[method-assign]
    # A shell starts what it runs in the background with Ctrl-C ignored.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            extractor.run(found, writer)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert threads.count("begun") == threads.count("ended")
    assert len(sf.Store(tmp_path / "out")) == threads.count("ended")
    assert extractor.run(found, tmp_path / "out").already == threads.count("ended")


def test_embeddings_that_overflow_are_one_failure(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, calls = Pooler.result, []

    def overflow(pooler: Pooler) -> np.ndarray:
        calls.append(pooler)
        return np.full(80, np.inf, np.float32) if len(calls) == 3 else result(pooler)

    monkeypatch.setattr(Pooler, "result", overflow)
    assert main([str(corpus), "-o", str(tmp_path / "out"), "-m", "logmel", "-q"]) == 3
    assert len(sf.Store(tmp_path / "out")) == 11


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
        ([".", "--chunk-above", "20"], "chunk_above=20"),
        (["a" * 5000], r"no such input.*too long"),
        ([".", "--batch-seconds", "inf"], "batch_seconds=inf"),
        ([".", "--device", "cuda:99"], "device='cuda:99' is not available"),
        ([".", "--dtype", "int4"], "dtype='int4' is not known"),
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


def test_moved_segments_are_noticed(corpus: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    for end, expected in ((0.2, None), (0.2, None), (0.1999, None), (0.05, "first")):
        manifest.write_text(f"path,start,end,id\ncorpus/speaker0/clip00.flac,0,{end},first\n")
        arguments = [str(manifest), "-o", str(tmp_path / "out"), "-m", "logmel", "-q"]
        if expected is None:
            assert main(arguments) == 0
        else:
            with pytest.raises(sf.StoreError, match=expected):
                main(arguments)


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


def test_the_doctor_measures_with_one_recording_too(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Of an encoder that sees beyond its frames: those of mfcc are the same on both sides of a seam.
    soundfile.write(corpus / "high.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 44100), 44100)
    assert (
        doctor.main(["conformer-s", "--short-window", "--audio", str(corpus / "high.wav"), "--chunk", "80", "--json"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["seam"]["worst"] > 0, "the clip is longer than a chunk"
    assert found["x_real_time"]["float32"] > 0
