"""`python -m speechfeat.predict HEAD audio_dir -o out.csv`: what a saved head says of new recordings."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from speechfeat.arguments import (
    add_batches,
    add_channel,
    add_input,
    add_loading,
    add_telling,
    batch_options,
    check_input,
    loading_options,
    read_channel,
)
from speechfeat.cli import EXIT_FAILED_INPUTS, EXIT_INTERRUPTED, EXIT_OK, main_with_errors, stopping, tell
from speechfeat.config import ExtractConfig
from speechfeat.errors import ParameterError
from speechfeat.memory import importing
from speechfeat.reporting import duration_words, find_inputs, run_shown
from speechfeat.store_config import disk_errors, write_text

if TYPE_CHECKING:
    import pandas as pd

    from speechfeat.extraction import Extractor
    from speechfeat.heads.base import Head
    from speechfeat.planning import Survey
    from speechfeat.running import Summary
    from speechfeat.store import Store

SUFFIXES = (".csv", ".tsv", ".jsonl")
STDOUT = "-"

EPILOG = """
columns: id, path, label (the answer), probability (of it), p_CLASS for every class; of a head that detects keywords:
id, path, label, probability, start, end (seconds of the recording), a row a keyword found.

exit codes: 0 all done; 3 done, but some inputs failed (see OUT.errors.jsonl); 2 a bad call; 1 the run could not go on;
130 interrupted. With --features the same command goes on where it was stopped.

examples:
  python -m speechfeat.predict runs/emotion/head recordings -o emotions.csv
  python -m speechfeat.predict runs/digits/detector meeting.wav --threshold 0.8
  python -m speechfeat.predict runs/emotion/head --info
"""


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    result = argparse.ArgumentParser(
        prog="python -m speechfeat.predict",
        description="What a saved head says of recordings: labels with probabilities, or keywords with their times.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    result.add_argument("head", help="the directory that the head was saved to")
    add_input(result)
    result.add_argument(
        "-o", "--out", default=STDOUT, help="file, .csv, .tsv or .jsonl; - for CSV on standard output (default)"
    )
    result.add_argument("--info", action="store_true", help="print what the head is and end; with --json as JSON")
    group = result.add_argument_group("answers")
    group.add_argument(
        "--threshold",
        type=float,
        help="no label where the probability is lower; detections of a lower one are left out (default: the head's)",
    )
    group.add_argument(
        "--top-k", type=int, metavar="K", help="the K likeliest labels instead of a column for every class"
    )
    group.add_argument(
        "--tta",
        type=int,
        default=0,
        metavar="N",
        help="average over N augmented copies of each recording, too (crop, speed, noise, level): N + 1 times the work",
    )
    group = result.add_argument_group("encoder")
    group.add_argument("-m", "--model", help="where the encoder is now, if not where it was when the head was trained")
    add_loading(group)
    group = result.add_argument_group("features")
    group.add_argument("--features", metavar="DIR", help="keep them in this store, and take from it what it has")
    add_channel(group)
    group = result.add_argument_group("running")
    add_batches(group)
    add_telling(group)
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code."""
    command = parser()
    options = command.parse_args(arguments)
    if options.input is None and not options.info:
        command.error("give a directory, recording, list or manifest to apply the head to, or --info")
    if not options.info:
        _check(options)
    with importing():
        from speechfeat.heads.opening import load_head

    head = load_head(options.head)
    if options.info:
        print(json.dumps(asdict(head.record), indent=2, ensure_ascii=False) if options.json else _describe(head))
        return EXIT_OK
    return _predict(head, options)


