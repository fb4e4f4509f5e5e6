"""What a run will do, before any audio is decoded: durations, batches, shards, and what they will cost."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from speechfeat.audio import AudioInfo, probe
from speechfeat.batching import plan_batches
from speechfeat.corpus import expand_channels
from speechfeat.errors import AudioError, ParameterError
from speechfeat.types import Tokens, Utterance

if TYPE_CHECKING:
    from speechfeat.encoders.base import BaseEncoder

# A shard is what a kill can lose, and one file that a reader opens.
SHARD_BYTES = 128 * 2**20
SHARD_SECONDS = 900.0
SHARD_UTTERANCES = 1024


@dataclass(frozen=True)
class Work:
    """An utterance whose header has been read.

    Attributes:
        utterance: what to read.
        seconds: its length, as the header has it; of a text, its number of tokens.
        size: of the recording's file or of the text, in bytes.
        tokens: of a text.
    """

    utterance: Utterance
    seconds: float
    size: int
    tokens: Tokens | None = None


@dataclass(frozen=True)
class Survey:
    """What was found behind a list of utterances.

    Attributes:
        works: what can be opened, in order of their ids.
        failures: what cannot, and why.
    """

    works: list[Work]
    failures: list[tuple[Utterance, str]]

    @property
    def hours(self) -> float:
        """Hours of audio."""
        return sum(work.seconds for work in self.works) / 3600


def survey(
    utterances: Sequence[Utterance],
    *,
    num_workers: int = 4,
) -> Survey:
    """Read the headers of all recordings, each once.

    Args:
        utterances: from `corpus.discover`; one of all channels becomes one a channel.
        num_workers: threads that read.

    Raises:
        ParameterError: if two utterances have one id.
    """
    paths = sorted({utterance.path for utterance in utterances})
    with ThreadPoolExecutor(max_workers=max(1, num_workers)) as pool:
        headers = dict(zip(paths, pool.map(_header, paths), strict=True))
    works: list[Work] = []
    failures: list[tuple[Utterance, str]] = []
    for utterance in utterances:
        info, size = headers[utterance.path]
        if isinstance(info, str):
            failures.append((utterance, info))
            continue
        rest = max(0.0, info.duration - utterance.start)
        seconds = rest if utterance.duration is None else min(utterance.duration, rest)
        works.extend(Work(one, seconds, size) for one in expand_channels(utterance, info.num_channels))
    return make_survey(works, failures)


def make_survey(works: list[Work], failures: list[tuple[Utterance, str]]) -> Survey:
    """What was found, in order of ids.

    Raises:
        ParameterError: if two utterances have one id.
    """
    works.sort(key=lambda work: work.utterance.id)
    for one, other in pairwise(works):
        if one.utterance.id == other.utterance.id:
            raise ParameterError(
                f"{one.utterance.path!r} and {other.utterance.path!r} have the same id {one.utterance.id!r}; "
                "give each its own"
            )
    return Survey(works, failures)


@dataclass(frozen=True)
class Plan:
    """The order in which works run.

    Attributes:
        shards: of batches of positions in the works.
        batch_seconds: of padded audio in a batch.
    """

    shards: list[list[list[int]]]
    batch_seconds: float


def _header(path: str) -> tuple[AudioInfo | str, int]:
    try:
        return probe(path), os.stat(path).st_size  # noqa: PTH116 - a Path would refuse nothing less
    except AudioError as error:
        return str(error), 0
    except OSError as error:
        return f"cannot be opened: {error.strerror or error}", 0


def plan_shards(
    works: Sequence[Work],
    encoder: "BaseEncoder",
    *,
    batch_seconds: float,
    max_batch_size: int | None,
    bytes_per_second: float,
    shard_seconds: float = SHARD_SECONDS,
) -> Plan:
    """Batches of works, grouped into shards.

    The plan depends on nothing but the works and the arguments: a run that is killed and started again makes the same
    batches, and so the same features to the bit and the same files.

    Args:
        works: all of them, also those that are done already.
        encoder: what they will run on.
        batch_seconds: padded audio in a batch.
        max_batch_size: the most utterances in a batch.
        bytes_per_second: that a second of audio takes in the store.
        shard_seconds: the most audio in a shard.
    """
    batches = plan_batches([encoder.cost(work.seconds) for work in works], batch_seconds, max_batch_size)
    limit = min(shard_seconds, SHARD_BYTES / max(bytes_per_second, 1.0))
    shards: list[list[list[int]]] = []
    seconds = count = 0.0
    for batch in batches:
        added = sum(works[item].seconds for item in batch)
        if not shards or seconds + added > limit or count + len(batch) > SHARD_UTTERANCES:
            shards.append([])
            seconds = count = 0.0
        shards[-1].append(batch)
        seconds, count = seconds + added, count + len(batch)
    return Plan(shards, batch_seconds)
