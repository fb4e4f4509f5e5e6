"""A folder of every kind of bad input beside good ones: the good are done, the bad are explained."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import speechfeat as sf

RATE = 16000
TONE = (0.3 * np.sin(np.arange(RATE) / 20)).astype(np.float32)


def wav(path: Path, samples: np.ndarray = TONE, rate: int = RATE, **options: object) -> None:
    with path.open("wb") as file:  # a file object, so that odd names do not matter
        soundfile.write(file, samples, rate, **{"format": "WAV", **options})


def cut(path: Path, share: float, **options: object) -> None:
    wav(path, **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def garble(path: Path, start: int, stop: int, **options: object) -> None:
    wav(path, **options)
    content = bytearray(path.read_bytes())
    content[start:stop] = os.urandom(len(content[start:stop]))
    path.write_bytes(bytes(content))


# Kinds that must fail, each with one line in errors.jsonl.
BAD: dict[str, Callable[[Path], object]] = {
    "zero_bytes.wav": lambda path: path.write_bytes(b""),
    "zero_bytes.flac": lambda path: path.write_bytes(b""),
    "zero_bytes.opus": lambda path: path.write_bytes(b""),
    "zero_bytes.mp3": lambda path: path.write_bytes(b""),
    "text.wav": lambda path: path.write_text("These are words, no samples.\n" * 50),
    "html.mp3": lambda path: path.write_text("<html><body>404 Not Found</body></html>"),
    "json.flac": lambda path: path.write_text('{"audio": null}'),
    "lfs_pointer.wav": lambda path: path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    ),
    "random.wav": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "random.flac": lambda path: path.write_bytes(np.random.default_rng(1).bytes(5000)),
    "random.opus": lambda path: path.write_bytes(np.random.default_rng(2).bytes(5000)),
    "zeros.wav": lambda path: path.write_bytes(bytes(5000)),
    "header_only.wav": lambda path: wav(path, np.zeros(0, np.float32)),
    "header_only.flac": lambda path: wav(path, np.zeros(0, np.float32), format="FLAC"),
    "half_a_header.wav": lambda path: cut(path, 0.0005),
    "half_a_header.ogg": lambda path: cut(path, 0.01, format="OGG"),
    "broken_link.wav": lambda path: path.symlink_to("nowhere.wav"),
    "link_to_itself.wav": lambda path: path.symlink_to(path),
    "nan.wav": lambda path: wav(path, np.full(RATE, np.nan, np.float32), subtype="FLOAT"),
    "one_nan.wav": lambda path: wav(path, np.where(np.arange(RATE) == 9000, np.nan, TONE), subtype="FLOAT"),
    "infinite.wav": lambda path: wav(path, np.full(RATE, np.inf, np.float32), subtype="FLOAT"),
    "picture.wav": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(2000)),
    "archive.mp3": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(2000)),
    "wrong_rate.wav": lambda path: wav(path, rate=1),
    "garbled_header.flac": lambda path: garble(path, 0, 60, format="FLAC"),
    "text.m4a": lambda path: path.write_text("no container"),
    "named_pipe.wav": os.mkfifo,
}

# Kinds that must be done, and the flag that says what is odd about them.
ODD: dict[str, tuple[Callable[[Path], object], str | None]] = {
    "silent.wav": (lambda path: wav(path, np.zeros(RATE, np.float32)), "silent"),
    "one_sample.wav": (lambda path: wav(path, TONE[:1]), "short"),
    "shorter_than_a_window.flac": (lambda path: wav(path, TONE[:200], format="FLAC"), "short"),
    "cut.wav": (lambda path: cut(path, 0.5), "truncated"),
    "cut.flac": (lambda path: cut(path, 0.5, samples=np.tile(TONE, 5), format="FLAC"), "truncated"),
    "telephone.wav": (lambda path: wav(path, TONE[:8000], 8000), "narrowband"),
    "long.wav": (lambda path: wav(path, np.tile(TONE, 70)), "chunked"),
    "eight_bits.wav": (lambda path: wav(path, subtype="PCM_U8"), None),
    "double.wav": (lambda path: wav(path, subtype="DOUBLE"), None),
    "six_channels.wav": (lambda path: wav(path, np.tile(TONE[:, None], (1, 6))), None),
    "high_rate.flac": (lambda path: wav(path, np.tile(TONE, 12), 192000, format="FLAC"), None),
    "wav_named.flac": (wav, None),
    "clipped.wav": (lambda path: wav(path, np.sign(TONE)), None),
    "loud.wav": (lambda path: wav(path, 100 * TONE, subtype="FLOAT"), None),
    " spaces in a name .wav": (wav, None),
    "-leading-dash.wav": (wav, None),
    "new\nline.wav": (wav, None),
    "Ünïcødé 语音.wav": (wav, None),
    "quote\"and'comma,.wav": (wav, None),
    "UPPER.WAV": (wav, None),
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> tuple[subprocess.CompletedProcess, sf.Store]:
    folder = tmp_path_factory.mktemp("bad")
    corpus = folder / "corpus"
    corpus.mkdir()
    for name, make in BAD.items():
        make(corpus / name)
    for name, (make, _) in ODD.items():
        make(corpus / name)
    (corpus / "directory.wav").mkdir()
    wav(Path(os.fsdecode(os.fsencode(corpus) + b"/not \xff utf-8.wav")))
    for number in range(5):
        wav(corpus / f"good{number}.wav", TONE[: 8000 + 1500 * number])
    arguments = [
        sys.executable,
        "-m",
        "speechfeat.extract",
        str(corpus),
        "-o",
        str(folder / "out"),
        "-m",
        str(checkpoint),
    ]
    done = subprocess.run([*arguments, "--dtype", "float32"], capture_output=True, text=True, timeout=300, check=False)
    return done, sf.Store(folder / "out")


def test_exit_code_and_no_traceback(outcome: tuple[subprocess.CompletedProcess, sf.Store]) -> None:
    process, _ = outcome
    assert process.returncode == 3, process.stderr
    assert "Traceback" not in process.stderr
    assert f"{len(BAD)} failed" in process.stderr


def test_every_bad_input_is_explained_once(outcome: tuple[subprocess.CompletedProcess, sf.Store]) -> None:
    errors = outcome[1].errors()
    assert sorted(error["id"] for error in errors) == sorted(BAD)
    for error in errors:
        assert error["reason"]
        assert "\n" not in error["reason"]
        assert not error["reason"].startswith(("RuntimeError", "ValueError", "TypeError")), error


def test_every_good_input_is_done(outcome: tuple[subprocess.CompletedProcess, sf.Store], checkpoint: Path) -> None:
    store = outcome[1]
    assert len(store) == len(ODD) + 5 + 1
    encoder = sf.load_encoder(checkpoint, dtype="float32")
    for number in range(5):
        (expected,) = encoder.encode([TONE[: 8000 + 1500 * number]])
        found = store.frames(f"good{number}.wav").values
        assert np.abs(found - expected.values).max() < 2e-3 * np.abs(expected.values).max()


@pytest.mark.parametrize("name", ODD)
def test_odd_inputs_are_flagged(outcome: tuple[subprocess.CompletedProcess, sf.Store], name: str) -> None:
    table = outcome[1].table().set_index("id")
    flags = list(table.loc[name.replace("\n", "\\n"), "flags"])
    expected = ODD[name][1]
    assert flags == [] if expected is None else expected in flags
