import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import LasrFeatureExtractor, ParakeetCTCConfig

import speechfeat as sf
from speechfeat.augmentation import FIRST_KINDS
from speechfeat.distillation.corpus import read_corpus
from speechfeat.distillation.model import Student, fold_scale, frame_loss, statistics
from speechfeat.distillation.students import new_student, save_student
from speechfeat.transcripts import Alphabet
from tests.families.case import speech_like


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration without weights."""
    path = tmp_path_factory.mktemp("student")
    ParakeetCTCConfig(
        encoder_config={
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "subsampling_factor": 4,
            "subsampling_conv_channels": 8,
            "num_mel_bins": 80,
        }
    ).save_pretrained(path)
    LasrFeatureExtractor(feature_size=80).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve recordings of six speakers and two unnamed ones, with transcripts and speaker vectors."""
    path = tmp_path_factory.mktemp("recordings")
    rows, paths = ["path\tspeaker\ttext"], []
    for number, clip in enumerate(speech_like(*(16000 + 1201 * step for step in range(14)))):
        paths.append(f"{number:02d}.wav")
        soundfile.write(path / paths[-1], np.clip(clip, -1, 1), 16000)
        rows.append(
            f"{paths[-1]}\t{'' if number >= 12 else f'speaker{number // 2}'}\tabc d'e {'ж' if number == 3 else ''}"
        )
    (path / "corpus.tsv").write_text("\n".join(rows) + "\n")
    vectors = np.random.default_rng(0).standard_normal((14, 8)).astype(np.float32)
    vectors[1::2] = vectors[::2] + 0.1
    np.savez(path / "vectors.npz", path=np.array(paths), embedding=vectors)
    return path / "corpus.tsv"


def make_plan(manifest: Path, configuration: Path, **changes: object) -> sf.DistillPlan:
    plan = sf.DistillPlan(
        sources=[str(manifest)],
        teacher="mfcc",
        student=str(configuration),
        vectors=str(manifest.parent / "vectors.npz"),
        tasks=sf.Tasks(taps={1: 0}, speaker_blocks=(1,)),
        letters=sf.ENGLISH,
        held_out=0.4,
        steps=6,
        batches=sf.BatchConfig(batch_seconds=4.0),
        training=sf.DistillConfig(dtype="float32"),
    )
    return replace(plan, **changes)


def distil(plan: sf.DistillPlan, out: Path, stop_after: int | None = None) -> sf.Distillation:
    distillation = sf.Distillation(plan, out, "cpu", tell=lambda _: None)
    stop = threading.Event()

    def on_step(distiller: sf.Distiller, _: object) -> None:
        if distiller.step == stop_after:
            stop.set()

    finished = distillation.distiller.run(on_step, stop)
    assert finished == (stop_after is None)
    return distillation


def weights(distillation: sf.Distillation) -> dict[str, torch.Tensor]:
    return distillation.distiller.student.state_dict()


@pytest.fixture(scope="module")
def undisturbed(manifest: Path, student: Path, tmp_path_factory: pytest.TempPathFactory) -> sf.Distillation:
    return distil(make_plan(manifest, student), tmp_path_factory.mktemp("undisturbed"))


def test_a_resumed_training_ends_with_the_same_weights(
    undisturbed: sf.Distillation, manifest: Path, student: Path, tmp_path: Path
) -> None:
    plan = make_plan(manifest, student)
    distil(plan, tmp_path, stop_after=2)
    resumed = distil(plan, tmp_path)
    assert [row["step"] for row in resumed.distiller.history] == [1, 2, 3, 4, 5, 6]
    for name, value in weights(undisturbed).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_another_plan_in_the_same_directory_is_refused(
    undisturbed: sf.Distillation, manifest: Path, student: Path, tmp_path: Path
) -> None:
    with pytest.raises(sf.ParameterError, match="is in use by another run"):
        sf.Distillation(make_plan(manifest, student), undisturbed.out, "cpu", tell=lambda _: None)
    out = shutil.copytree(undisturbed.out, tmp_path / "copy")
    with pytest.raises(sf.ParameterError, match=r"other settings .*held_out: 0.4 there, 0.3 now"):
        sf.Distillation(make_plan(manifest, student, held_out=0.3), out, "cpu", tell=lambda _: None)
    with pytest.raises(sf.ParameterError, match=r"other settings .*steps: 6 there, 7 now"):
        sf.Distillation(make_plan(manifest, student, steps=7), out, "cpu", tell=lambda _: None)


def test_options_of_the_augmentation_that_came_later_make_no_other_plan(undisturbed: sf.Distillation) -> None:
    settings = json.loads((undisturbed.out / "plan.json").read_text())["settings"]
    named = {name.rpartition(".")[2] for name in settings if ".augmentation." in name}
    assert named == {*FIRST_KINDS, "sample_rate"}


