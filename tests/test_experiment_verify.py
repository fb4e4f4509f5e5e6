"""Speaker verification: who is learnt from and who is tested, scores of pairs, and the recipe as a user runs it."""

import runpy
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

import speechfeat as sf
from speechfeat.corpora.base import Corpus, Trial
from speechfeat.errors import ParameterError
from speechfeat.experiments.report import read_results
from speechfeat.experiments.scorers import Scorer, layer_errors
from speechfeat.experiments.trials import Trials, make_trials, plan_verification, read_speakers
from speechfeat.experiments.verify import Verification, check_speakers
from speechfeat.metrics import DetCurve, bootstrap_interval, det_curve, equal_error_rate
from speechfeat.probing import score_trials
from speechfeat.types import Utterance
from speechfeat.verification import as_norm
from tests.conftest import REPOSITORY

RNG = np.random.default_rng(0)


def corpus_of(counts: dict[str, int], **fields: object) -> Corpus:
    utterances = [
        Utterance(f"{name}/{take}", f"{name}-{take}.wav", labels={"speaker": name})
        for name, count in counts.items()
        for take in range(count)
    ]
    return Corpus("made", utterances, "speaker", **fields)


MIXED = corpus_of({**{f"many{i:02d}": 7 for i in range(10)}, **{f"once{i:02d}": 1 for i in range(20)}})


def speakers_of(utterances: list[Utterance]) -> set[str]:
    return {utterance.labels["speaker"] for utterance in utterances}


def pairs_of(trials: Trials) -> set[frozenset[str]]:
    return {frozenset((trials.ids[one], trials.ids[other])) for one, other in trials.pairs}


# Speakers and pairs


def test_training_and_test_share_no_speaker_and_all_pairs_are_trials() -> None:
    plan = plan_verification(MIXED, test_share=0.3, most=4)
    train, test = speakers_of(plan.train), speakers_of(plan.test)
    assert not train & test
    assert sorted(name[:4] for name in test) == ["many"] * 3 + ["once"] * 6
    assert train | test == speakers_of(list(MIXED.utterances))
    assert len(plan.train) == 7 * 7 + 14
    (trials,) = plan.trials
    assert len(plan.test) == len(trials.ids) == 3 * 4 + 6
    assert len(pairs_of(trials)) == len(trials.pairs) == 18 * 17 // 2
    assert trials.num_targets == 3 * 6
    assert trials.speakers.tolist() == [key.split("/")[0] for key in trials.ids]


def test_the_seed_decides_who_is_tested() -> None:
    one, again, other = (speakers_of(plan_verification(MIXED, seed=seed).test) for seed in (1, 1, 2))
    assert one == again != other


def test_listed_speakers_are_tested_and_all_others_learnt_from() -> None:
    plan = plan_verification(MIXED, test_speakers=["many03", "once07", "elsewhere"])
    assert speakers_of(plan.test) == {"many03", "once07"}
    assert len(speakers_of(plan.train)) == 28
    assert "1 more that are listed" in plan.about


def test_training_is_thinned_by_speaker() -> None:
    plan = plan_verification(MIXED, train_speakers=6, train_most=3)
    names = [utterance.labels["speaker"] for utterance in plan.train]
    assert len(set(names)) == 6
    assert max(map(names.count, names)) == 3


def test_utterances_without_a_speaker_are_left_out() -> None:
    unknown = [Utterance(f"unknown/{take}", "x.wav", labels={"speaker": ""}) for take in range(3)]
    plan = plan_verification(replace(MIXED, utterances=[*MIXED.utterances, *unknown]))
    assert "" not in speakers_of([*plan.train, *plan.test])
    assert "3 utterances without a speaker" in plan.about


def test_too_many_pairs_keep_all_targets() -> None:
    names = [name for name in "abcdefghij" for _ in range(6)]
    ids = [str(row) for row in range(60)]
    trials = make_trials(ids, names, most=5, limit=300)
    assert len(trials.pairs) == len(pairs_of(trials)) == 300
    assert trials.num_targets == 10 * 10
    assert (trials.pairs[:, 0] != trials.pairs[:, 1]).all()


