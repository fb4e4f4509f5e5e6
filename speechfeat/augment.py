"""`python -m speechfeat.augment audio_dir -o preview`: a few recordings and their augmented copies, to listen to."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import soundfile

from speechfeat.arguments import add_input, check_input, read_settings
from speechfeat.audio import read_audio
from speechfeat.augmentation import KINDS, Augmentation, augmented_copy, copies_of, read_augmentation
from speechfeat.cli import EXIT_FAILED_INPUTS, EXIT_OK, main_with_errors, tell
from speechfeat.corpus import discover
from speechfeat.errors import AudioError, ParameterError
from speechfeat.store_config import disk_errors, write_text
from speechfeat.types import Utterance

CONFIG_JSON = "augmentation.json"
# As training hears it: 16 bits would clip what is beyond full scale.
SUBTYPE = "FLOAT"

EPILOG = f"""
kinds: {", ".join(KINDS)}

examples:
  python -m speechfeat.augment recordings -o preview --preview 5
  python -m speechfeat.augment recordings -o preview --only noise,telephone --set noise_ratio=10,10
  python -m speechfeat.augment recordings -o preview --set noise=1 --set noise_source=musan/noise --copies 3
"""


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    result = argparse.ArgumentParser(
        prog="python -m speechfeat.augment",
        description="Write a few recordings and their augmented copies, and the configuration, to listen to.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_input(result)
    result.add_argument("-o", "--out", type=Path, required=True, help="directory of the files")
    result.add_argument("--preview", type=int, default=5, metavar="N", help="recordings to take (default: %(default)s)")
    result.add_argument("--copies", type=int, default=1, help="of each (default: %(default)s)")
    result.add_argument("--config", metavar="FILE", help=f"a configuration, such as the {CONFIG_JSON} of another run")
    result.add_argument("--only", metavar="KINDS", help="these kinds of dirt always, and no others, as in noise,room")
    result.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="NAME=VALUE", help="a field; again for more"
    )
    result.add_argument("--seed", type=int, help="of the copies; the same gives the same")
    result.add_argument("--sample-rate", type=int, default=16000, help="in Hz (default: %(default)s)")
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code."""
    command = parser()
    options = command.parse_args(arguments)
    if options.input is None:
        command.error("give a directory, recording, list or manifest to take recordings from")
    check_input(options.input)
    augmentation = _augmentation(options)
    if options.preview < 1:
        raise ParameterError(f"--preview {options.preview} must be at least 1")
    suffixes = options.ext.split(",") if options.ext else None
    utterances = discover(options.input, suffixes=suffixes, root=options.root)
    # All over the corpus, not the first speaker alone.
    places = np.linspace(0, len(utterances) - 1, min(options.preview, len(utterances)), dtype=int)
    with disk_errors(f"make {options.out}"):
        options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / CONFIG_JSON, json.dumps(augmentation.describe(), indent=2) + "\n")
    failed = [place for place in places if not _write(utterances[place], int(place), augmentation, options)]
    tell(f"{len(places) - len(failed)} recordings with {options.copies} copies each in {options.out}")
    return EXIT_FAILED_INPUTS if failed else EXIT_OK


def _augmentation(options: argparse.Namespace) -> Augmentation:
    """What the options ask for, all fields at once, so that one may need another."""
    described = read_augmentation(options.config).describe() if options.config else {}
    if options.only is not None:
        kinds = options.only.split(",")
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            raise ParameterError(f"--only has no {unknown[0]!r}; the kinds are {', '.join(KINDS)}")
        described |= {**dict.fromkeys(KINDS, 0.0), **dict.fromkeys(kinds, 1.0)}
    # Other voices are those of the corpus itself, unless others are named.
    described = {"voices": options.input} | described | read_settings(options.settings, "--set", "noise=0.5")
    described["sample_rate"] = options.sample_rate
    return Augmentation.of(described if options.seed is None else described | {"seed": options.seed})


def _write(utterance: Utterance, place: int, augmentation: Augmentation, options: argparse.Namespace) -> bool:
    """A recording and its copies as files; whether it could be read."""
    rate = options.sample_rate
    try:
        samples = read_audio(utterance.path, rate, utterance.channel, utterance.start, utterance.duration).samples
    except AudioError as error:
        tell(f"left out: {error}")
        return False
    name = f"{place:05d}-{Path(utterance.path).stem}"
    found = {f"{name}-0.wav": samples}
    for copy in copies_of([utterance], options.copies):
        found[f"{name}-{copy.copy}.wav"] = augmented_copy(samples, copy, augmentation, rate)
    for file, values in found.items():
        with disk_errors(f"write {options.out / file}"):
            soundfile.write(options.out / file, values, rate, subtype=SUBTYPE)
    return True


if __name__ == "__main__":
    sys.exit(main_with_errors(main))
