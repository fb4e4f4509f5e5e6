from pathlib import Path

import numpy as np
import pytest

from speechfeat.augmentation import MILD, Augmentation, augmented_copy, copies_of
from speechfeat.config import ExtractConfig
from speechfeat.encoders.loading import load_encoder
from speechfeat.errors import ParameterError
from speechfeat.extraction import Extractor
from speechfeat.store import Store
from speechfeat.types import Utterance

KINDS = ("speed", "mix", "room", "noise", "tilt", "band", "gain")
NONE = dict.fromkeys(KINDS, 0.0)


def tone(hertz: float = 440.0, seconds: float = 1.0) -> np.ndarray:
    return 0.1 * np.sin(2 * np.pi * hertz * np.arange(int(16000 * seconds)) / 16000).astype(np.float32)


def energy_above(samples: np.ndarray, hertz: float) -> float:
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    return spectrum[np.fft.rfftfreq(len(samples), 1 / 16000) > hertz].sum() / spectrum.sum()


def test_without_any_kind_nothing_changes() -> None:
    samples, speed = Augmentation(**NONE)(tone(), np.random.default_rng(0), [tone(300)])
    assert speed == 1
    assert np.array_equal(samples, tone())


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_the_samples_and_is_decided_by_the_generator(kind: str) -> None:
    augment = Augmentation(**{**NONE, kind: 1.0})
    one, other, again = (augment(tone(), np.random.default_rng(seed), [tone(300)])[0] for seed in (1, 2, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, tone())
    # The band is always the same.
    assert kind == "band" or len(one) != len(other) or not np.array_equal(one, other)
    assert one.dtype == np.float32
    assert np.abs(one).max() <= 10


def test_speed_is_the_ratio_of_lengths() -> None:
    samples, speed = Augmentation(**{**NONE, "speed": 1.0})(tone(), np.random.default_rng(3))
    assert speed != 1
    assert len(samples) == pytest.approx(16000 / speed, abs=1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "speed"])
def test_only_speed_changes_the_length(kind: str) -> None:
    for length in (15999, 16001, 700):
        samples, _ = Augmentation(**{**NONE, kind: 1.0})(tone()[:length], np.random.default_rng(0), [tone(300)])
        assert len(samples) == min(length, 16000)


def test_band_removes_what_is_above_4_khz() -> None:
    noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    samples, _ = Augmentation(**{**NONE, "band": 1.0})(noise, np.random.default_rng(0))
    assert energy_above(noise, 4200) > 0.4
    assert energy_above(samples, 4200) < 1e-3


def test_a_room_leaves_the_direct_sound_in_place() -> None:
    click = np.zeros(16000, np.float32)
    click[4000] = 1
    samples, _ = Augmentation(**{**NONE, "room": 1.0})(click, np.random.default_rng(0))
    assert np.argmax(np.abs(samples)) == 4000
    assert np.allclose(samples[:4000], 0, atol=1e-6)


def test_silence_stays_silent_under_noise() -> None:
    samples, _ = Augmentation(**{**NONE, "noise": 1.0, "mix": 1.0})(
        np.zeros(8000, np.float32), np.random.default_rng(0), [tone()]
    )
    assert not samples.any()


def test_scaling_multiplies_probabilities_up_to_one() -> None:
    assert Augmentation().scaled(0) == Augmentation(**NONE)
    assert Augmentation().scaled(100) == Augmentation(**dict.fromkeys(KINDS, 1.0))


def test_a_probability_above_one_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"noise=1.5 must be a probability"):
        Augmentation(noise=1.5)


def test_copies_are_numbered_and_the_same_whenever_they_are_read() -> None:
    one, two = copies_of([Utterance("a", "a.wav", labels={"keyword": "no"})], 2)
    assert (one.id, two.id) == ("a#1", "a#2")
    assert one.labels == {"keyword": "no"}
    first, second, again = (augmented_copy(tone(), utterance, MILD, 16000) for utterance in (one, two, one))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert 0.6 * 16000 < len(first) < 1.2 * 16000
    with pytest.raises(ParameterError, match="num=0 copies must be at least 1"):
        copies_of([one], 0)


def test_copies_are_extracted_beside_their_originals_and_resumed(corpus: Path, tmp_path: Path) -> None:
    encoder = load_encoder("mfcc")
    plain = Extractor(encoder, ExtractConfig(frames=False))
    utterances = plain.discover(corpus)
    plain.run(plain.survey(utterances), tmp_path / "plain")
    extractor = Extractor(encoder, ExtractConfig(frames=False, augmentation=MILD))
    found = extractor.survey([*utterances, *copies_of(utterances, 2)])
    assert extractor.run(found, tmp_path / "copies").done == 3 * len(utterances)
    assert extractor.run(found, tmp_path / "copies").done == 0
    store, ids = Store(tmp_path / "copies"), [utterance.id for utterance in utterances]
    originals = Store(tmp_path / "plain").embeddings(ids)[1]
    assert np.array_equal(store.embeddings(ids)[1], originals)
    for number in (1, 2):
        copies = store.embeddings([f"{key}#{number}" for key in ids])[1]
        assert not np.isclose(copies, originals).all(axis=1).any()