def _check(options: argparse.Namespace) -> None:
    """Refuse a bad call before anything is loaded."""
    out = Path(options.out)
    if options.out == STDOUT and options.json:
        raise ParameterError("--json prints a summary where -o - prints the answers; give -o FILE for these")
    if options.out != STDOUT and out.suffix.lower() not in SUFFIXES:
        raise ParameterError(f"-o {options.out!r} must end in {', '.join(SUFFIXES)}, or be - for standard output")
    if out.is_dir():
        raise ParameterError(f"-o {options.out!r} is a directory; give a file")
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise ParameterError(f"--threshold {options.threshold} must be a probability, from 0 to 1")
    if options.top_k is not None and options.top_k < 1:
        raise ParameterError(f"--top-k {options.top_k} must be at least 1")
    if options.tta < 0:
        raise ParameterError(f"--tta {options.tta} must be at least 0")
    check_input(options.input)


def _predict(head: "Head", options: argparse.Namespace) -> int:
    with importing():
        from speechfeat.augmentation import MILD, copies_of
        from speechfeat.detection import Listening
        from speechfeat.extraction import Extractor
        from speechfeat.store import Store

    detects = Listening.of(head) is not None
    for name in ("top_k", "tta"):
        if detects and getattr(options, name):
            raise ParameterError(
                f"--{name.replace('_', '-')} is for heads with one answer a recording; this one detects keywords"
            )
    binding = head.record.binding
    config = ExtractConfig(
        pool=binding.pool,
        frames=detects or binding.pool == "none",
        channel=read_channel(options.channel),
        **batch_options(options),
    )
    encoder = binding.open_encoder(options.model, **loading_options(options))
    extractor = Extractor(encoder, config)
    found = find_inputs(extractor, options)
    with _folder(options.features) as folder:
        summary = _run(extractor, found, folder, options)
        if summary.interrupted:
            return _tell_interrupted(options.features)
        store, copies = Store(folder), None
        failures = _failures(store, found)
        done = [work.utterance for work in found.works if work.utterance.id in store]
        if options.tta:
            extractor = Extractor(encoder, replace(config, augmentation=MILD))
            copied = extractor.survey(copies_of(done, options.tta))
            beside = folder.with_name(f"{folder.name}-copies{options.tta}")
            if _run(extractor, copied, beside, options).interrupted:
                return _tell_interrupted(options.features)
            copies = Store(beside)
            failures += _failures(copies, copied)
        answers = _answers(head, store, [utterance.id for utterance in done], copies, options)
    _write(answers, options.out)
    _write_failures(failures, options.out)
    return _report(summary, len(answers), len(failures), options)


def _run(extractor: "Extractor", found: "Survey", folder: Path, options: argparse.Namespace) -> "Summary":
    with stopping(extractor.stop):
        return run_shown(extractor, found, folder, quiet=options.quiet)


def _tell_interrupted(features: str | None) -> int:
    if features is None:
        tell("interrupted; nothing is kept, but with --features DIR the same command would go on from here")
    else:
        tell("interrupted; what was done is kept, and the same command goes on from here")
    return EXIT_INTERRUPTED


@contextmanager
def _folder(kept: str | None) -> Iterator[Path]:
    """Of the features: where they are to be kept, or one that goes away."""
    if kept is not None:
        yield Path(kept)
        return
    with TemporaryDirectory(prefix="speechfeat-") as folder:
        yield Path(folder) / "features"


def _failures(store: "Store", found: "Survey") -> list[dict[str, str]]:
    """Of these inputs; a store that is kept may know of others."""
    asked = {work.utterance.id for work in found.works} | {utterance.id for utterance, _ in found.failures}
    return [failure for failure in store.errors() if failure["id"] in asked]


def _answers(
    head: "Head", store: "Store", ids: list[str], copies: "Store | None", options: argparse.Namespace
) -> "pd.DataFrame":
    """The table that is written."""
    from speechfeat.detection import Listening, detect
    from speechfeat.heads.base import average_copies

    if Listening.of(head) is not None:
        answers = detect(head, store, ids, threshold=options.threshold).round({"start": 3, "end": 3})
    else:
        shares = head.probabilities(store, ids) if copies is None else average_copies(head, store, copies, ids)
        answers = head.tabulate(ids, shares)
        if options.top_k is not None:
            answers = _likeliest(head.classes, answers, options.top_k)
        if options.threshold is not None:
            answers["label"] = answers["label"].where(answers["probability"] >= options.threshold, None)
    paths = store.table().set_index("id")["path"]
    answers.insert(1, "path", paths.reindex(answers["id"]).to_numpy())
    return answers


