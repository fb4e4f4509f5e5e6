import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from speechfeat.augmentation import FIRST_KINDS, KINDS, MILD, Augmentation, augmented_copy, copies_of, read_augmentation
from speechfeat.config import ExtractConfig
from speechfeat.encoders.loading import load_encoder
from speechfeat.errors import ParameterError
from speechfeat.extraction import Extractor
from speechfeat.store import Store
from speechfeat.types import Utterance

NONE = dict.fromkeys(KINDS, 0.0)
# Of these the samples alone decide.
FIXED = ("band", "telephone")


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
    assert kind in FIXED or len(one) != len(other) or not np.array_equal(one, other)
    assert one.dtype == np.float32
    assert np.abs(one).max() <= 10


@pytest.mark.parametrize("kind", ["speed", "tempo"])
def test_speed_is_the_ratio_of_lengths(kind: str) -> None:
    samples, speed = Augmentation.only(**{kind: 1.0})(tone(), np.random.default_rng(3))
    assert speed != 1
    assert len(samples) == pytest.approx(16000 / speed, abs=1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("speed", "tempo")])
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
    assert Augmentation().scaled(100) == Augmentation(**dict.fromkeys(FIRST_KINDS, 1.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": 1.5}, r"noise=1.5 must be a probability"),
        ({"noise": "often"}, r"noise='often' must be a probability"),
        ({"noise_ratio": (20, 10)}, r"noise_ratio=\(20, 10\) must be the lowest and the highest"),
        ({"noise_ratio": 10}, r"noise_ratio=10 must be a list"),
        ({"codecs": ("flac",)}, r"codecs=\('flac',\) must be mp3, opus, vorbis"),
        ({"least_length": 0}, r"least_length=0 must be a share"),
        ({"seed": -1}, r"seed=-1 must be a whole number"),
        ({"noise_source": "grey"}, r"noise_source must be coloured, white, pink, babble, or recordings: .*'grey'"),
        ({"voices": "nowhere"}, r"voices must be recordings: .*'nowhere'"),
    ],
)
def test_a_value_out_of_range_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Augmentation(**options)


def test_a_configuration_comes_back_from_json(tmp_path: Path) -> None:
    augmentation = Augmentation.only(noise=0.5, telephone=1.0, noise_ratio=(5, 10), codecs=("opus",), seed=3)
    file = tmp_path / "augmentation.json"
    file.write_text(json.dumps(augmentation.describe()))
    assert read_augmentation(file) == augmentation
    file.write_text('{"noyse": 1}')
    with pytest.raises(ParameterError, match="has no 'noyse'; did you mean 'noise'"):
        read_augmentation(file)
    file.write_text("[1]")
    with pytest.raises(ParameterError, match="must be a JSON object"):
        read_augmentation(file)


def test_options_that_came_later_do_not_change_the_description_of_what_lacks_them() -> None:
    assert list(Augmentation().describe()) == [*FIRST_KINDS, "sample_rate"]
    assert list(replace(Augmentation(), codec=0.1).describe()) == [*FIRST_KINDS, "sample_rate", "codec"]


def test_options_that_came_later_do_not_change_the_copies_of_what_lacks_them() -> None:
    # Of equal generators the same is left: kinds that came later draw nothing where they are not asked for.
    drawn = np.random.default_rng(5)
    Augmentation.only()(tone(), drawn)
    by_hand = np.random.default_rng(5)
    by_hand.random(len(FIRST_KINDS))
    assert drawn.random() == by_hand.random()
    plain, seeded = (np.random.default_rng(numbers) for numbers in ([1, 7], [1, 7, Augmentation().seed]))
    assert plain.random() == seeded.random()


def test_another_seed_gives_other_copies_and_the_order_does_not_matter() -> None:
    copies = copies_of([Utterance(name, name) for name in "abc"], 2)
    augmentation = Augmentation(telephone=0.5, tempo=0.5, codec=0.5, seed=1)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda one: augmented_copy(tone(), one, augmentation, 16000), copies))
    one_by_one = [augmented_copy(tone(), one, augmentation, 16000) for one in reversed(copies)][::-1]
    assert all(map(np.array_equal, together, one_by_one))
    others = [augmented_copy(tone(), one, replace(augmentation, seed=2), 16000) for one in copies]
    assert not any(map(np.array_equal, together, others))


def test_a_copy_may_keep_its_whole_length() -> None:
    (copy,) = copies_of([Utterance("a", "a.wav")], 1)
    samples = augmented_copy(tone(), copy, Augmentation.only(telephone=1.0, least_length=1.0), 16000)
    assert len(samples) == len(tone())


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
