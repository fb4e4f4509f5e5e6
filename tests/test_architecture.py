"""The layers of the package: imports only point down, and nobody imports the root."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "speechfeat"

# A module may import those of the groups above its own line, and, within its group, those before it.
LAYERS = [
    ["errors"],
    ["units", "headers", "memory"],
    ["types"],
    ["decoding", "audio", "chunking", "batching", "layers", "pooling", "manifests", "corpus"],
    ["effects", "augmentation", "regularisation"],
    ["text_corpus"],
    ["metrics", "classification", "verification", "spotting", "splits", "leaks", "adaptation"],
    ["corpora.base"],
    [
        "corpora.named",
        "corpora.iemocap",
        "corpora.commands",
        "corpora.voxceleb",
        "corpora.transcribed",
        "corpora.tables",
    ],
    ["corpora.opening"],
    ["store_config", "store_shards", "store_directory", "store_writer", "store", "joining"],
    ["streaming", "recordings", "texts"],
    [
        "encoders.catalog",
        "encoders.options",
        "encoders.thread_state",
        "encoders.scripting",
        "encoders.shapes",
        "encoders.masking",
        "encoders.modules",
        "encoders.onednn",
        "encoders.taps",
        "encoders.precision",
        "encoders.devices",
        "encoders.flights",
        "encoders.streams",
        "encoders.backbone",
        "encoders.base",
    ],
    [
        "encoders.joined",
        "encoders.compiling",
        "encoders.packing",
        "encoders.time_major",
        "encoders.channels_last",
        "encoders.stretches",
        "encoders.blocked_attention",
        "encoders.pair_bias",
        "encoders.conformer_code",
        "encoders.biased_attention",
        "encoders.fused_conformer",
        "encoders.fused_w2v_bert",
        "encoders.log_mel",
        "encoders.fast_conformer",
        "encoders.conformer_backbone",
        "encoders.direct",
        "encoders.attention_functions",
    ],
    ["encoders.checkpoint", "encoders.<family>", "encoders.loading", "encoders.ctc"],
    ["encoders.text_families", "encoders.tokenizing", "encoders.text", "encoders.text_loading", "encoders.describing"],
    ["config", "planning", "media", "threads", "running", "extracting", "extraction", "text_extraction"],
    ["spelling", "alignment", "matching"],
    ["diagnosis", "features", "text_features", "probing"],
    ["cli", "arguments", "progress", "reporting"],
    ["heads.binding", "heads.base"],
    ["heads.classifiers", "heads.estimators", "heads.states", "heads.examples", "heads.choosing", "heads.pooled"],
    ["heads.adversarial", "heads.adapted"],
    ["heads.soft", "heads.semi", "heads.taught"],
    ["heads.episodes"],
    ["heads.modules", "heads.networks", "heads.batches", "heads.holdout", "heads.objectives", "heads.fitting"],
    ["heads.material"],
    ["heads.networked", "heads.trials", "heads.framed", "heads.angular", "heads.opening"],
    ["windows", "detection", "detectors", "plots"],
    ["transcripts", "distillation.students", "distillation.data", "distillation.corpus"],
    [
        "distillation.ahead",
        "distillation.batches",
        "distillation.model",
        "distillation.training",
        "distillation.report",
    ],
    ["distillation.plan"],
    ["transfer.heads", "transfer.model", "transfer.adapters", "transfer.regimes"],
    ["transfer.batches", "transfer.objectives", "transfer.consistency"],
    ["transfer.config", "transfer.curves", "transfer.training", "transfer.saving", "transfer.tuning"],
    ["experiments.features", "experiments.protocol", "experiments.crossval", "experiments.report"],
    ["experiments.words", "experiments.retrieval"],
    ["experiments.trials", "experiments.scorers", "experiments.voices"],
    ["experiments.adapting", "experiments.verify", "experiments.mixing", "experiments.spot", "experiments.listening"],
    ["experiments.classify", "experiments.climb", "experiments.ladder", "experiments.options"],
    ["augment", "extract", "extract_text", "doctor", "predict"],
]


def family(name: str) -> bool:
    known = {module for group in LAYERS for module in group}
    return name.startswith("encoders.") and name not in known


def rank(name: str) -> tuple[int, int]:
    slot = "encoders.<family>" if family(name) else name
    for level, group in enumerate(LAYERS):
        if slot in group:
            return level, group.index(slot)
    raise AssertionError(f"{name} has no layer; add it to LAYERS")


def modules() -> dict[str, Path]:
    files = [file for file in PACKAGE.rglob("*.py") if file.name != "__init__.py"]
    return {".".join(file.relative_to(PACKAGE).with_suffix("").parts): file for file in files}


def imports(file: Path) -> set[str]:
    """Modules of the package that a file imports when it is imported or used; not those for annotations only."""
    tree = ast.parse(file.read_text())
    annotations = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    found = set()
    for node in ast.walk(tree):
        if node in annotations:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "speechfeat":
            found |= {f"{node.module}.{alias.name}" if node.module in PARENTS else node.module for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "speechfeat"}
    return {name.removeprefix("speechfeat.") for name in found}


PARENTS = tuple(
    "speechfeat" + part for part in ("", ".encoders", ".distillation", ".heads", ".experiments", ".transfer")
)


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_point_down(name: str) -> None:
    for imported in imports(modules()[name]):
        assert imported != "speechfeat", f"{name} imports the package root"
        if family(name) and family(imported):
            continue  # a family may build on another; a cycle would not import
        assert rank(imported) < rank(name), f"{name} imports {imported}, which is not below it"


@pytest.mark.parametrize("name", sorted(modules()))
def test_files_are_read_in_one_sitting(name: str) -> None:
    assert len(modules()[name].read_text().splitlines()) <= 400


def test_recipes_use_the_public_names_alone() -> None:
    for file in (PACKAGE.parent / "recipes").glob("*.py"):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("speechfeat")), file
