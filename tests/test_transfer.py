"""Laws of the training of encoders: resumed, ended, for labels that are missing, for a teacher; and the ladder."""

import json
import multiprocessing
import os
import runpy
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from torch.nn import functional as F

import speechfeat as sf
from speechfeat import extract
from speechfeat.distillation.data import AudioCache
from speechfeat.heads.objectives import Validation
from tests.conftest import REPOSITORY
from tests.families.case import speech_like

SPEAKERS = 4


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[sf.Utterance]:
    """Sixteen clips, low or high, by four speakers, and half of them with a mood; beside them their manifest."""
    folder = tmp_path_factory.mktemp("recordings")
    utterances = []
    for number, clip in enumerate(speech_like(*(8000 + 601 * number for number in range(16)))):
        word, speaker = ("low", "high")[number % 2], f"s{number // 2 % SPEAKERS}"
        tone = 0.2 * np.sin(2 * np.pi * (300 if word == "low" else 2000) * np.arange(len(clip)) / 16000)
        soundfile.write(folder / f"{number:02d}.wav", np.clip(clip + tone, -1, 1), 16000, subtype="FLOAT")
        labels = {"keyword": word, "speaker": speaker, "mood": ("calm", "wild")[number // 2 % 2] if number < 8 else ""}
        utterances.append(sf.Utterance(f"{number:02d}.wav", str(folder / f"{number:02d}.wav"), labels=labels))
    pd.DataFrame([{"path": one.path, **one.labels} for one in utterances]).to_csv(folder / "all.csv", index=False)
    return utterances


@pytest.fixture(scope="module")
def audio(recordings: list[sf.Utterance], tmp_path_factory: pytest.TempPathFactory) -> AudioCache:
    return AudioCache(tmp_path_factory.mktemp("audio"), recordings, 16000, exact=True)


def labels_of(recordings: Sequence[sf.Utterance], label: str = "keyword") -> list[str]:
    return [one.labels[label] for one in recordings]


def new_model(checkpoint: Path, **heads: int) -> sf.TransferModel:
    shapes = {name: sf.new_head(count) for name, count in (heads or {"keyword": 2}).items()}
    return sf.TransferModel.load(checkpoint, shapes, "last", device="cpu")


def jitter(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return samples * np.float32(rng.uniform(0.5, 2))


def new_trainer(
    checkpoint: Path,
    audio: AudioCache,
    objective: Any,
    directory: Path,
    regime: Any = None,
    *,
    plan: sf.BatchPlan | None = None,
    **config: Any,
) -> sf.Trainer:
    model = new_model(checkpoint)
    plan = plan or sf.BatchPlan(batch_seconds=3.0, crop_seconds=0.6, views=(jitter,))
    return sf.Trainer(
        model,
        regime or sf.Full(),
        objective,
        sf.UtteranceBatches(model.encoder, audio, range(12), plan),
        sf.UtteranceBatches(model.encoder, audio, range(12, 16), plan),
        config=sf.TrainConfig(**{"epochs": 3, "accumulate": 2, "patience": 9, **config}),
        directory=directory,
    )


@pytest.fixture
def words(recordings: list[sf.Utterance]) -> sf.CrossEntropy:
    return sf.CrossEntropy(sf.Task.of("keyword", labels_of(recordings)))


def assert_same_training(one: sf.Trainer, other: sf.Trainer) -> None:
    assert one.state.rows == other.state.rows
    weights = other.model.state_dict()
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    for moments, others in zip(one.optimizer.state.values(), other.optimizer.state.values(), strict=True):
        assert all(torch.equal(moments[name], others[name]) for name in moments)


REGIMES = [sf.Frozen(), sf.TopBlocks(1, head_epochs=1), sf.Gradual(), sf.Full(front=True), sf.LoRA(rank=2)]


@pytest.mark.parametrize("regime", REGIMES, ids=lambda regime: type(regime).__name__)
@pytest.mark.parametrize("stopped_after", [1, 4, 6])
def test_a_stopped_and_resumed_training_ends_with_the_same_weights(
    checkpoint: Path, audio: AudioCache, words: sf.CrossEntropy, tmp_path: Path, regime: Any, stopped_after: int
) -> None:
    if isinstance(regime, sf.LoRA):
        pytest.importorskip("peft", reason="LoRA needs peft")
    undisturbed = new_trainer(checkpoint, audio, words, tmp_path / "undisturbed", regime)
    assert undisturbed.run()
    stop = threading.Event()
    stopped = new_trainer(checkpoint, audio, words, tmp_path / "stopped", regime)
    torch.manual_seed(stopped_after)
    assert not stopped.run(lambda trainer, _: stop.set() if trainer.state.step == stopped_after else None, stop)
    resumed = new_trainer(checkpoint, audio, words, tmp_path / "stopped", regime)
    assert resumed.state.step == stopped_after
    assert resumed.run()
    assert_same_training(undisturbed, resumed)


def train_and_die(checkpoint: Path, audio: AudioCache, words: sf.CrossEntropy, directory: Path, moment: int) -> None:
    """Train until a step, and be killed in it."""

    def die(trainer: sf.Trainer, _: float) -> None:
        if trainer.state.step == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    new_trainer(checkpoint, audio, words, directory, checkpoint_seconds=0.02).run(die)


def test_a_killed_training_goes_on_from_its_last_checkpoint(
    checkpoint: Path, audio: AudioCache, words: sf.CrossEntropy, tmp_path: Path
) -> None:
    undisturbed = new_trainer(checkpoint, audio, words, tmp_path / "undisturbed")
    assert undisturbed.run()
    moment = int(np.random.default_rng().integers(1, undisturbed.steps))

    # Not forked: the threads of torch, which a child of this process would miss, hold its locks.
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=train_and_die, args=(checkpoint, audio, words, tmp_path / "killed", moment))
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    resumed = new_trainer(checkpoint, audio, words, tmp_path / "killed")
    assert resumed.state.step < undisturbed.steps
    assert resumed.run(), f"killed after step {moment}"
    assert_same_training(undisturbed, resumed)


def test_another_training_in_the_same_directory_is_refused(
    checkpoint: Path, audio: AudioCache, words: sf.CrossEntropy, recordings: list, tmp_path: Path
) -> None:
    assert new_trainer(checkpoint, audio, words, tmp_path, epochs=1).run()
    with pytest.raises(sf.ParameterError, match=r"other settings .*Gradual"):
        new_trainer(checkpoint, audio, words, tmp_path, sf.Gradual(), epochs=1)
    with pytest.raises(sf.ParameterError, match=r"other settings .*clip: 1\.0 there, 2\.0 now"):
        new_trainer(checkpoint, audio, words, tmp_path, epochs=1, clip=2.0)
    others = sf.CrossEntropy(sf.Task.of("keyword", labels_of(recordings)[::-1]))
    with pytest.raises(sf.ParameterError, match=r"other settings .*objective"):
        new_trainer(checkpoint, audio, others, tmp_path, epochs=1)


def test_losses_fall_and_the_curves_are_written(
    checkpoint: Path, audio: AudioCache, words: sf.CrossEntropy, tmp_path: Path
) -> None:
    plain = sf.BatchPlan(batch_seconds=6.0)
    rates = sf.Full(rate=1e-3, head_rate=1e-2)
    trainer = new_trainer(checkpoint, audio, words, tmp_path, rates, plan=plain, epochs=12, accumulate=1)
    assert trainer.run()
    table = pd.read_csv(tmp_path / "curves.csv")
    assert table.step.tolist() == list(range(trainer.steps + 1))
    assert table.loss[-5:].mean() < 0.5 * table.loss[1:6].mean()
    assert table.uar.notna().sum() == 13
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_frozen_changes_no_weight_of_the_encoder_and_full_changes_all_blocks(
    checkpoint: Path, audio: AudioCache, words: sf.CrossEntropy, tmp_path: Path
) -> None:
    original = new_model(checkpoint)
    blocks = set(range(1, original.depth + 1))
    learning = {sf.Frozen(): {"head"}, sf.TopBlocks(1, head_epochs=0): {"head", original.depth}}
    learning |= {sf.Full(): {"head", *blocks}, sf.Full(front=True): {"head", *blocks, 0}}
    for number, (regime, expected) in enumerate(learning.items()):
        trainer = new_trainer(checkpoint, audio, words, tmp_path / str(number), regime, epochs=1)
        trainer.run()
        # What training leaves behind, not the best of it, which may be what it began with.
        weights = torch.load(tmp_path / str(number) / "state.pt", weights_only=True)["weights"]
        before = original.state_dict()
        changed = {
            part
            for part, found in original.parts().items()
            if any(name in weights and not torch.equal(weights[name], before[name]) for name, _ in found)
        }
        assert changed == expected
        assert trainer.num_trained == sum(w.numel() for part in expected for _, w in original.parts()[part])


class Scripted(sf.CrossEntropy):
    """Validations as they are told."""

    def __init__(self, *tasks: sf.Task, ranks: Sequence[float]) -> None:
        super().__init__(*tasks)
        self.ranks, self.weights = iter(ranks), []

    def validate(self, model: sf.TransferModel, batches: sf.UtteranceBatches) -> Validation:
        self.weights.append(model.heads["keyword"].linear.weight.clone())
        rank = next(self.ranks)
        return Validation(rank, (rank,))


def test_training_ends_after_patience_with_the_best_weights(
    checkpoint: Path, audio: AudioCache, recordings: list, tmp_path: Path
) -> None:
    objective = Scripted(sf.Task.of("keyword", labels_of(recordings)), ranks=[0.1, 0.5, 0.9, 0.8, 0.9, 0.7])
    trainer = new_trainer(checkpoint, audio, objective, tmp_path, epochs=9, patience=2)
    assert trainer.run()
    assert (trainer.state.ended, trainer.state.epoch, trainer.state.best_epoch) == ("patience", 4, 2)
    assert trainer.state.score == 0.9
    assert torch.equal(trainer.model.heads["keyword"].linear.weight, objective.weights[2])


def test_a_loss_that_is_no_number_is_named(
    checkpoint: Path, audio: AudioCache, words: sf.CrossEntropy, tmp_path: Path
) -> None:
    trainer = new_trainer(checkpoint, audio, words, tmp_path)
    words.of = lambda logits, rows: logits["keyword"].sum() * float("nan")  # type: ignore[method-assign]
    trainer.validation = None
    with pytest.raises(sf.ParameterError, match="the loss became nan at step 1 of Full"):
        trainer.run()


def test_gradients_of_several_batches_make_one_step(
    checkpoint: Path, audio: AudioCache, words: sf.CrossEntropy, tmp_path: Path
) -> None:
    whole = sf.BatchPlan(batch_seconds=100.0, batch_size=12)
    halves = sf.BatchPlan(batch_seconds=100.0, batch_size=6)
    options: dict[str, Any] = {"epochs": 1, "decay": False, "clip": 1e9, "weight_decay": 0.0}
    # Of the head alone: blocks that learn have dropout, which two batches draw twice.
    one = new_trainer(checkpoint, audio, words, tmp_path / "one", sf.Frozen(), plan=whole, accumulate=1, **options)
    two = new_trainer(checkpoint, audio, words, tmp_path / "two", sf.Frozen(), plan=halves, accumulate=2, **options)
    assert one.steps == two.steps == 1
    losses: dict[str, float] = {}
    for trainer in (one, two):
        trainer.run(lambda trainer, loss: losses.update({str(trainer.directory): loss}))
    first, second = losses.values()
    assert first == pytest.approx(second, rel=1e-5)
    moments = zip(one.optimizer.state.values(), two.optimizer.state.values(), strict=True)
    assert all(torch.allclose(a["exp_avg"], b["exp_avg"], atol=1e-6) for a, b in moments)


def test_a_factor_rises_from_where_a_part_begins_and_falls_to_nothing() -> None:
    config = sf.TrainConfig(warmup=0.1)
    whole = [config.factor(step, 100) for step in range(100)]
    late = [config.factor(step, 100, begun=50) for step in range(50, 100)]
    assert whole[0] == pytest.approx(0.1)
    assert np.argmax(whole) in {9, 10}
    assert whole[-1] < 1e-3
    assert late[0] == pytest.approx(0.05)
    assert late[10:] == whole[60:]
    assert sf.TrainConfig(warmup=0, decay=False).factor(99, 100) == 1


def test_labels_that_are_missing_teach_nothing(
    checkpoint: Path, audio: AudioCache, recordings: list[sf.Utterance]
) -> None:
    tasks = [
        sf.Task.of("keyword", labels_of(recordings)),
        sf.Task.of("mood", labels_of(recordings, "mood"), weight=0.5),
    ]
    objective = sf.CrossEntropy(*tasks)
    model = new_model(checkpoint, keyword=2, mood=2)
    model.train_parts(["head", model.depth])
    batch = sf.UtteranceBatches(model.encoder, audio, range(4, 12)).make(0, 0)
    logits = model(batch.inputs)
    known = [place for place, row in enumerate(batch.rows) if row < 8]
    assert 0 < len(known) < len(batch.rows)
    expected = F.cross_entropy(logits["keyword"], torch.tensor(tasks[0].codes[batch.rows]))
    expected = expected + 0.5 * F.cross_entropy(logits["mood"][known], torch.tensor(tasks[1].codes[batch.rows[known]]))
    assert torch.allclose(objective.of(logits, batch.rows), expected)
    unknown = np.full(len(batch.rows), 15)
    objective.of(model(batch.inputs), unknown).backward()
    assert not model.heads["mood"].linear.weight.grad.any()
    assert model.heads["keyword"].linear.weight.grad.any()


def test_balanced_classes_count_the_same() -> None:
    task = sf.Task.of("word", ["a"] * 6 + ["b"] * 2 + [None]).balanced(np.arange(9))
    assert np.allclose(task.class_weights, [2 / 3, 2.0])


def test_a_teacher_is_followed_at_its_temperature() -> None:
    task = sf.Task.of("word", ["a", "b", "c", None])
    rng = np.random.default_rng(0)
    teacher, logits = rng.standard_normal((4, 3)), torch.tensor(rng.standard_normal((4, 3)), requires_grad=True)
    teacher[2] = np.nan
    found = sf.Distilled(task, teacher, temperature=3.0, alpha=0.7, beta=0.2).of({"word": logits}, np.arange(4))
    wanted = torch.tensor(teacher[[0, 1, 3]] / 3).softmax(dim=1)
    kl = (wanted * (wanted.log() - (logits[[0, 1, 3]] / 3).log_softmax(dim=1))).sum() / 3
    hard = F.cross_entropy(logits[:3], torch.tensor([0, 1, 2]))
    assert found.item() == pytest.approx((0.7 * 9 * kl + 0.2 * hard).item(), rel=1e-5)
    same = sf.Distilled(task, np.log(np.full((4, 3), 1 / 3)), alpha=1, beta=0)
    assert same.of({"word": torch.zeros(4, 3)}, np.arange(4)).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(sf.ParameterError, match=r"have the shape \(4, 2\); give \(4, 3\)"):
        sf.Distilled(task, np.zeros((4, 2)))


def test_batches_are_what_their_place_says(checkpoint: Path, audio: AudioCache) -> None:
    encoder = sf.load_encoder(checkpoint, device="cpu", dtype="float32")
    plan = sf.BatchPlan(batch_seconds=2.0, views=(None, jitter), seed=3)
    batches, again = (sf.UtteranceBatches(encoder, audio, range(3, 15), plan) for _ in range(2))
    rows = []
    for place in range(batches.num_batches(1)):
        batch, other = batches.make(1, place), again.make(1, place)
        assert all(torch.equal(one.inputs, two.inputs) for one, two in zip(batch.views, other.views, strict=True))
        assert not torch.equal(batch.views[0].inputs, batch.views[1].inputs)
        for row, inputs, size in zip(batch.rows, batch.inputs.inputs, batch.inputs.sizes, strict=True):
            assert np.array_equal(inputs[:size], encoder.prepare(audio.read(int(row))))
        rows += batch.rows.tolist()
    assert sorted(rows) == list(range(3, 15))
    assert any(
        not np.array_equal(batches.make(0, place).rows, batches.make(1, place).rows) for place in range(len(rows) // 4)
    )


def tune(recordings: list[sf.Utterance], checkpoint: Path, out: Path, **changes: Any) -> sf.Tuning:
    plan = {
        "model": str(checkpoint),
        "layers": "last",
        "validation_share": 0.25,
        "training": sf.TrainConfig(epochs=2),
        "batches": sf.BatchPlan(batch_seconds=6.0),
        **changes,
    }
    labels = {"keyword": labels_of(recordings)}
    return sf.Tuning(
        recordings, labels, out, sf.TuningPlan(**plan), groups=labels_of(recordings, "speaker"), device="cpu"
    )


def test_frozen_is_a_head_on_stored_features(recordings: list, checkpoint: Path, tmp_path: Path) -> None:
    tuning = tune(recordings, checkpoint, tmp_path / "run", regime=sf.Frozen(head_rate=1e-2))
    assert tuning.run()
    tuning.save()
    assert tuning.trainer.state.step > 0
    folder = Path(recordings[0].path).parent
    command = [str(folder), "-o", str(tmp_path / "store"), "-m", str(tmp_path / "run" / "encoder"), "-q"]
    assert extract.main([*command, "-l", "last", "--pool", "mean+std", "--device", "cpu", "--dtype", "float32"]) == 0
    store = sf.Store(tmp_path / "store")
    assert store.config["encoder"]["weights"] == sf.load_encoder(checkpoint, "last", device="cpu").weights
    head = sf.load_head(tmp_path / "run" / "head")
    found = head.probabilities(store, [one.id for one in recordings])
    assert np.allclose(found, tuning.probabilities("keyword", range(16)), atol=1e-5)


def test_the_head_alone_is_fitted_first(recordings: list, checkpoint: Path, tmp_path: Path) -> None:
    tuning = tune(recordings, checkpoint, tmp_path / "run", regime=sf.TopBlocks(1, head_epochs=0))
    validated = tuning.trainer.validation.rows
    speakers = np.array(labels_of(recordings, "speaker"))
    assert not set(speakers[validated]) & set(speakers[tuning.trainer.train.rows])
    frozen = sf.load_encoder(checkpoint, "last", device="cpu", dtype="float32")
    values = frozen.embed([one.path for one in recordings], "mean+std")
    expected = tuning.start["keyword"].predict_proba(values)
    assert np.allclose(tuning.probabilities("keyword", range(16)), expected, atol=1e-5)


def test_several_tasks_are_tuned_and_saved_together(recordings: list, checkpoint: Path, tmp_path: Path) -> None:
    labels = {name: labels_of(recordings, name) for name in ("keyword", "mood")}
    plan = sf.TuningPlan(
        str(checkpoint), "last", sf.TopBlocks(1, head_epochs=0), training=sf.TrainConfig(epochs=1), validation_share=0
    )
    tuning = sf.Tuning(recordings, labels, tmp_path, plan, rows=range(14), device="cpu")
    assert tuning.run()
    tuning.save(note="made")
    for name, classes in (("keyword", ["high", "low"]), ("mood", ["calm", "wild"])):
        head = sf.load_head(tmp_path / f"head-{name}")
        assert head.classes == classes
        assert head.record.training["utterances"] == 14
        assert head.record.scores == {"note": "made"}


def test_mistakes_in_a_tuning_are_named(recordings: list, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(sf.ParameterError, match="16 utterances and 3 labels of 'keyword'"):
        sf.Tuning(recordings, {"keyword": ["a", "b", "c"]}, tmp_path)
    with pytest.raises(sf.ParameterError, match="'keyword' has 1 classes"):
        sf.Tuning(recordings, {"keyword": ["a"] * 16}, tmp_path)
    with pytest.raises(sf.ModelError, match="'logmel' cannot be trained here"):
        tune(recordings, Path("logmel"), tmp_path)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def climb(
    recordings: list,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """The recipe as a command: exit code, standard output and error."""
    table = Path(recordings[0].path).parent / "all.csv"
    corpus = ["--corpus", "manifest", "--root", str(table), "--label", "keyword", "--group", "speaker"]
    training = ["--epochs", "1", "--validation", "0.3", "--device", "cpu", "--dtype", "float32", "-q", "--limit", "2"]
    common = [*corpus, *training, "-m", str(checkpoint), "-o", str(tmp_path)]

    def run(*options: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["transfer_ladder.py", *common, *options])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(REPOSITORY / "recipes" / "transfer_ladder.py"), run_name="__main__")
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def test_the_ladder_is_climbed_once(climb: Run, checkpoint: Path, tmp_path: Path) -> None:
    rungs = ("--rung", "full", "--rate", "full=1e-3", "-l", "last")
    code, first, told = climb(*rungs)
    assert code == 0, told
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["rungs"]) == ["frozen", "full"]
    assert results["rungs"]["full"]["trained"] > results["rungs"]["frozen"]["trained"] > 0
    for row in results["rungs"].values():
        assert 0 <= row["score"]["low"] <= row["score"]["score"] <= row["score"]["high"] <= 1
        assert row["seconds"] > 0
    depth = sf.load_encoder(checkpoint, device="cpu").num_layers
    assert f"| frozen | {depth} |" in first
    assert "Full(rate=0.001" in (tmp_path / "report.md").read_text()
    assert len(list(tmp_path.glob("*/full/fold-*/results.json"))) == 2
    assert not list(tmp_path.rglob("state.pt"))
    # A second run takes what is there, the time that it took included.
    assert climb(*rungs)[1] == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rung", "full", "--rate", "top=1e-3"), "--rate 'top=1e-3' must be RUNG=RATE, as in full=1e-4; the rungs "),
        (("-m", "mfcc"), "-m names 2 encoders; give one"),
        (("--epochs", "0"), "epochs=0 must be at least 1"),
        (("--dtype", "float16"), "dtype='float16' must be auto, float32, bfloat16"),
    ],
)
def test_a_mistake_in_a_ladder_is_one_sentence(climb: Run, options: tuple[str, ...], message: str) -> None:
    code, _, told = climb(*options)
    assert code == 2
    assert f"error: {message}" in told
