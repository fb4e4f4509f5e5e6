"""Distil a small FastConformer-CTC from a large speech encoder: how `conformer-s` was made.

    python recipes/distill_encoder.py common_voice_en.tsv common_voice_multi.tsv -o conformer-s \
        --teacher path/to/whisper-tiny.en-encoder --short-window --taps 1:1,4:2,7:3,8:4 --clean-taps 1 \
        --speaker-vectors common_voice_speaker_embeddings.npz --speaker-blocks 2,3 --transcripts --steps 12000

Manifests have the columns path and, where known, speaker and text. Frames of the teacher's layers, and their mean and
deviation over time, are regressed from blocks of the student (`--taps block:layer`), speaker vectors from the mean and
deviation of lower blocks, transcripts by CTC from the last. The student hears noise, rooms, other voices, other speeds
and short stretches; its targets are those of the clean recording. That takes level and channel out of a block, and with
them much of the speaker: `--clean-taps` names blocks that learn from clean copies alone. Stop it at any time and give
the same command again: it goes on, to the weights of an undisturbed run (on a CPU to the bit).

OUT/model is the checkpoint (`-m OUT/model` for every command), OUT/losses.png its history, OUT/report.json its figures
on speakers kept out, OUT/held_out.csv the list of those. `--student` takes a directory with another config.json and
preprocessor_config.json.
"""

import argparse
import json
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from tqdm import tqdm

import speechfeat as sf