def test_losses_fall(manifest: Path, student: Path, tmp_path: Path) -> None:
    quiet = sf.BatchConfig(batch_seconds=30.0, crop=0, clean=1)
    training = sf.DistillConfig(dtype="float32", learning_rate=3e-3)
    history = distil(
        make_plan(manifest, student, steps=60, batches=quiet, training=training), tmp_path
    ).distiller.history
    for name in ("loss", "block 1", "block 1 pooled", "speaker", "ctc"):
        assert np.mean([row[name] for row in history[-5:]]) < np.mean([row[name] for row in history[:5]])


def test_minutes_become_steps_that_a_resumed_run_keeps(manifest: Path, student: Path, tmp_path: Path) -> None:
    plan = make_plan(manifest, student, steps=None, minutes=0.01)
    steps = sf.Distillation(plan, tmp_path, "cpu", tell=lambda _: None).distiller.steps
    assert steps >= 1
    again = sf.Distillation(replace(plan, minutes=5.0), tmp_path, "cpu", tell=lambda _: None)
    assert again.distiller.steps == steps == json.loads((tmp_path / "plan.json").read_text())["steps"]


def test_the_report_covers_the_speakers_kept_out(undisturbed: sf.Distillation) -> None:
    report = undisturbed.evaluate()
    corpus = undisturbed.corpus
    assert report.num_utterances == len(corpus.held_out)
    assert report.num_transcripts == {"": len(set(corpus.held_out) & set(corpus.labels))}
    assert set(report.cosine) == set(report.speaker_cosine) == {1}
    assert set(report.equal_error_rates or {}) == {1, 2}
    assert report.error_rates[""] > 0


def test_the_exported_checkpoint_is_an_encoder_like_any_other(undisturbed: sf.Distillation, tmp_path: Path) -> None:
    undisturbed.export(tmp_path / "model", "float32")
    encoder = sf.load_encoder(tmp_path / "model", layers="all", device="cpu", dtype="float32")
    batch = undisturbed._batches(
        undisturbed.corpus.held_out[:1],
        sf.BatchConfig(crop=0, clean=1),
    ).make(0)
    student = undisturbed.distiller.student.eval()
    with torch.no_grad():
        states = student.states(batch.inputs, batch.sizes)
    audio = undisturbed._audio.read(undisturbed.corpus.held_out[0])
    values = encoder.encode([audio])[0].values
    for block, state in states.items():
        assert np.allclose(values[block], state[0].numpy(), atol=1e-5)


def test_corpus_splits_by_speaker_and_leaves_lookalikes_out(manifest: Path) -> None:
    vectors = manifest.parent / "vectors.npz"
    corpus = read_corpus([manifest], alphabet=Alphabet(), vectors=vectors, held_out=0.4)
    speaker = [one.labels.get("speaker") for one in corpus.utterances]
    kept_out = {speaker[number] for number in corpus.held_out}
    assert 0 < len(kept_out) < 6
    assert not kept_out & {speaker[number] for number in corpus.training}
    assert set(corpus.labels) == set(range(14)) - {3}
    # An unnamed recording with the vector of a speaker kept out.
    with np.load(vectors) as archive:
        values = archive["embedding"].copy()
        values[12] = values[corpus.held_out[0]] + values[corpus.held_out[1]]
        np.savez(manifest.parent / "same.npz", path=archive["path"], embedding=values)
    again = read_corpus([manifest], vectors=manifest.parent / "same.npz", held_out=0.4)
    assert 12 in corpus.training
    assert 12 not in again.training
    assert 12 not in again.held_out


def test_more_recordings_move_nobody_between_training_and_held_out(manifest: Path) -> None:
    whole = read_corpus([manifest], held_out=0.4)
    part = read_corpus([manifest], held_out=0.4, limit=9)
    names = {one.id: number in whole.held_out for number, one in enumerate(whole.utterances)}
    assert len(part.utterances) == 9
    assert all(names[one.id] == (number in part.held_out) for number, one in enumerate(part.utterances))


def test_nothing_to_learn_from_is_said(manifest: Path) -> None:
    with pytest.raises(sf.ParameterError, match=r"no recording of 50 to 60 s"):
        read_corpus([manifest], seconds=(50, 60))


def test_targets_follow_the_teacher_in_time(undisturbed: sf.Distillation) -> None:
    teacher = undisturbed._teacher
    frames = teacher.store.frames(teacher.ids[0])
    expected = (frames.values - teacher.mean) / teacher.deviation
    assert np.allclose(teacher.at(0, frames.times, teacher.hop), expected[:, : len(frames.times)], atol=1e-5)
    between = (frames.times[:-1] + frames.times[1:]) / 2
    pairs = teacher.at(0, between, 2 * teacher.hop)
    assert np.allclose(pairs, (expected[:, :-1] + expected[:, 1:]) / 2, atol=1e-4)