def _likeliest(classes: list[str], answers: "pd.DataFrame", count: int) -> "pd.DataFrame":
    """The `count` likeliest of every row: label, probability, label_2, probability_2, ..."""
    import pandas as pd

    shares = answers[[f"p_{name}" for name in classes]].to_numpy()
    order = np.argsort(-shares, axis=1, kind="stable")[:, :count]
    columns = {"id": answers["id"]}
    for rank in range(order.shape[1]):
        suffix = f"_{rank + 1}" if rank else ""
        columns[f"label{suffix}"] = np.array(classes, dtype=object)[order[:, rank]]
        columns[f"probability{suffix}"] = np.take_along_axis(shares, order[:, rank : rank + 1], axis=1)[:, 0]
    return pd.DataFrame(columns)


def _write(answers: "pd.DataFrame", out: str) -> None:
    suffix = ".csv" if out == STDOUT else Path(out).suffix.lower()
    if suffix == ".jsonl":
        rows = answers.astype(object).where(answers.notna(), None).to_dict("records")
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        text = answers.to_csv(
            index=False, sep="\t" if suffix == ".tsv" else ",", float_format="%.6g", lineterminator="\n"
        )
    if out == STDOUT:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        with disk_errors(f"make {Path(out).parent}"):
            Path(out).parent.mkdir(parents=True, exist_ok=True)
        write_text(Path(out), text)


def _error_file(out: str) -> Path:
    return Path(out + ".errors.jsonl")


def _write_failures(failures: list[dict[str, str]], out: str) -> None:
    """A line a failure, beside the answers; none is left of an earlier run."""
    if out == STDOUT:
        return
    if failures:
        write_text(_error_file(out), "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in failures))
    else:
        with disk_errors(f"remove {_error_file(out)}"):
            _error_file(out).unlink(missing_ok=True)


def _report(summary: "Summary", num_rows: int, num_failed: int, options: argparse.Namespace) -> int:
    known = f", {summary.already} were in {options.features} already" if summary.already else ""
    where = "above" if options.out == STDOUT else _error_file(options.out)
    failed = f", {num_failed} failed (see {where})" if num_failed else ""
    tell(
        f"{summary.done} utterances done ({summary.hours:.2f} h in {duration_words(summary.seconds)}, "
        f"{summary.x_real_time:.1f} x real time){known}{failed}; {num_rows} rows"
        + ("" if options.out == STDOUT else f" in {options.out}")
    )
    if options.json:
        told = {**vars(summary), "failed": num_failed, "x_real_time": summary.x_real_time}
        print(json.dumps({**told, "rows": num_rows, "out": options.out}))
    return EXIT_FAILED_INPUTS if num_failed else EXIT_OK


def _describe(head: "Head") -> str:
    """What a head is, a line a fact."""
    record, binding = head.record, head.record.binding
    lines = {
        "kind": record.kind,
        "task": f"{record.task}: {', '.join(record.classes)}",
        "encoder": f"{binding.model} (family {binding.encoder['family']}, {binding.encoder['num_layers']} layers, "
        f"{binding.encoder['dim']} dimensions, weights {binding.encoder['weights']})",
        "layers": ", ".join(map(str, binding.layers)),
        "pooling": "of frames, by the head" if binding.pool == "none" else binding.pool,
        # How the classifier is stored says nothing to people.
        **{name: _words(value) for name, value in record.options.items() if name != "pipeline"},
        **{f"trained on {name}": _words(value) for name, value in record.training.items()},
        **{f"score {name}": _words(value) for name, value in record.scores.items()},
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:{width}}  {value}" for name, value in lines.items())


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main_with_errors(main))
