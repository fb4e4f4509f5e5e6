"""Words in their recordings: forced alignment by CTC heads, and what is pooled over words."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

import speechfeat as sf
from benchmarks.alignment import make_recordings, word_errors
from speechfeat.audio import read_audio
from speechfeat.encoders.ctc import Recogniser, load_recogniser
from speechfeat.spelling import STAR, Speller
from speechfeat.transcripts import Alphabet
from tests.conftest import REPOSITORY
from tests.families.case import speech_like
from tests.families.ctc import make, recognisers, tokenizer_of
from tests.families.text import TEXT_CASES
from tests.families.waveform import TINY
from tests.families.waveform import make as make_encoder

RATE = 16000
HOW = "How ARE  yöu?"


class Heard:
    """An encoder whose states are the logits, ten frames a second: what is heard when is known."""

    name = "known"
    grid = sf.FrameGrid(100, (sf.Stage(10, 10),))

    def encode(self, recordings: Any, **options: Any) -> list[sf.Frames]:
        return [sf.Frames(one, self.grid.times(len(one))) for one in recordings]


@pytest.fixture
def known(tmp_path: Path) -> sf.Aligner:
    """An aligner with the letters of wav2vec 2.0 that hears what `heard` makes."""
    return sf.Aligner(Recogniser(Heard(), torch.nn.Identity(), tokenizer_of("Wav2Vec2", tmp_path), 0))  # type: ignore[arg-type]


def heard(aligner: sf.Aligner, symbols: str) -> np.ndarray:
    """Logits `[T, C]`: one symbol a frame, "-" a blank; the others are one in a hundred as likely."""
    tokenizer = aligner.recogniser.tokenizer
    classes = tokenizer.convert_tokens_to_ids(list(symbols.replace("-", "\0")))
    logits = np.full((len(classes), len(tokenizer)), -np.log(100), np.float32)
    logits[np.arange(len(classes)), [0 if one == "-" else own for one, own in zip(symbols, classes, strict=True)]] = 0
    return logits


def ends(words: list[sf.Word]) -> np.ndarray:
    return np.array([(word.start, word.end) for word in words])


def test_words_are_where_their_letters_are(known: sf.Aligner) -> None:
    (words,) = known.align([heard(known, "---HO-W---|-A-RREE--|YOOU--")], [HOW])
    assert [word.text for word in words] == ["How", "ARE", "yöu?"]
    assert [HOW[slice(*word.offsets)] for word in words] == ["How", "ARE", "yöu?"]
    assert ends(words) == pytest.approx(np.array([(0.3, 0.7), (1.2, 1.8), (2.1, 2.5)]), abs=0.006)
    assert min(word.score for word in words) > np.log(0.7)
    assert list(pd.DataFrame(words)) == ["text", "start", "end", "score", "offsets"]


def test_what_is_not_said_has_a_low_score(known: sf.Aligner) -> None:
    logits = heard(known, "--HOW--|--ARE--|--YOU--")
    (right,), (wrong,) = known.align([logits], ["how are you"]), known.align([logits], ["how old you"])
    assert wrong[1].score < np.log(0.05) < right[1].score
    assert ends(wrong)[[0, 2]] == pytest.approx(ends(right)[[0, 2]])


def test_a_word_of_two_parts_is_one_word(known: sf.Aligner) -> None:
    (words,) = known.align([heard(known, "-A-|WEL-L---KNOWN|CAT-")], ["a well-known cat"])
    assert [word.text for word in words] == ["a", "well-known", "cat"]
    assert (words[1].start, words[1].end) == pytest.approx((0.4, 1.7), abs=0.006)
    assert words[1].score > np.log(0.7)


def test_a_letter_that_nobody_heard_is_near_the_others_of_its_word(known: sf.Aligner) -> None:
    logits = heard(known, "-THRE---------------TWO-")
    # As unlikely as anywhere, and a little less so long after the word.
    logits[12, known.recogniser.tokenizer.convert_tokens_to_ids("E")] += 0.5
    (words,) = known.align([logits], ["three two"])
    assert words[0].end < 1.0


def test_a_word_that_cannot_be_spelt_is_an_error_or_stands_for_anything(known: sf.Aligner) -> None:
    logits = heard(known, "-HOW-|MANY|-ARE-")
    with pytest.raises(sf.TextError, match=r"transcript 0: '12' has '12', which the CTC head .* unknown='star'"):
        known.align([logits], ["how 12 are"])
    (words,) = known.align([logits], ["how 12 are"], unknown="star")
    assert [word.text for word in words] == ["how", "12", "are"]
    assert np.isnan(words[1].score)
    assert words[0].end <= words[1].start < 0.7
    assert 0.9 < words[1].end <= words[2].start


@pytest.mark.parametrize(
    ("transcripts", "options", "error", "message"),
    [
        ([""], {}, sf.TextError, "'' has no words"),
        (["... !"], {}, sf.TextError, "has no words"),
        (["how Привет"], {}, sf.TextError, "'Привет' has 'Привет'"),
        (["how are you today my dear"], {}, sf.AudioError, r"needs 27 frames and it has 7 \(0.7 s\)"),
        (["see"], {}, sf.AudioError, "nothing"),
        ("how", {}, sf.ParameterError, "1 recordings and one string"),
        (["how", "are"], {}, sf.ParameterError, "1 recordings and 2 transcripts"),
        (["how"], {"unknown": "skip"}, sf.ParameterError, "unknown='skip' is not known; use 'error' or 'star'"),
    ],
)
def test_a_mistake_is_one_sentence(
    known: sf.Aligner, transcripts: Any, options: dict[str, Any], error: type, message: str
) -> None:
    if message == "nothing":  # two letters that are alike need a blank between them: pauses, s, e, blank, e
        known.align([heard(known, "------")], transcripts)
        with pytest.raises(error, match="needs 6 frames and it has 5"):
            known.align([heard(known, "-----")], transcripts)
        return
    with pytest.raises(error, match=message):
        known.align([heard(known, "--HOW--")], transcripts, **options)


def test_spelling_is_that_of_the_training() -> None:
    alphabet = Alphabet()
    speller = Speller(load_recogniser(device="cpu").tokenizer, 0)
    for text in ("Don\u2019t \u2013 stop; e-mail me!", "Café \u201cZürich\u201d naïve", "\ufb01ne, a.m. O'Neill"):
        assert speller.spell(text).classes == [1, *(alphabet.encode(text) or []), 1]


def test_pieces_of_words_need_no_pause(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("Parakeet", tmp_path)
    found = Speller(tokenizer, tokenizer.pad_token_id).spell("How, 7 dogs are", star=True)
    pieces = ["*" if one == STAR else tokenizer.convert_ids_to_tokens(one) for one in found.classes]
    assert pieces == ["▁how", "*", "*", "▁are"]  # there is no s
    assert found.owners == [0, 1, 2, 3]
    assert Speller(tokenizer, tokenizer.pad_token_id).spell("doge").num_frames == 4


@pytest.mark.parametrize("name", recognisers())
def test_emissions_are_those_of_the_whole_model(name: str, tmp_path: Path) -> None:
    model, extractor = make(name)
    (clip,) = speech_like(24000)
    inputs = extractor(clip, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    found = load_recogniser(
        model, device="cpu", dtype="float32", feature_extractor=extractor, tokenizer=tokenizer_of(name, tmp_path)
    )
    (frames,) = found.encoder.encode([clip])
    expected = logits.log_softmax(dim=-1)[: frames.num_frames]
    assert torch.allclose(found.emissions(frames.values), expected, atol=1e-4)
    words = sf.Aligner(found).align([clip], ["how are"])[0]
    assert 0 <= words[0].start < words[0].end <= words[1].start < words[1].end <= 1.55


def test_a_checkpoint_is_read_with_its_head(tmp_path: Path) -> None:
    model, extractor = make("Wav2Vec2")
    tokenizer = tokenizer_of("Wav2Vec2", tmp_path)
    for part in (model, extractor, tokenizer):
        part.save_pretrained(tmp_path / "model")
    options = {"feature_extractor": extractor, "tokenizer": tokenizer}
    clips = speech_like(24000, 9000)
    there = sf.load_aligner(model, dtype="float32", **options).align(clips, ["how are you", "yes"])
    assert sf.load_aligner(tmp_path / "model", dtype="float32").align(clips, ["how are you", "yes"]) == there
    assert sf.align(clips[0], "how are you", sf.load_aligner(model, dtype="float32", **options)) == there[0]


def test_what_has_no_fitting_head_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(sf.ModelError, match="is a Wav2Vec2Model, which has no CTC head; give"):
        sf.load_aligner(checkpoint)
    with pytest.raises(sf.ModelError, match="'whisper' model, which has no CTC head"):
        sf.load_aligner(transformers.WhisperModel(transformers.WhisperConfig(decoder_layers=1, encoder_layers=1)))
    with pytest.raises(sf.ModelError, match="no directory here"):
        sf.load_aligner("conformer")
    with pytest.raises(sf.ModelError, match="Linear is no model of transformers"):
        sf.load_aligner(torch.nn.Linear(2, 2))
    with pytest.raises(sf.ParameterError, match="brings its own"):
        sf.load_aligner(checkpoint, tokenizer=object())
    model, extractor = make("Wav2Vec2")
    with pytest.raises(sf.ModelError, match="needs its tokenizer"):
        sf.load_aligner(model, feature_extractor=extractor)
    model.config.add_adapter = True
    with pytest.raises(sf.ModelError, match="takes other frames than those of its last layer"):
        sf.load_aligner(model, feature_extractor=extractor, tokenizer=tokenizer_of("Wav2Vec2", tmp_path))


@pytest.mark.shared
def test_digits_are_found_where_they_were_put(shared: Path) -> None:
    made = make_recordings(shared / "data", 10, (0.1, 0.5), ("george", "jackson", "theo"))
    errors = np.abs(word_errors(sf.load_aligner(device="cpu", dtype="float32"), made))
    assert np.median(errors) < 0.06
    assert np.quantile(errors, 0.9) < 0.2


def test_the_examples_are_aligned_in_order() -> None:
    words = sf.align(REPOSITORY / "examples" / "clara.ogg", "Kill the run at any moment, and start it again.")
    assert [word.text for word in words] == [
        "Kill",
        "the",
        "run",
        "at",
        "any",
        "moment,",
        "and",
        "start",
        "it",
        "again.",
    ]
    flat = ends(words).ravel()
    assert (np.diff(flat) >= 0).all()
    assert 0 <= flat[0] < 0.3
    assert 2.0 < flat[-1] <= len(read_audio(str(REPOSITORY / "examples" / "clara.ogg"), RATE).samples) / RATE


def test_words_are_pooled_side_by_side(known: sf.Aligner) -> None:
    (words,) = known.align([heard(known, "---HO-W---|-A-RREE--|YOOU--")], [HOW])
    speech = sf.load_encoder(
        make_encoder("Wav2Vec2", TINY, normalize=True)[0],
        feature_extractor=transformers.Wav2Vec2FeatureExtractor(),
        layers="1,2",
        device="cpu",
        dtype="float32",
    )
    (frames,) = speech.encode(speech_like(int(2.7 * RATE)))
    vectors = sf.pool_words(frames, words, "mean+std")
    assert vectors.shape == (3, 2, 2 * speech.dim)
    inside = (frames.times >= words[1].start) & (frames.times < words[1].end)
    assert vectors[1, :, : speech.dim] == pytest.approx(frames.values[:, inside].mean(axis=1), abs=1e-5)
    bert = next(case for case in TEXT_CASES if case.name == "bert").encoder()
    (tokens,) = bert.encode([HOW])
    rows = sf.word_rows(tokens, words)
    names = ["".join(tokens.tokens[row] for row in own).replace("##", "") for own in rows]
    assert names == ["how", "are", "<unk><unk>"]
    assert sf.pool_words(tokens, words).shape == (3, bert.dim)


def test_a_word_shorter_than_a_frame_gets_the_nearest() -> None:
    frames = sf.Frames(np.arange(6.0)[:, None], np.arange(6) * 0.04)
    word = sf.Word("a", 0.085, 0.11, 0.0, (0, 1))
    assert sf.pool_words(frames, [word]).tolist() == [[2.0]]


def test_a_truncated_text_is_explained() -> None:
    tokens = sf.Frames(np.ones((2, 3)), np.empty(0), tokens=("a", "b"), offsets=np.array([[0, 1], [0, 0]], np.int32))
    with pytest.raises(sf.ParameterError, match="no token has characters of 'cat'"):
        sf.pool_words(tokens, [sf.Word("cat", 0.0, 1.0, 0.0, (2, 5))])
