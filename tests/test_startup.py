"""What a process that has just begun spends its time on."""

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from speechfeat.memory import importing


class Node:
    """Refers to itself, so that only the collector can free it."""

    def __init__(self) -> None:
        self.own = self


@pytest.fixture
def collector() -> Iterator[None]:
    """The collector as it was, whatever a test does to it."""
    enabled = gc.isenabled()
    yield
    gc.unfreeze()
    (gc.enable if enabled else gc.disable)()


@pytest.mark.usefixtures("collector")
def test_garbage_made_while_importing_is_found_later() -> None:
    gc.enable()
    with importing():
        assert not gc.isenabled()
        garbage = weakref.ref(Node())
        with importing():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert garbage() is not None
    gc.collect()
    assert garbage() is None


@pytest.mark.usefixtures("collector")
def test_an_import_that_fails_leaves_the_collector_on() -> None:
    gc.enable()
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()


@pytest.mark.usefixtures("collector")
def test_a_policy_of_the_caller_stays() -> None:
    gc.disable()
    with importing():
        pass
    assert not gc.isenabled()
    gc.enable()
    gc.freeze()
    frozen = gc.get_freeze_count()
    with importing():
        assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen - 100  # what is dropped meanwhile is frozen no more


def modules_of(code: str) -> set[str]:
    """What a new process has imported once it has run the code."""
    code = f"import sys\n{code}\nprint('modules', *sys.modules)"
    lines = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    return set(next(line for line in reversed(lines) if line.startswith("modules ")).split())


def test_the_embedded_encoder_needs_nothing_of_transformers_heads_plots_and_compilers() -> None:
    found = modules_of("import numpy, speechfeat; speechfeat.load_encoder().encode([numpy.ones(16000, 'f4')])")
    assert {"torch", "speechfeat.encoders.direct"} <= found
    assert not found & {"transformers", "torch._dynamo", "torch.nn.attention.varlen"}
    assert not found & {"sklearn", "matplotlib", "pandas", "scipy.signal"}


def test_classical_features_heads_and_recipes_on_them_need_nothing_of_transformers() -> None:
    found = modules_of(
        "import numpy, speechfeat, speechfeat.extraction; speechfeat.classification_parser; speechfeat.train_head; "
        "speechfeat.load_encoder('logmel').encode([numpy.ones(16000, 'f4')])"
    )
    assert {"torch", "librosa"} <= found
    assert "transformers" not in found


def test_the_command_needs_no_effects_unless_it_augments() -> None:
    found = modules_of("import speechfeat.extract, speechfeat.extraction")
    assert "speechfeat.media" in found
    assert not found & {"sklearn", "matplotlib", "scipy.signal", "speechfeat.augmentation"}


def test_a_command_ends_without_looking_for_garbage() -> None:
    # What is registered first at exit runs last.
    code = (
        "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 0))\n"
        "from speechfeat.cli import main_with_errors; main_with_errors(lambda: print(gc.get_freeze_count()) or 0)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["0", "True"]
