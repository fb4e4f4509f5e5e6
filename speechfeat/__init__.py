"""Features of speech encoders that can be trusted: exact in any batch, fast, never lost.

Example:
    import speechfeat as sf

    enc = sf.load_encoder("wavlm-base-plus", layers="penultimate")
    frames = enc.encode(["a.wav", "b.flac"])       # .values [T, D], .times [T] in seconds
    X = enc.embed(["a.wav", "b.flac"], pool="mean")
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> module that defines it; imported when first used, so that `import speechfeat` needs neither torch nor
# transformers.
_LAZY = {
    "AudioError": "errors",
    "Augmentation": "augmentation",
    "BatchConfig": "distillation.batches",
    "CORPORA": "corpora.opening",
    "Chunking": "chunking",
    "Corpus": "corpora.base",
    "DetCurve": "metrics",
    "DistillConfig": "distillation.training",
    "DistillPlan": "distillation.plan",
    "DistillReport": "distillation.report",
    "Distillation": "distillation.plan",
    "Distiller": "distillation.training",
    "ENGLISH": "transcripts",
    "Encoder": "encoders.base",
    "ExtractConfig": "config",
    "Extractor": "extraction",
    "FrameGrid": "units",
    "Frames": "types",
    "LayerScore": "probing",
    "Leak": "leaks",
    "LeakReport": "leaks",
    "ModelError": "errors",
    "Outcomes": "spotting",
    "ParameterError": "errors",
    "SpeechFeatures": "features",
    "SpeechfeatError": "errors",
    "SpottingCurve": "spotting",
    "Stage": "units",
    "Store": "store",
    "StoreError": "errors",
    "Tasks": "distillation.model",
    "Utterance": "types",
    "accuracy": "classification",
    "as_norm": "verification",
    "average_recall": "classification",
    "bootstrap_interval": "metrics",
    "confusion_matrix": "classification",
    "det_curve": "metrics",
    "embed": "extraction",
    "equal_error_rate": "metrics",
    "extract_features": "extraction",
    "false_rejection_at": "spotting",
    "false_rejection_curve": "spotting",
    "leak_report": "leaks",
    "listed_fold": "splits",
    "load_encoder": "encoders.loading",
    "macro_f1": "classification",
    "main_with_errors": "cli",
    "make_folds": "splits",
    "match_detections": "spotting",
    "min_dcf": "metrics",
    "open_corpus": "corpora.opening",
    "probe_layers": "probing",
    "stopping": "cli",
    "top_k_accuracy": "classification",
    "verify_layers": "probing",
    "wrap_module": "encoders.wrapped",
}

__all__ = ["__version__", *_LAZY]  # noqa: PLE0604 - names of the table above

if TYPE_CHECKING:
    from speechfeat.augmentation import Augmentation as Augmentation
    from speechfeat.chunking import Chunking as Chunking
    from speechfeat.classification import accuracy as accuracy
    from speechfeat.classification import average_recall as average_recall
    from speechfeat.classification import confusion_matrix as confusion_matrix
    from speechfeat.classification import macro_f1 as macro_f1
    from speechfeat.classification import top_k_accuracy as top_k_accuracy
    from speechfeat.cli import main_with_errors as main_with_errors
    from speechfeat.cli import stopping as stopping
    from speechfeat.config import ExtractConfig as ExtractConfig
    from speechfeat.corpora.base import Corpus as Corpus
    from speechfeat.corpora.opening import CORPORA as CORPORA
    from speechfeat.corpora.opening import open_corpus as open_corpus
    from speechfeat.distillation.batches import BatchConfig as BatchConfig
    from speechfeat.distillation.model import Tasks as Tasks
    from speechfeat.distillation.plan import Distillation as Distillation
    from speechfeat.distillation.plan import DistillPlan as DistillPlan
    from speechfeat.distillation.report import DistillReport as DistillReport
    from speechfeat.distillation.training import DistillConfig as DistillConfig
    from speechfeat.distillation.training import Distiller as Distiller
    from speechfeat.encoders.base import Encoder as Encoder
    from speechfeat.encoders.loading import load_encoder as load_encoder
    from speechfeat.encoders.wrapped import wrap_module as wrap_module
    from speechfeat.errors import AudioError as AudioError
    from speechfeat.errors import ModelError as ModelError
    from speechfeat.errors import ParameterError as ParameterError
    from speechfeat.errors import SpeechfeatError as SpeechfeatError
    from speechfeat.errors import StoreError as StoreError
    from speechfeat.extraction import Extractor as Extractor
    from speechfeat.extraction import embed as embed
    from speechfeat.extraction import extract_features as extract_features
    from speechfeat.features import SpeechFeatures as SpeechFeatures
    from speechfeat.leaks import Leak as Leak
    from speechfeat.leaks import LeakReport as LeakReport
    from speechfeat.leaks import leak_report as leak_report
    from speechfeat.metrics import DetCurve as DetCurve
    from speechfeat.metrics import bootstrap_interval as bootstrap_interval
    from speechfeat.metrics import det_curve as det_curve
    from speechfeat.metrics import equal_error_rate as equal_error_rate
    from speechfeat.metrics import min_dcf as min_dcf
    from speechfeat.probing import LayerScore as LayerScore
    from speechfeat.probing import probe_layers as probe_layers
    from speechfeat.probing import verify_layers as verify_layers
    from speechfeat.splits import listed_fold as listed_fold
    from speechfeat.splits import make_folds as make_folds
    from speechfeat.spotting import Outcomes as Outcomes
    from speechfeat.spotting import SpottingCurve as SpottingCurve
    from speechfeat.spotting import false_rejection_at as false_rejection_at
    from speechfeat.spotting import false_rejection_curve as false_rejection_curve
    from speechfeat.spotting import match_detections as match_detections
    from speechfeat.store import Store as Store
    from speechfeat.transcripts import ENGLISH as ENGLISH
    from speechfeat.types import Frames as Frames
    from speechfeat.types import Utterance as Utterance
    from speechfeat.units import FrameGrid as FrameGrid
    from speechfeat.units import Stage as Stage
    from speechfeat.verification import as_norm as as_norm


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'speechfeat' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"speechfeat.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