def read_arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", nargs="+", help="CSV, TSV, JSONL or directories")
    parser.add_argument("-o", "--out", required=True, type=Path, help="directory of the run")
    parser.add_argument("--teacher", help="name, hub id or checkpoint directory; none learns without frames")
    parser.add_argument(
        "--short-window", action="store_true", help="run a Whisper teacher on the recording's own length"
    )
    parser.add_argument("--taps", default="2:1,4:2,7:3,8:4", help="student block:teacher layer, ... (%(default)s)")
    parser.add_argument("--clean-taps", default="", help="blocks of them that learn from clean copies alone")
    parser.add_argument("--crop", type=float, default=0.5, help="share of which a short stretch is taken (%(default)s)")
    parser.add_argument("--clean", type=float, default=0.3, help="share that is heard as it is (%(default)s)")
    parser.add_argument("--student", default="conformer-s", help="configuration to begin from (%(default)s)")
    parser.add_argument("--speaker-vectors", metavar="NPZ", help="arrays path and embedding")
    parser.add_argument("--speaker-blocks", default="2,3", help="blocks that learn them (%(default)s)")
    parser.add_argument("--transcripts", action="store_true", help="learn the column text by CTC, English letters")
    parser.add_argument("--held-out", type=float, default=0.1, help="share of the speakers kept out (%(default)s)")
    parser.add_argument("--limit", type=int, help="the most recordings, spread over the corpus")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=60.0, help="of training (%(default)s)")
    length.add_argument("--steps", type=int, help="of training, whatever time they take")
    parser.add_argument("--batch-seconds", type=float, default=60.0, help="of audio in a step (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=2.5e-3, help="the highest (%(default)s)")
    parser.add_argument("--pooled-weight", type=float, default=1.0, help="beside 1 for each tap (%(default)s)")
    parser.add_argument("--speaker-weight", type=float, default=0.15, help="beside 1 for each tap (%(default)s)")
    parser.add_argument("--ctc-weight", type=float, default=0.05, help="beside 1 for each tap (%(default)s)")
    parser.add_argument(
        "--dirt", type=float, default=1.0, help="factor to the augmentation's probabilities; 0 for none"
    )
    parser.add_argument("--checkpoint-minutes", type=float, default=4.0, help="between checkpoints (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (%(default)s)")
    parser.add_argument("--dtype", default="auto", help="of matrix products: auto, float32, bfloat16 (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--float32", action="store_true", help="write the weights in float32 instead of float16")
    return parser.parse_args()


def make_plan(options: argparse.Namespace) -> sf.DistillPlan:
    """What the options ask for."""
    return sf.DistillPlan(
        sources=[str(Path(source).absolute()) for source in options.manifests],
        teacher=options.teacher,
        student=options.student,
        teacher_options={"short_window": True} if options.short_window else {},
        vectors=options.speaker_vectors,
        letters=sf.ENGLISH if options.transcripts else "",
        held_out=options.held_out,
        limit=options.limit,
        steps=options.steps,
        minutes=options.minutes,
        tasks=sf.Tasks(
            taps=read_taps(options.taps) if options.teacher else {},
            clean_taps=read_blocks("--clean-taps", options.clean_taps) if options.clean_taps else (),
            speaker_blocks=read_blocks("--speaker-blocks", options.speaker_blocks) if options.speaker_vectors else (),
            pooled_weight=options.pooled_weight,
            speaker_weight=options.speaker_weight,
            ctc_weight=options.ctc_weight,
        ),
        batches=sf.BatchConfig(
            batch_seconds=options.batch_seconds,
            crop=options.crop,
            clean=options.clean,
            augmentation=sf.Augmentation().scaled(options.dirt),
            spec_augment=min(1.0, 0.5 * options.dirt),
            seed=options.seed,
        ),
        training=sf.DistillConfig(
            learning_rate=options.learning_rate,
            dtype=options.dtype,
            checkpoint_seconds=60 * options.checkpoint_minutes,
            seed=options.seed,
        ),
    )


def read_taps(text: str) -> dict[int, int]:
    """`2:1,4:2` as a mapping.

    Raises:
        ParameterError: if it is not of that form.
    """
    try:
        return {int(block): int(layer) for block, layer in (pair.split(":") for pair in text.split(","))}
    except ValueError:
        raise sf.ParameterError(f"--taps {text!r} must be student block:teacher layer, ..., as in 2:1,4:2") from None


def read_blocks(option: str, text: str) -> tuple[int, ...]:
    """`2,3` as numbers.

    Raises:
        ParameterError: if it is not of that form.
    """
    try:
        return tuple(int(block) for block in text.split(","))
    except ValueError:
        raise sf.ParameterError(f"{option} {text!r} must be student blocks, as in 2,3") from None


def train(distiller: sf.Distiller) -> None:
    """Run to the end with a progress bar; Ctrl-C stops after the step in flight, saved."""
    stop = threading.Event()
    with sf.stopping(stop), tqdm(total=distiller.steps, initial=distiller.step, unit="step") as bar:

        def show(_: sf.Distiller, losses: object) -> None:
            bar.set_postfix_str(f"loss {losses.total.item():.3f}", refresh=False)
            bar.update()

        if not distiller.run(show, stop):
            raise KeyboardInterrupt


def draw(history: list[dict], file: Path) -> None:
    """The losses over the steps, smoothed."""
    figure, axes = plt.subplots(figsize=(8, 5))
    width = max(1, len(history) // 100)
    for name in history[0]:
        points = [(row["step"], row[name]) for row in history if name != "step" and row[name] is not None]
        groups = [points[first : first + width] for first in range(0, len(points), width)]
        if groups:
            xs, ys = zip(*((group[-1][0], sum(y for _, y in group) / len(group)) for group in groups), strict=True)
            axes.plot(xs, ys, label=name)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def table(report: sf.DistillReport) -> str:
    """The figures by block."""
    blocks = sorted({*report.cosine, *report.speaker_cosine, *(report.equal_error_rates or {})})
    lines = [
        "| block | cosine to teacher | cosine to speaker vector | speaker EER, 95 % interval |",
        "|---|---|---|---|",
    ]
    for block in blocks:
        cells = (report.cosine.get(block), report.speaker_cosine.get(block))
        shown = ["-" if cell is None else f"{cell:.3f}" for cell in cells]
        error = (report.equal_error_rates or {}).get(block)
        shown.append("-" if error is None else "{:.1f} ({:.1f}-{:.1f}) %".format(*(100 * value for value in error)))
        lines.append(f"| {block} | {' | '.join(shown)} |")
    lines.append(f"\n{report.num_utterances} utterances of speakers kept out")
    for lang, rate in report.error_rates.items():
        lines.append(f"character error rate {100 * rate:.1f} % on {report.num_transcripts[lang]} transcripts {lang}")
    return "\n".join(lines)


def main() -> int:
    """Distil, draw, report, export."""
    options = read_arguments()
    distillation = sf.Distillation(make_plan(options), options.out, options.device)
    train(distillation.distiller)
    distillation.export(options.out / "model", dtype="float32" if options.float32 else "float16")
    draw(distillation.distiller.history, options.out / "losses.png")
    if not distillation.corpus.held_out:
        print("no speaker was kept out (column speaker, --held-out), so there is no report")
    else:
        distillation.list_held_out(options.out / "held_out.csv")
        report = distillation.evaluate()
        (options.out / "report.json").write_text(json.dumps(asdict(report), indent=1) + "\n")
        print(table(report))
    print(f"checkpoint: {options.out / 'model'}")
    return 0


if __name__ == "__main__":
    sys.exit(sf.main_with_errors(main))
