"""How many threads encode and read: chosen by what they take, kept by a store, told by the command."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import speechfeat as sf
from speechfeat import batching, threads
from speechfeat.encoders.flights import Flight
from speechfeat.encoders.modules import InTurn, change_class
from speechfeat.encoders.streams import Streams, torch_threads
from speechfeat.errors import AudioError
from speechfeat.extract import main
from speechfeat.planning import Work
from speechfeat.store import Store
from speechfeat.types import Audio, Utterance
from tests.families import CASES
from tests.families.case import Case, speech_like

FOUR = 4


@pytest.fixture(autouse=True)
def _four_threads() -> Any:
    with torch_threads(FOUR):
        yield


class Probed:
    """An encoder whose speed depends on the threads that it takes for an utterance."""

    def __init__(self, speeds: dict[int, float]) -> None:
        self.speeds = speeds
        self.num_threads = FOUR

    def use_threads(self, count: int) -> None:
        self.num_threads = count

    def measure_speed(self) -> float:
        return self.speeds[self.num_threads]


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [
        ({4: 9.0, 2: 8.0, 1: 9.3}, 4),
        ({4: 9.0, 2: 11.0, 1: 10.0}, 2),
        ({4: 1.0, 2: 2.0, 1: 3.0}, 1),
    ],
)
def test_other_threads_are_taken_where_they_are_faster(speeds: dict, expected: int) -> None:
    encoder = Probed(speeds)
    assert threads.fastest_threads(encoder) == speeds[expected]  # type: ignore[arg-type]
    assert encoder.num_threads == expected


def test_threads_that_were_faster_by_chance_are_not_taken() -> None:
    encoder = Probed({4: 9.0, 2: 11.0})
    lucky = iter([9.0, 11.0, 18.0, 11.0])  # what others left of the machine was twice as much for a while
    encoder.measure_speed = lambda: next(lucky)  # type: ignore[method-assign]
    assert threads.fastest_threads(encoder) == 18.0  # type: ignore[arg-type]
    assert encoder.num_threads == FOUR


def begin(streams: Streams, tasks: Sequence[Callable[[], Any]], **options: bool) -> list[Flight]:
    """Flights that land with what the tasks give."""
    return streams.begin([lambda task=task: [Flight([task()])] for task in tasks], **options)


def run(streams: Streams, tasks: Sequence[Callable[[], Any]], **options: bool) -> list[Any]:
    return [flight.land()[0] for flight in begin(streams, tasks, **options)]


def test_fewer_tasks_than_can_run_side_by_side_take_more_threads() -> None:
    streams = Streams(1, FOUR)
    for count, expected in ((0, []), (1, [4]), (2, [2, 2]), (3, [1] * 3), (2, [2, 2])):
        meeting = threading.Barrier(max(1, count), timeout=20)

        def count_threads(meeting: threading.Barrier = meeting) -> int:
            meeting.wait()
            return torch.get_num_threads()

        assert run(streams, [count_threads] * count) == expected
        assert torch.get_num_threads() == FOUR


def test_tasks_that_wait_keep_the_threads_of_those_that_run_few() -> None:
    streams, go_on = Streams(1, FOUR), threading.Event()

    def wait() -> int:
        go_on.wait(20)
        return torch.get_num_threads()

    flights = [*begin(streams, [wait] * 3), *begin(streams, [wait] * 5)]
    go_on.set()
    found = [flight.land()[0] for flight in flights]
    assert found[:5] == [1] * 5
    # Of a task that ran alone every second counts, of four side by side a quarter each.
    (flight,) = begin(streams, [partial(time.sleep, 0.1)])
    flight.land()
    assert flight.seconds >= 0.1
    sleepers = begin(streams, [partial(time.sleep, 0.1)] * FOUR)
    for one in sleepers:
        one.land()
    assert 0.1 <= sum(one.seconds for one in sleepers) < 0.4


def test_a_task_alone_runs_in_the_thread_that_asks() -> None:
    streams, here = Streams(1, 2), threading.get_ident()

    def where() -> tuple[bool, int]:
        return threading.get_ident() == here, torch.get_num_threads()

    assert run(streams, [where], alone=True) == [(True, 2)]
    assert run(streams, [where]) == [(False, 2)]
    assert [in_place for in_place, _ in run(streams, [where] * 2, alone=True)] == [False, False]
    assert run(Streams(3, 1), [where] * 2) == [(True, 3)] * 2
    assert run(Streams(), [where]) == [(True, FOUR)]
    assert torch.get_num_threads() == FOUR


def test_tasks_that_are_cancelled_are_not_begun() -> None:
    streams, go_on, begun = Streams(1, 2), threading.Event(), []

    def wait(number: int) -> int:
        begun.append(number)
        go_on.wait(20)
        return torch.get_num_threads()

    flights = begin(streams, [partial(wait, number) for number in range(9)])
    for flight in flights:
        flight.cancel()
    go_on.set()
    for flight in flights:
        with suppress(CancelledError):
            flight.land()
    assert len(begun) <= 2
    assert run(streams, [partial(wait, 9)]) == [2]  # nothing is waited for any more


def test_large_encoders_run_so_many_utterances_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in CASES if case.encoder().backbone.is_reentrant)
    monkeypatch.setattr("speechfeat.encoders.base.SMALL", 0)
    for most, threads_each, count in ((8, 1, FOUR), (2, 2, 2), (1, FOUR, 1)):
        monkeypatch.setattr("speechfeat.encoders.streams.MOST_LARGE", most)
        encoder = case.encoder()
        assert (encoder.num_threads, encoder.num_streams) == (threads_each, count)


def test_batches_of_large_encoders_and_of_many_layers_are_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in CASES if case.encoder().backbone.is_reentrant)
    one, every = case.encoder(), case.encoder("all")
    assert len(every.selection.indices) > 2
    for small, in_turn in ((10**9, 2), (0, 1)):
        monkeypatch.setattr("speechfeat.encoders.base.SMALL", small)
        for encoder, expected in ((one, in_turn), (every, 1)):
            for threads_each in (1, FOUR):
                encoder.use_threads(threads_each)
                streams = FOUR // threads_each
                assert encoder.default_batch_seconds() == streams * expected * encoder.cpu_batch_seconds


def test_tasks_side_by_side_keep_their_order_and_tell_their_errors() -> None:
    streams = Streams(1, 3)
    meeting = threading.Barrier(3, timeout=20)

    def meet(number: int) -> tuple[int, int]:
        meeting.wait()
        return number, torch.get_num_threads()

    assert run(streams, [partial(meet, number) for number in range(3)]) == [(0, 1), (1, 1), (2, 1)]
    assert torch.get_num_threads() == FOUR
    ended = []

    def fail(number: int) -> None:
        ended.append(number)
        raise ValueError(number)

    for number, flight in enumerate(begin(streams, [partial(fail, number) for number in range(5)])):
        with pytest.raises(ValueError, match=str(number)):
            flight.land()
    assert sorted(ended) == [0, 1, 2, 3, 4]


REENTRANT = [case for case in CASES if case.encoder("all").backbone.is_reentrant]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("case", REENTRANT, ids=lambda case: case.name)
def test_utterances_side_by_side_are_what_they_are_alone(
    case: Case, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not grouped:  # then to the bit
        monkeypatch.setattr(batching, "GROUP_SECONDS", 0.0)
    tolerance = 1e-5 if grouped else 0.0
    clips = speech_like(*[4000 + 777 * number for number in range(12)])
    encoder = case.encoder("all")
    encoder.use_threads(1)
    assert encoder.num_streams == FOUR
    inputs, counts = [encoder.prepare(clip) for clip in clips], [len(clip) for clip in clips]
    alone = [encoder.encode_prepared([one], [count])[0] for one, count in zip(inputs, counts, strict=True)]
    for _ in range(3):
        for found, expected in zip(encoder.encode_prepared(inputs, counts), alone, strict=True):
            assert np.abs(found - expected).max() <= tolerance * expected.std()


class Keeping(torch.nn.Module):
    """Keeps an input for a while before it gives what it kept."""

    kept = 0

    def forward(self, number: int) -> int:
        self.kept = number
        time.sleep(0.01)
        return self.kept


def test_modules_that_keep_something_are_run_in_turn() -> None:
    module = Keeping()
    change_class(module, InTurn)
    numbers = range(3 * FOUR)
    assert run(Streams(1, FOUR), [partial(module, number) for number in numbers]) == [*numbers]
    keeping = [case.encoder().backbone.module for case in REENTRANT if "rotary" in case.name]
    assert len(keeping) > 3 and all(isinstance(one.encoder.embed_positions, InTurn) for one in keeping)


def test_encoders_not_made_for_it_run_one_utterance_at_a_time() -> None:
    (case,) = [case for case in CASES if case.name.startswith("SEWD group")]
    encoder = case.encoder()
    encoder.use_threads(1)
    assert (encoder.num_threads, encoder.num_streams) == (1, 1)


class Slow:
    """A medium that takes its time to read."""

    chunking = sf.Chunking()

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def read(self, work: Work) -> Audio:
        if work.utterance.id == "broken":
            raise AudioError("cannot be decoded")
        time.sleep(self.seconds)
        return Audio(np.zeros(16000, np.float32), 16000)


def works(*names: str) -> list[Work]:
    return [Work(Utterance(name, name), 1.0, 1) for name in names]


def test_readers_keep_up_with_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 8)
    encoder = sf.load_encoder("logmel")
    assert threads.enough_readers(encoder, Slow(0.05), works("a", "b", "c"), speed=1.0) == 1  # type: ignore[arg-type]
    # 0.05 s for a second of audio, with the margin: more than four are needed at 60 times real time.
    found = threads.enough_readers(encoder, Slow(0.05), works("a", "b", "c"), speed=60.0)  # type: ignore[arg-type]
    assert 5 <= found <= 8
    assert threads.enough_readers(encoder, Slow(0.05), works("a", "broken"), speed=1e6) == 8  # type: ignore[arg-type]
    assert threads.enough_readers(encoder, Slow(0.0), works("broken"), speed=1.0) == 8  # type: ignore[arg-type]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(3):
        path = tmp_path / "corpus" / f"{number}.flac"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(16000), 16000)
    return tmp_path / "corpus"


def test_a_resumed_run_rounds_as_the_one_that_began(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speechfeat.threads.WORTH", 0)
    tried = []

    monkeypatch.setattr(sf.Encoder, "num_weights", 1)

    def choose(encoder: sf.Encoder) -> float:
        tried.append(encoder)
        encoder.use_threads(2)
        return 100.0

    monkeypatch.setattr("speechfeat.extracting.fastest_threads", choose)

    def threads_of(config: sf.ExtractConfig | None = None) -> int | None:
        extractor = sf.Extractor(sf.load_encoder("logmel"), config)
        extractor.open(tmp_path / "out", extractor.survey(extractor.discover(corpus))).abort()
        return extractor.encoder.num_threads

    sf.extract_features(corpus, tmp_path / "out", sf.load_encoder("logmel"))
    assert Store(tmp_path / "out").info["threads"] == 2 and len(tried) == 1
    assert threads_of() == 2 and len(tried) == 1
    assert threads_of(sf.ExtractConfig(num_threads=3)) == 3 and len(tried) == 1
    assert threads_of(sf.ExtractConfig(overwrite=True)) == 2 and len(tried) == 2


def test_long_recordings_are_not_read_to_see_how_long_that_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 8)
    long = [Work(Utterance("long", "long"), 3600.0, 1)]
    refusing = Slow(0.0)
    monkeypatch.setattr(refusing, "read", lambda _work: pytest.fail("was read"))
    assert threads.enough_readers(sf.load_encoder("logmel"), refusing, long, speed=1.0) == 8  # type: ignore[arg-type]


def test_the_command_tells_and_takes_both_numbers(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(corpus), "-m", "logmel", "-q"]
    assert main([*arguments, "-o", str(tmp_path / "one"), "--threads", "3", "-j", "5"]) == 0
    assert "on cpu (3 threads), batches of 60 s, 5 readers" in capsys.readouterr().err
    assert torch.get_num_threads() == FOUR
    assert main([*arguments, "-o", str(tmp_path / "two")]) == 0
    assert "on cpu (1 thread), batches" in capsys.readouterr().err
    with pytest.raises(sf.ParameterError, match="num_threads=0 must be a number above 0"):
        main([*arguments, "-o", str(tmp_path / "three"), "--threads", "0"])