def test_official_trials_are_taken_and_learning_is_on_the_other_speakers() -> None:
    listed = {
        "O": [Trial(True, "a/0", "a/1"), Trial(False, "a/0", "b/0")],
        "E": [Trial(True, "c/0", "c/1"), Trial(False, "c/0", "a/0")],
    }
    corpus = corpus_of(dict.fromkeys("abcde", 2), trials=listed)
    plan = plan_verification(corpus)
    assert [trials.name for trials in plan.trials] == ["O"]
    assert speakers_of(plan.train) == set("cde")
    assert [utterance.id for utterance in plan.test] == ["a/0", "a/1", "b/0"]
    both = plan_verification(corpus, lists=["O", "E"])
    assert [(trials.name, trials.num_targets) for trials in both.trials] == [("O", 1), ("E", 1)]
    assert speakers_of(both.train) == set("de")
    split = replace(corpus, splits={"train": [f"{name}/{take}" for name in "cde" for take in range(2)], "test": []})
    assert speakers_of(plan_verification(split, lists=["E"]).train) == set("cde")  # a leak, which is told
    with pytest.raises(ParameterError, match="speakers and recordings are on both sides"):
        check_speakers(plan_verification(split, lists=["E"]))
    wrong = replace(corpus, trials={"O": [Trial(True, "a/0", "b/1"), Trial(False, "a/0", "b/0")]})
    with pytest.raises(ParameterError, match="do not agree with the speakers"):
        plan_verification(wrong)


