"""`python -m speechfeat.augment`, as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechfeat.augment import main
from speechfeat.augmentation import Augmentation
from speechfeat.errors import ParameterError


def test_a_preview_has_originals_copies_and_their_configuration(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "preview"
    command = [sys.executable, "-m", "speechfeat.augment", str(corpus), "-o", str(out), "--preview", "3"]
    options = ["--only", "noise,telephone", "--set", "noise_ratio=10,10", "--copies", "2", "--seed", "4"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = sorted(out.glob("*.wav"))
    assert len(files) == 9
    assert [file.stem.split("-")[-1] for file in files] == ["0", "1", "2"] * 3
    # From one end of the corpus to the other.
    assert [file.name.split("-")[0] for file in files[::3]] == ["00000", "00005", "00011"]
    original, rate = soundfile.read(files[0], dtype="float32")
    source, _ = soundfile.read(sorted(corpus.rglob("*.flac"))[0], dtype="float32")
    assert rate == 16000
    assert np.array_equal(original, source)
    described = json.loads((out / "augmentation.json").read_text())
    expected = Augmentation.only(noise=1, telephone=1, noise_ratio=(10, 10), voices=str(corpus), seed=4)
    assert Augmentation.of(described) == expected


def test_the_configuration_of_a_preview_gives_the_same_preview(corpus: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([str(corpus), "-o", str(one), "--set", "noise=1", "--set", "noise_source=babble", "--seed", "1"]) == 0
    assert main([str(corpus), "-o", str(two), "--config", str(one / "augmentation.json")]) == 0
    for file in one.glob("*.wav"):
        assert np.array_equal(soundfile.read(file)[0], soundfile.read(two / file.name)[0])


def test_a_recording_that_cannot_be_read_is_told(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (corpus / "speaker0" / "clip00.flac").write_bytes(b"fLaC, but not really")
    assert main([str(corpus), "-o", str(tmp_path / "out"), "--preview", "12", "--set", "mix=0"]) == 3
    assert "left out: " in capsys.readouterr().err
    assert len(list((tmp_path / "out").glob("*-1.wav"))) == 11


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="no such input: 'nowhere'"):
        main(["nowhere", "-o", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "noise"], "--set 'noise' must be NAME=VALUE, as in noise=0.5"),
        (["--set", "noyse=1"], "did you mean 'noise'"),
        (["--only", "nois"], "--only has no 'nois'; the kinds are speed"),
        (["--preview", "0"], "--preview 0 must be at least 1"),
        (["--copies", "0"], "num=0 copies must be at least 1"),
        (["--config", "nowhere.json"], "'nowhere.json' cannot be read"),
    ],
)
def test_a_mistake_is_one_sentence(options: list[str], message: str, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=message):
        main([str(corpus), "-o", str(tmp_path / "out"), *options])