def test_frame_loss_ignores_what_is_not_valid_and_is_least_at_the_target() -> None:
    generator = torch.Generator().manual_seed(0)
    wanted, noise = torch.randn(2, 2, 5, 4, generator=generator)
    valid = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    best = frame_loss(wanted, wanted, valid)
    assert best < frame_loss(wanted + 0.1 * noise, wanted, valid)
    assert frame_loss(torch.where(valid[..., None], wanted, noise), wanted, valid) == best


def test_statistics_are_those_of_the_valid_frames() -> None:
    frames = torch.randn(1, 7, 3, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([[True] * 5 + [False] * 2])
    found = statistics(frames, valid)[0]
    assert torch.allclose(found[:3], frames[0, :5].mean(dim=0), atol=1e-6)
    assert torch.allclose(found[3:], frames[0, :5].std(dim=0, correction=0), atol=1e-4)


def test_folding_the_scale_standardises_inside_the_first_convolution(student: Path) -> None:
    model, _ = new_student(student, Alphabet())
    plain, _ = new_student(student, Alphabet())
    fold_scale(model, mean=-6.0, deviation=4.0)
    inputs = torch.randn(1, 1, 40, 80, generator=torch.Generator().manual_seed(0))
    folded = model.encoder.subsampling.layers[0](inputs * 4 - 6)
    expected = plain.encoder.subsampling.layers[0](inputs)
    # Zeros that pad the edges are other values there.
    assert torch.allclose(folded[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": sf.Tasks(taps={3: 0}, speaker_blocks=(1,))}, "no block 3; its blocks are 1 to 2"),
        ({"student": "nowhere/at-all"}, "no student can be made from 'nowhere/at-all'"),
        ({"tasks": sf.Tasks(taps={1: 4}, speaker_blocks=(1,))}, "layer"),
        ({"tasks": sf.Tasks(taps={1: 0})}, "speaker vectors and the blocks that learn them belong together"),
        ({"teacher": None}, "a teacher and taps .* belong together"),
        ({"letters": "xyz"}, "no recording has a transcript in the letters 'xyz'"),
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"limit": -1}, "limit=-1 must be at least 1"),
        ({"student": "mfcc"}, "no student can be made from"),
    ],
)
def test_mistakes_in_a_plan_are_named(
    changes: dict, message: str, manifest: Path, student: Path, tmp_path: Path
) -> None:
    with pytest.raises(sf.SpeechfeatError, match=message):
        sf.Distillation(make_plan(manifest, student, **changes), tmp_path, "cpu", tell=lambda _: None)


def test_half_precision_on_disk_is_the_rounded_weights(student: Path, tmp_path: Path) -> None:
    model, extractor = new_student(student, Alphabet())
    save_student(tmp_path, model, extractor, Alphabet(), torch.float16)
    loaded = sf.load_encoder(tmp_path, dtype="float32", device="cpu").backbone.module
    name = "layers.0.feed_forward1.linear1.weight"
    assert torch.equal(loaded.state_dict()[name], model.encoder.state_dict()[name].half().float())