@pytest.mark.parametrize(
    ("corpus", "options", "message"),
    [
        (corpus_of({"a": 9}), {}, "of one speaker, 'a'"),
        (corpus_of({"a": 1, "b": 1, "c": 1}), {}, "none of the 3 speakers of 'made' has two utterances"),
        (corpus_of({"a": 2, "b": 2}), {}, "1 speakers cannot be compared"),
        (corpus_of({"a": 2, "b": 2, "c": 2}), {"test_share": 0.7}, "1 speakers are left to learn from"),
        (MIXED, {"train_speakers": 1}, "of which 1 are wanted"),
        (MIXED, {"test_share": 1.0}, "test_share=1.0"),
        (MIXED, {"most": 1}, "most=1"),
        (MIXED, {"test_speakers": ["nobody"]}, "none of the 1 speakers to test, first 'nobody', is in 'made'"),
        (MIXED, {"lists": ["O"]}, "has none of its own"),
        (corpus_of({"a": 2}, trials={"O": []}), {"lists": ["H"]}, "no trials 'H'; it has O"),
    ],
)
def test_what_cannot_be_planned_is_told(corpus: Corpus, options: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        plan_verification(corpus, **options)


def test_speakers_are_read_from_tables_and_lists(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text('path,speaker\n1.wav,"a, b"\n2.wav,c\n3.wav,c\n', encoding="utf-8")
    (tmp_path / "table.tsv").write_text('path\tspeaker\n1.wav\t"a\n', encoding="utf-8")
    (tmp_path / "list.txt").write_text("Zoë\n\n c \nZoë\n", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("\n")
    assert read_speakers(tmp_path / "table.csv") == ["a, b", "c"]
    assert read_speakers(tmp_path / "table.tsv") == ['"a']
    assert read_speakers(tmp_path / "list.txt") == ["Zoë", "c"]
    for file, message in (("none.csv", "cannot be read"), ("empty.txt", "names no speaker")):
        with pytest.raises(ParameterError, match=message):
            read_speakers(tmp_path / file)
    with pytest.raises(ParameterError, match="no column 'client'; it has: path, speaker"):
        read_speakers(tmp_path / "table.csv", "client")


def test_trials_of_failed_recordings_are_left_out() -> None:
    trials = make_trials(list("abcdef"), list("xxyyzz"))
    kept = trials.within(set("abcde"))
    assert len(kept.pairs) == 10
    assert kept.num_targets == 2
    with pytest.raises(ParameterError, match="0 targets and 3 non-targets are left"):
        trials.within(set("ace"))


# Scores


def voices(num_speakers: int, takes: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """`[n, 24]` embeddings in which 8 directions tell speakers, and the four that vary most tell nothing."""
    codes = np.repeat(np.arange(num_speakers), takes)
    values = RNG.standard_normal((len(codes), 24)) * spread
    values[:, 20:] *= 4
    values[:, :8] += RNG.standard_normal((num_speakers, 8))[codes]
    mixed = values @ np.linalg.qr(np.random.default_rng(5).standard_normal((24, 24)))[0]
    return mixed * np.logspace(-1, 2, 24) + 10, codes


def rate(scorer: Scorer, values: np.ndarray, codes: np.ndarray) -> float:
    one, other = np.triu_indices(len(codes), k=1)
    return equal_error_rate(scorer.score(values, np.column_stack([one, other])), codes[one] == codes[other])


def test_the_cosine_is_of_embeddings_standardised_by_training() -> None:
    (train, speakers), (test, _) = voices(10, 5), voices(5, 4)
    pairs = RNG.integers(20, size=(50_000, 2))
    unit = (test - train.mean(axis=0)) / train.std(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = (unit @ unit.T)[pairs[:, 0], pairs[:, 1]]
    assert np.allclose(Scorer().fit(train, speakers).score(test, pairs), expected, atol=1e-5)


def test_lda_finds_the_directions_of_speakers() -> None:
    (train, speakers), (test, tested) = voices(60, 8), voices(20, 5)
    plain = rate(Scorer().fit(train, speakers), test, tested)
    projected = rate(Scorer("lda").fit(train, speakers), test, tested)
    assert projected < plain - 0.03


def test_as_norm_uses_the_mean_voices_of_training_speakers() -> None:
    (train, speakers), (test, _) = voices(15, 5), voices(4, 3)
    plain, normed = (Scorer(cohort=cohort, seed=3).fit(train, speakers) for cohort in (0, 15))
    pairs = np.column_stack(np.triu_indices(12, k=1))
    means = np.stack([plain.project(train)[speakers == code].mean(axis=0) for code in range(15)])
    near = plain.project(test) @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    expected = as_norm(plain.score(test, pairs), near, near, trials=pairs, top=3)
    assert np.allclose(normed.score(test, pairs), expected, atol=1e-4)


def test_a_layer_is_chosen_by_what_it_tells() -> None:
    values, speakers = voices(20, 5, spread=0.2)
    layers = np.stack([RNG.standard_normal(values.shape), values, RNG.standard_normal(values.shape)], axis=1)
    for kind in ("cosine", "lda"):
        errors = layer_errors(layers, speakers, kind)
        assert errors[1] < 0.2 < 0.35 < min(errors[0], errors[2])


def test_lda_is_not_tried_on_the_speakers_it_learnt_from() -> None:
    """Of noise in many dimensions it would tell those apart, and no others."""
    noise, speakers = RNG.standard_normal((120, 1, 100)), np.repeat(np.arange(30), 4)
    scorer = Scorer("lda").fit(noise[:, 0], speakers)
    assert rate(scorer, noise[:, 0], speakers) < 0.2 < 0.4 < layer_errors(noise, speakers, "lda")[0]


def test_bad_scorers_are_refused() -> None:
    values, speakers = voices(6, 2)
    with pytest.raises(ParameterError, match="head 'plda' is not known; use cosine, lda"):
        Scorer("plda")
    with pytest.raises(ParameterError, match="a cohort of 3 speakers is too small"):
        Scorer(cohort=3)
    with pytest.raises(ParameterError, match="the 6 speakers to learn from are too few for a cohort"):
        Scorer(cohort=20).fit(values, speakers)
    with pytest.raises(ParameterError, match="some of them with several utterances"):
        Scorer("lda").fit(values, np.arange(12))
    with pytest.raises(ParameterError, match="the 2 speakers to learn from are too few"):
        plan = plan_verification(corpus_of(dict.fromkeys("abcd", 2)))
        Verification("", MIXED, plan, ["mfcc"], "nowhere", cohort=20)
    with pytest.raises(ParameterError, match="choosing a layer for 'lda'"):
        layer_errors(values[:6, None], speakers[:6], "lda")


def test_intervals_are_drawn_by_speaker() -> None:
    values, speakers = voices(8, 4, spread=0.3)
    one, other = np.triu_indices(32, k=1)
    scores = Scorer().fit(values, speakers).score(values, np.column_stack([one, other]))
    measure = partial(DetCurve.min_dcf, p_target=0.5)
    found = score_trials(scores, speakers[one], speakers[other], measure, num=50)

    def drawn(chosen: np.ndarray) -> float:
        """Pairs repeated one by one."""
        counts = np.bincount(chosen, minlength=8)
        is_target = speakers[one] == speakers[other]
        times = np.where(is_target, counts[speakers[one]], counts[speakers[one]] * counts[speakers[other]])
        return measure(det_curve(np.repeat(scores, times), np.repeat(is_target, times)))

    assert found.score == measure(det_curve(scores, speakers[one] == speakers[other]))
    assert (found.low, found.high) == pytest.approx(bootstrap_interval(drawn, np.arange(8), num=50))
    assert found.low < found.score < found.high
    with pytest.raises(ParameterError, match=r"must be \[n\]"):
        score_trials(scores, speakers, speakers)


# The recipe


def make_tones(folder: Path) -> Path:
    """A TSV of eight voices of four takes each: a harmonic tone of the voice's own pitch and colour, with noise."""
    rng = np.random.default_rng(0)
    lines = ["path\tspeaker"]
    times = np.arange(16000) / 16000
    for voice in range(8):
        colour = rng.standard_normal(12)
        for take in range(4):
            pitch = 90 * 1.12**voice * (1 + 0.01 * rng.standard_normal())
            waves = [np.exp(0.7 * colour[k]) / (k + 1) * np.sin(2 * np.pi * pitch * (k + 1) * times) for k in range(12)]
            samples = 0.05 * sum(waves) + 0.003 * rng.standard_normal(16000)
            soundfile.write(folder / f"{voice}-{take}.wav", samples, 16000)
            lines.append(f"{voice}-{take}.wav\tvoice | {voice}, é")
    (folder / "broken.wav").write_bytes(b"no audio")
    lines.append("broken.wav\tvoice | 0, é")
    (folder / "tones.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "tones.tsv"


RECIPE = str(REPOSITORY / "recipes" / "speaker_verification.py")


def command(manifest: Path, out: Path, *options: str) -> list[str]:
    return [RECIPE, "--corpus", "manifest", "--root", str(manifest), "-o", str(out), "-q", *options]


def run_here(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The recipe within this process; its exit code."""
    monkeypatch.setattr(sys, "argv", list(arguments))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(RECIPE, run_name="__main__")
    return int(end.value.code or 0)


def test_the_recipe_verifies_draws_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    given = command(make_tones(tmp_path), out, "-m", "mfcc", "-m", "logmel", "--draws", "20")
    result = subprocess.run([sys.executable, *given], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    results = read_results(out)
    assert results is not None
    for found in results["models"].values():
        (row,) = found["scores"]
        assert 15 * 14 // 2 <= row["num_trials"] <= 16 * 15 // 2
        assert row["eer"]["low"] <= row["eer"]["score"] <= row["eer"]["high"]
        assert row["eer"]["score"] < 0.3
        assert 0 <= row["min_dcf_0.05"]["score"] <= row["min_dcf_0.01"]["score"] <= 1
        assert found["num_train_speakers"] == 4
        assert found["failed"] == 1
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "speaker_verification.py --corpus manifest" in report
    assert "speakers: none on both sides" in report
    assert "could not be read and are left out: 1" in report
    for name in ("det.png", "layers.png", "mfcc/tsne.png", "logmel/pca.png"):
        assert (out / name).stat().st_size > 5000
        assert f"({name})" in report
    shards = {file: file.stat().st_mtime_ns for file in (out / "features").rglob("*.parquet")}
    assert run_here(monkeypatch, *given) == 0
    assert read_results(out) == results
    assert {file: file.stat().st_mtime_ns for file in (out / "features").rglob("*.parquet")} == shards


def test_a_network_is_trained_on_the_other_speakers_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    settings = ("--set", "epochs=3", "--set", "embedding_dim=8", "--set", "learning_rate=0.01")
    more = (*settings, "-m", "conformer-s", "--draws", "5", "--test-share", "0.3", "--train-most", "3")
    given = command(make_tones(tmp_path), out, "--head", "stats", *more)
    assert run_here(monkeypatch, *given) == 0
    results = read_results(out)
    assert results is not None
    (row,) = results["models"]["conformer-s"]["scores"]
    assert row["layer"] == "mix" and row["eer"]["score"] < 0.5
    head = sf.load_head(out / "conformer-s" / "head")
    # Two of them are kept apart to validate on.
    assert (results["models"]["conformer-s"]["num_train_speakers"], len(head.classes)) == (6, 4)
    # The scores are the cosines of its vectors.
    store = sf.Store(next((out / "features").iterdir()))
    plan = plan_verification(
        sf.open_corpus("manifest", tmp_path / "tones.tsv", label="speaker"), test_share=0.3, train_most=3
    )
    trials = plan.trials[0].within(store)
    vectors = head.embed(store, trials.ids)
    first, second = trials.sides
    one, other = trials.pairs.T
    rate = equal_error_rate((vectors[one] * vectors[other]).sum(axis=1), first == second)
    assert rate == pytest.approx(row["eer"]["score"], abs=1e-6)
    assert (out / "conformer-s" / "mix.png").stat().st_size > 1000 and not (out / "layers.png").exists()
    # A second run takes the head that is there; other settings train another.
    file = out / "conformer-s" / "head" / "head.safetensors"
    made = file.stat().st_mtime_ns
    assert run_here(monkeypatch, *given) == 0
    assert file.stat().st_mtime_ns == made and read_results(out) == results
    assert run_here(monkeypatch, *given, "--set", "epochs=2") == 0
    assert file.stat().st_mtime_ns != made


def test_a_planted_leak_stops_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_tones(tmp_path)
    listed = tmp_path / "listed.txt"
    listed.write_text("voice | 5, é\nvoice | 6, é\n", encoding="utf-8")
    (tmp_path / "6-0.wav").write_bytes((tmp_path / "1-0.wav").read_bytes())
    given = command(
        manifest, tmp_path / "out", "-m", "mfcc", "--test-speakers", str(listed), "--draws", "5", "--head", "lda"
    )
    assert run_here(monkeypatch, *given) == 2
    told = capsys.readouterr().err
    assert "error: recordings are on both sides" in told
    assert "'1-0.wav', test '6-0.wav'" in told
    assert "--allow-leaks" in told
    assert not (tmp_path / "out").exists()
    assert run_here(monkeypatch, *given, "--allow-leaks") == 0
    assert "recordings: 1 on both sides" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_a_manifest_without_speakers_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(monkeypatch, *command(make_tones(tmp_path), tmp_path / "out", "--label", "client")) == 2
    assert "has no column label='client'; it has: speaker" in capsys.readouterr().err


@pytest.mark.shared
def test_mfcc_verifies_voices_of_digits(shared: Path, tmp_path: Path) -> None:
    corpus = sf.open_corpus("manifest", shared / "data" / "fsdd.tsv", label="speaker")
    # Four takes of each digit and speaker.
    few = replace(corpus, utterances=[one for one in corpus.utterances if int(one.id.split("_")[-1].split(".")[0]) < 4])
    plan = plan_verification(few, most=20)
    out = tmp_path / "out"
    results = Verification("FSDD", few, plan, ["mfcc"], out, num=20, extraction={"quiet": True}).run()
    (row,) = results["models"]["mfcc"]["scores"]
    assert row["num_trials"] == 60 * 59 // 2
    assert row["eer"].score < 0.35
