"""`python -m speechfeat.extract_text texts`: features of lines, tables or transcripts, into a store."""

import argparse
import sys
from typing import Any

from speechfeat.arguments import (
    add_batches,
    add_layers,
    add_loading,
    add_part,
    add_storing,
    add_telling,
    batch_options,
    check_input,
    loading_options,
    storing_options,
)
from speechfeat.cli import EXIT_OK, main_with_errors, tell
from speechfeat.config import TextConfig
from speechfeat.encoders.catalog import TEXT
from speechfeat.memory import importing
from speechfeat.reporting import extract_found

INPUT = "a text file (a line each), a CSV/TSV/JSONL table, Kaldi's text, or a directory of .txt files"

EPILOG = """
exit codes: 0 all done; 3 done, but some inputs failed (see OUT/errors.jsonl); 2 a bad call; 1 the run could not go on;
130 interrupted. The same command goes on where a run was stopped, however it was stopped.

examples:
  python -m speechfeat.extract_text sentences.txt -o text_features -m all-MiniLM-L6-v2 -l last
  python -m speechfeat.extract_text corpus.tsv -o text_features -m ./checkpoint --text-column sentence --pool cls
  python -m speechfeat.extract_text data/text -o text_features -m openai-community/gpt2 --pool last_token --shard 1/8
"""


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    result = argparse.ArgumentParser(
        prog="python -m speechfeat.extract_text",
        description="Hidden states of text encoders and pooled embeddings, exact in any batch. A manifest of "
        "recordings gives the ids that speechfeat.extract gives, so that speech and text join.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    result.add_argument("input", nargs="?", help=INPUT)
    result.add_argument("-o", "--out", default="text_features", help="directory of the store (default: %(default)s)")
    result.add_argument("--text-column", help="of a table (default: text, sentence, transcript ...)")
    result.add_argument("--skip-empty", action="store_true", help="leave out rows without text, not fail on them")
    encoder = result.add_argument_group("encoder")
    encoder.add_argument("-m", "--model", help="catalogue name, hub id (owner/name) or checkpoint directory")
    add_layers(encoder)
    add_loading(encoder)
    _add_output(result)
    running = result.add_argument_group("running")
    add_batches(running, "tokens", "tokens")
    add_part(running)
    add_telling(running)
    return result


def _add_output(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group("features")
    group.add_argument(
        "--pool",
        default="mean",
        help="mean, std, mean+std, max, first, last, cls, last_token, none (default: %(default)s)",
    )
    group.add_argument("--keep-special", action="store_true", help="let the pooling see special tokens")
    add_storing(group)
    group.add_argument("--window", type=int, help="tokens encoded together (default: what the model was made for)")
    group.add_argument("--overlap", type=int, help="tokens that neighbouring windows of a long text share")
    group.add_argument("--truncate", action="store_true", help="keep the first window of a long text only")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code."""
    command = parser()
    options = command.parse_args(arguments)
    if options.list_models:
        print("\n".join(TEXT.lines()))
        return EXIT_OK
    if options.list_layers:
        return _list_layers(options)
    if options.input is None:
        command.error("give a text file, table or directory to extract from")
    if options.model is None:
        command.error("give an encoder of texts (-m): a catalogue name (--list-models), hub id or checkpoint directory")
    return _extract(options)


def _list_layers(options: argparse.Namespace) -> int:
    from speechfeat.encoders.describing import describe_text_layers

    options.model, options.layers = options.list_layers, "all"
    print(describe_text_layers(_load(options)))
    return EXIT_OK


def _load(options: argparse.Namespace) -> Any:
    with importing():
        from speechfeat.encoders.text_loading import load_text_encoder

    return load_text_encoder(options.model, options.layers, **loading_options(options))


def _extract(options: argparse.Namespace) -> int:
    config = TextConfig(  # a bad option is told before anything is loaded
        pool=options.pool,
        keep_special=options.keep_special,
        window=options.window,
        overlap=options.overlap,
        truncate=options.truncate,
        **storing_options(options),
        **batch_options(options, "tokens"),
    )
    check_input(options.input, INPUT)
    with importing():
        from speechfeat.text_extraction import TextExtractor

    extractor = TextExtractor(_load(options), config)
    utterances = extractor.discover(options.input, text_column=options.text_column, skip_empty=options.skip_empty)
    tell(f"{len(utterances)} texts in {options.input}; tokenizing them")
    return extract_found(extractor, extractor.survey(utterances), options)


if __name__ == "__main__":
    sys.exit(main_with_errors(main))