def test_a_broken_recording_is_named_before_anything_is_learnt(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    (tmp_path / "corpus.csv").write_text("path\nbroken.wav\n")
    with pytest.raises(sf.AudioError, match=r"broken\.wav"):
        read_corpus([manifest, tmp_path / "corpus.csv"])


def test_targets_of_a_segment_are_those_of_its_stretch(manifest: Path, student: Path, tmp_path: Path) -> None:
    (tmp_path / "segments.csv").write_text(f"path,start,end\n{manifest.parent / '13.wav'},0.4,1.6\n")
    plan = make_plan(tmp_path / "segments.csv", student, vectors=None, letters="", tasks=sf.Tasks(taps={1: 0}))
    distillation = sf.Distillation(plan, tmp_path / "out", "cpu", tell=lambda _: None)
    teacher = distillation._teacher
    frames = teacher.store.frames(teacher.ids[0])
    assert frames.times[0] > 0.39
    expected = (frames.values - teacher.mean[0]) / teacher.deviation[0]
    assert np.allclose(teacher.at(0, frames.times - 0.4, teacher.hop)[0], expected, atol=1e-4)


class Ramp:
    """A teacher whose frames are the time itself."""

    def at(self, item: int, times: np.ndarray, hop: float) -> np.ndarray:
        return times[None, :, None]


def test_targets_follow_stretches_and_speed(undisturbed: sf.Distillation) -> None:
    faster = sf.Augmentation(**{**dict.fromkeys(("mix", "room", "noise", "tilt", "band", "gain"), 0.0), "speed": 1.0})
    config = sf.BatchConfig(batch_seconds=3.0, crop=1.0, crop_seconds=(0.5, 0.8), clean=0.0, augmentation=faster)
    batches = undisturbed._batches(undisturbed.corpus.training, config)
    batches.teacher = Ramp()  # type: ignore[assignment]
    batch = batches.make(0)
    for row, example in enumerate(batches.examples(0)):
        times = batch.targets[row, 0, : batch.num_frames[row], 0].float().numpy()
        assert times[0] == pytest.approx(example.start, abs=0.03)
        assert times[-1] == pytest.approx(example.start + example.duration, abs=0.06)
        speed = np.diff(times).mean() / (batches.encoder.grid.hop / batches.encoder.sample_rate)
        assert 0.89 < speed < 1.11


def test_a_stretch_of_an_utterance_has_no_transcript(undisturbed: sf.Distillation) -> None:
    batches = undisturbed._batches(undisturbed.corpus.training, sf.BatchConfig(crop=1.0, crop_seconds=(0.5, 0.6)))
    assert not batches.make(0).label_lengths.any()
    whole = undisturbed._batches(undisturbed.corpus.training, sf.BatchConfig(crop=0.0))
    assert whole.make(0).label_lengths.any()


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_batches_do_not_depend_on_who_makes_them(undisturbed: sf.Distillation, num_workers: int) -> None:
    batches = undisturbed.distiller.batches
    for step, batch in enumerate(batches.stream(2, 5, num_workers), 2):
        expected = batches.make(step)
        assert torch.equal(batch.inputs, expected.inputs)
        assert torch.equal(batch.targets, expected.targets)
        assert torch.equal(batch.labels, expected.labels)


def test_looking_at_a_student_changes_nothing(
    undisturbed: sf.Distillation, manifest: Path, student: Path, tmp_path: Path
) -> None:
    distillation = sf.Distillation(make_plan(manifest, student), tmp_path, "cpu", tell=lambda _: None)
    distillation.distiller.run(lambda distiller, _: distillation.evaluate() if distiller.step == 3 else None)
    for name, value in weights(undisturbed).items():
        assert torch.equal(value, weights(distillation)[name]), name


def test_changed_transcripts_are_another_run(
    undisturbed: sf.Distillation, manifest: Path, student: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(undisturbed.out, tmp_path / "out")
    changed = manifest.with_name("changed.tsv")
    changed.write_text(manifest.read_text().replace("abc", "cab"))
    shutil.copy(manifest, tmp_path / "kept.tsv")
    try:
        shutil.copy(changed, manifest)
        with pytest.raises(sf.ParameterError, match="contents of the files"):
            sf.Distillation(make_plan(manifest, student), out, "cpu", tell=lambda _: None)
    finally:
        shutil.copy(tmp_path / "kept.tsv", manifest)


def test_transcripts_alone_are_enough(manifest: Path, student: Path, tmp_path: Path) -> None:
    plan = make_plan(manifest, student, teacher=None, vectors=None, tasks=sf.Tasks(), steps=2)
    row = distil(plan, tmp_path).distiller.history[-1]
    assert row["speaker"] is None
    assert row["ctc"] > 0


def test_the_rate_rises_and_falls() -> None:
    rates = [sf.DistillConfig(warmup=0.1).rate(step, 100) for step in range(100)]
    assert np.argmax(rates) in {9, 10}
    assert max(rates) == 1
    assert rates[-1] < 0.001
    assert all(rates)


def test_a_preprocessor_that_does_not_fit_is_refused(student: Path, tmp_path: Path) -> None:
    shutil.copytree(student, tmp_path / "student")
    LasrFeatureExtractor(feature_size=64).save_pretrained(tmp_path / "student")
    with pytest.raises(sf.ModelError, match="gives 64 dimensions, its encoder takes 80"):
        new_student(tmp_path / "student", Alphabet())


def test_clean_taps_learn_from_clean_copies_alone(undisturbed: sf.Distillation, student: Path) -> None:
    model, _ = new_student(student, Alphabet())
    batches = undisturbed._batches(undisturbed.corpus.training, sf.BatchConfig(batch_seconds=20.0, clean=0.5))
    batch = batches.make(0)
    assert batch.is_clean.any()
    assert not batch.is_clean.all()
    dim = batch.targets.shape[-1]
    learner = Student(model, sf.Tasks(taps={1: 0, 2: 0}, clean_taps=(1,)), dim).eval()
    before = learner.losses(batch).frames
    dirty = batch.targets.clone()
    dirty[~batch.is_clean] += 1
    after = learner.losses(batch._replace(targets=dirty)).frames
    assert after[1] == before[1]
    assert after[2] != before[2]
