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
    "ADAPTATIONS": "heads.adapted",
    "AdaptationPlan": "experiments.adapting",
    "AdaptationResult": "experiments.adapting",
    "AdversarialClassifier": "heads.adversarial",
    "Aligner": "alignment",
    "Answers": "experiments.crossval",
    "AudioError": "errors",
    "AudioCache": "distillation.data",
    "Augmentation": "augmentation",
    "BatchConfig": "distillation.batches",
    "BatchPlan": "transfer.batches",
    "Binding": "heads.binding",
    "CORPORA": "corpora.opening",
    "Chunking": "chunking",
    "Classification": "experiments.classify",
    "Coral": "adaptation",
    "Corpus": "corpora.base",
    "CorpusFeatures": "experiments.features",
    "CrossEntropy": "transfer.objectives",
    "DetCurve": "metrics",
    "DistillConfig": "distillation.training",
    "DistillPlan": "distillation.plan",
    "DistillReport": "distillation.report",
    "Distillation": "distillation.plan",
    "Distilled": "transfer.objectives",
    "Distiller": "distillation.training",
    "ENGLISH": "transcripts",
    "Encoder": "encoders.base",
    "ExtractConfig": "config",
    "Extractor": "extraction",
    "FRAME_KINDS": "heads.framed",
    "FixMatch": "transfer.consistency",
    "FrameConfig": "heads.fitting",
    "FrameGrid": "units",
    "FrameHead": "heads.networked",
    "Frames": "types",
    "Frozen": "transfer.regimes",
    "Full": "transfer.regimes",
    "Gradual": "transfer.regimes",
    "HEAD_KINDS": "heads.opening",
    "Head": "heads.base",
    "HeadPlan": "experiments.crossval",
    "HeadRecord": "heads.base",
    "HeadShape": "transfer.heads",
    "InputError": "errors",
    "Ladder": "experiments.ladder",
    "LayerChoice": "heads.choosing",
    "LayerScore": "probing",
    "Leak": "leaks",
    "LeakReport": "leaks",
    "Listening": "detection",
    "LoRA": "transfer.regimes",
    "MatchConfig": "matching",
    "MatchData": "experiments.retrieval",
    "Matcher": "matching",
    "MeanVariance": "adaptation",
    "ModelError": "errors",
    "Outcomes": "spotting",
    "POOLED_KINDS": "heads.estimators",
    "Pairs": "matching",
    "ParameterError": "errors",
    "PhrasePlan": "experiments.words",
    "PooledHead": "heads.pooled",
    "Protocol": "experiments.protocol",
    "Prototypes": "heads.classifiers",
    "RUNGS": "experiments.ladder",
    "Retrieval": "experiments.retrieval",
    "Scorer": "experiments.scorers",
    "Section": "experiments.report",
    "SelfTrained": "heads.semi",
    "SelfTraining": "heads.semi",
    "SpeechFeatures": "features",
    "SpeechfeatError": "errors",
    "SpottingCurve": "spotting",
    "SpottingPlan": "experiments.listening",
    "SpottingReport": "experiments.spot",
    "SpottingResult": "experiments.listening",
    "Stage": "units",
    "Store": "store",
    "StoreError": "errors",
    "Task": "transfer.objectives",
    "Tasks": "distillation.model",
    "TextConfig": "config",
    "TextEncoder": "encoders.text",
    "TextError": "errors",
    "TextExtractor": "text_extraction",
    "TextFeatures": "text_features",
    "TopBlocks": "transfer.regimes",
    "TrainConfig": "transfer.config",
    "Trainer": "transfer.training",
    "TransferModel": "transfer.model",
    "Trials": "experiments.trials",
    "Tuning": "transfer.tuning",
    "TuningPlan": "transfer.tuning",
    "UNLABELLED": "heads.adversarial",
    "Utterance": "types",
    "UtteranceBatches": "transfer.batches",
    "Verification": "experiments.verify",
    "VerificationPlan": "experiments.trials",
    "Word": "alignment",
    "accuracy": "classification",
    "add_corpus_options": "experiments.options",
    "add_encoder_options": "experiments.options",
    "add_head_options": "experiments.options",
    "add_output_options": "experiments.options",
    "add_settings": "experiments.options",
    "add_text_options": "experiments.options",
    "align": "alignment",
    "as_norm": "verification",
    "average_recall": "classification",
    "bootstrap_interval": "metrics",
    "check_leaks": "experiments.protocol",
    "choose_layer": "heads.choosing",
    "classification_of": "experiments.options",
    "classification_parser": "experiments.options",
    "command_line": "experiments.options",
    "compare_adaptations": "experiments.adapting",
    "confusion_matrix": "classification",
    "copies_of": "augmentation",
    "corpus_features": "experiments.features",
    "corpus_of": "experiments.options",
    "corpus_text_features": "experiments.features",
    "cross_validate": "experiments.crossval",
    "det_curve": "metrics",
    "detect": "detection",
    "distill_head": "heads.taught",
    "embed": "extraction",
    "embed_texts": "text_extraction",
    "equal_error_rate": "metrics",
    "evaluate_detections": "experiments.spot",
    "extract_features": "extraction",
    "extract_text_features": "text_extraction",
    "extraction_of": "experiments.options",
    "false_rejection_at": "spotting",
    "false_rejection_curve": "spotting",
    "features_folder": "experiments.features",
    "few_shot": "heads.episodes",
    "head_of": "experiments.options",
    "held_out_answers": "heads.taught",
    "join_features": "experiments.features",
    "join_stores": "joining",
    "layer_errors": "experiments.scorers",
    "leak_report": "leaks",
    "listed_fold": "splits",
    "load_aligner": "alignment",
    "load_encoder": "encoders.loading",
    "load_head": "heads.opening",
    "load_matcher": "matching",
    "load_text_encoder": "encoders.text_loading",
    "macro_f1": "classification",
    "main_with_errors": "cli",
    "make_folds": "splits",
    "make_long_recording": "experiments.mixing",
    "make_protocol": "experiments.protocol",
    "make_trials": "experiments.trials",
    "markdown_table": "experiments.report",
    "match_detections": "spotting",
    "min_dcf": "metrics",
    "mixup": "regularisation",
    "model_slug": "experiments.features",
    "models_of": "experiments.options",
    "new_head": "transfer.heads",
    "open_corpus": "corpora.opening",
    "plan_verification": "experiments.trials",
    "plot_confusion": "plots",
    "plot_det": "plots",
    "plot_embeddings": "plots",
    "plot_layers": "plots",
    "plot_mix": "plots",
    "plot_spotting": "plots",
    "pool_words": "alignment",
    "pooled_head": "heads.estimators",
    "probe_layers": "probing",
    "read_augmentation": "augmentation",
    "read_results": "experiments.report",
    "read_settings": "arguments",
    "read_speakers": "experiments.trials",
    "recall": "matching",
    "retrieval_ranks": "matching",
    "retrieve": "experiments.retrieval",
    "reverse_gradient": "heads.adversarial",
    "save_encoder": "transfer.saving",
    "score_cell": "experiments.report",
    "score_trials": "probing",
    "self_train": "heads.semi",
    "self_train_head": "heads.taught",
    "settings_of": "experiments.options",
    "spec_augment": "regularisation",
    "spot_keywords": "experiments.listening",
    "stopping": "cli",
    "sweep_rates": "heads.framed",
    "text_features_of": "experiments.options",
    "top_k_accuracy": "classification",
    "train_adapted_head": "heads.adapted",
    "train_angular_head": "heads.angular",
    "train_detector": "detectors",
    "train_frame_head": "heads.framed",
    "train_head": "heads.opening",
    "train_matcher": "matching",
    "verify_layers": "probing",
    "window_embeddings": "windows",
    "without_words": "experiments.mixing",
    "word_features": "experiments.words",
    "word_rows": "alignment",
    "wrap_module": "encoders.wrapped",
    "write_long_recordings": "experiments.mixing",
    "write_report": "experiments.report",
    "write_results": "experiments.report",
}

__all__ = ["__version__", *_LAZY]  # noqa: PLE0604 - names of the table above

if TYPE_CHECKING:
    from speechfeat.adaptation import Coral as Coral
    from speechfeat.adaptation import MeanVariance as MeanVariance
    from speechfeat.alignment import Aligner as Aligner
    from speechfeat.alignment import Word as Word
    from speechfeat.alignment import align as align
    from speechfeat.alignment import load_aligner as load_aligner
    from speechfeat.alignment import pool_words as pool_words
    from speechfeat.alignment import word_rows as word_rows
    from speechfeat.arguments import read_settings as read_settings
    from speechfeat.augmentation import Augmentation as Augmentation
    from speechfeat.augmentation import copies_of as copies_of
    from speechfeat.augmentation import read_augmentation as read_augmentation
    from speechfeat.chunking import Chunking as Chunking
    from speechfeat.classification import accuracy as accuracy
    from speechfeat.classification import average_recall as average_recall
    from speechfeat.classification import confusion_matrix as confusion_matrix
    from speechfeat.classification import macro_f1 as macro_f1
    from speechfeat.classification import top_k_accuracy as top_k_accuracy
    from speechfeat.cli import main_with_errors as main_with_errors
    from speechfeat.cli import stopping as stopping
    from speechfeat.config import ExtractConfig as ExtractConfig
    from speechfeat.config import TextConfig as TextConfig
    from speechfeat.corpora.base import Corpus as Corpus
    from speechfeat.corpora.opening import CORPORA as CORPORA
    from speechfeat.corpora.opening import open_corpus as open_corpus
    from speechfeat.detection import Listening as Listening
    from speechfeat.detection import detect as detect
    from speechfeat.detectors import train_detector as train_detector
    from speechfeat.distillation.batches import BatchConfig as BatchConfig
    from speechfeat.distillation.data import AudioCache as AudioCache
    from speechfeat.distillation.model import Tasks as Tasks
    from speechfeat.distillation.plan import Distillation as Distillation
    from speechfeat.distillation.plan import DistillPlan as DistillPlan
    from speechfeat.distillation.report import DistillReport as DistillReport
    from speechfeat.distillation.training import DistillConfig as DistillConfig
    from speechfeat.distillation.training import Distiller as Distiller
    from speechfeat.encoders.base import Encoder as Encoder
    from speechfeat.encoders.loading import load_encoder as load_encoder
    from speechfeat.encoders.text import TextEncoder as TextEncoder
    from speechfeat.encoders.text_loading import load_text_encoder as load_text_encoder
    from speechfeat.encoders.wrapped import wrap_module as wrap_module
    from speechfeat.errors import AudioError as AudioError
    from speechfeat.errors import InputError as InputError
    from speechfeat.errors import ModelError as ModelError
    from speechfeat.errors import ParameterError as ParameterError
    from speechfeat.errors import SpeechfeatError as SpeechfeatError
    from speechfeat.errors import StoreError as StoreError
    from speechfeat.errors import TextError as TextError
    from speechfeat.experiments.adapting import AdaptationPlan as AdaptationPlan
    from speechfeat.experiments.adapting import AdaptationResult as AdaptationResult
    from speechfeat.experiments.adapting import compare_adaptations as compare_adaptations
    from speechfeat.experiments.classify import Classification as Classification
    from speechfeat.experiments.crossval import Answers as Answers
    from speechfeat.experiments.crossval import HeadPlan as HeadPlan
    from speechfeat.experiments.crossval import cross_validate as cross_validate
    from speechfeat.experiments.features import CorpusFeatures as CorpusFeatures
    from speechfeat.experiments.features import corpus_features as corpus_features
    from speechfeat.experiments.features import corpus_text_features as corpus_text_features
    from speechfeat.experiments.features import features_folder as features_folder
    from speechfeat.experiments.features import join_features as join_features
    from speechfeat.experiments.features import model_slug as model_slug
    from speechfeat.experiments.ladder import RUNGS as RUNGS
    from speechfeat.experiments.ladder import Ladder as Ladder
    from speechfeat.experiments.listening import SpottingPlan as SpottingPlan
    from speechfeat.experiments.listening import SpottingResult as SpottingResult
    from speechfeat.experiments.listening import spot_keywords as spot_keywords
    from speechfeat.experiments.mixing import make_long_recording as make_long_recording
    from speechfeat.experiments.mixing import without_words as without_words
    from speechfeat.experiments.mixing import write_long_recordings as write_long_recordings
    from speechfeat.experiments.options import add_corpus_options as add_corpus_options
    from speechfeat.experiments.options import add_encoder_options as add_encoder_options
    from speechfeat.experiments.options import add_head_options as add_head_options
    from speechfeat.experiments.options import add_output_options as add_output_options
    from speechfeat.experiments.options import add_settings as add_settings
    from speechfeat.experiments.options import add_text_options as add_text_options
    from speechfeat.experiments.options import classification_of as classification_of
    from speechfeat.experiments.options import classification_parser as classification_parser
    from speechfeat.experiments.options import command_line as command_line
    from speechfeat.experiments.options import corpus_of as corpus_of
    from speechfeat.experiments.options import extraction_of as extraction_of
    from speechfeat.experiments.options import head_of as head_of
    from speechfeat.experiments.options import models_of as models_of
    from speechfeat.experiments.options import settings_of as settings_of
    from speechfeat.experiments.options import text_features_of as text_features_of
    from speechfeat.experiments.protocol import Protocol as Protocol
    from speechfeat.experiments.protocol import check_leaks as check_leaks
    from speechfeat.experiments.protocol import make_protocol as make_protocol
    from speechfeat.experiments.report import Section as Section
    from speechfeat.experiments.report import markdown_table as markdown_table
    from speechfeat.experiments.report import read_results as read_results
    from speechfeat.experiments.report import score_cell as score_cell
    from speechfeat.experiments.report import write_report as write_report
    from speechfeat.experiments.report import write_results as write_results
    from speechfeat.experiments.retrieval import MatchData as MatchData
    from speechfeat.experiments.retrieval import Retrieval as Retrieval
    from speechfeat.experiments.retrieval import retrieve as retrieve
    from speechfeat.experiments.scorers import Scorer as Scorer
    from speechfeat.experiments.scorers import layer_errors as layer_errors
    from speechfeat.experiments.spot import SpottingReport as SpottingReport
    from speechfeat.experiments.spot import evaluate_detections as evaluate_detections
    from speechfeat.experiments.trials import Trials as Trials
    from speechfeat.experiments.trials import VerificationPlan as VerificationPlan
    from speechfeat.experiments.trials import make_trials as make_trials
    from speechfeat.experiments.trials import plan_verification as plan_verification
    from speechfeat.experiments.trials import read_speakers as read_speakers
    from speechfeat.experiments.verify import Verification as Verification
    from speechfeat.experiments.words import PhrasePlan as PhrasePlan
    from speechfeat.experiments.words import word_features as word_features
    from speechfeat.extraction import Extractor as Extractor
    from speechfeat.extraction import embed as embed
    from speechfeat.extraction import extract_features as extract_features
    from speechfeat.features import SpeechFeatures as SpeechFeatures
    from speechfeat.heads.adapted import ADAPTATIONS as ADAPTATIONS
    from speechfeat.heads.adapted import train_adapted_head as train_adapted_head
    from speechfeat.heads.adversarial import UNLABELLED as UNLABELLED
    from speechfeat.heads.adversarial import AdversarialClassifier as AdversarialClassifier
    from speechfeat.heads.adversarial import reverse_gradient as reverse_gradient
    from speechfeat.heads.angular import train_angular_head as train_angular_head
    from speechfeat.heads.base import Head as Head
    from speechfeat.heads.base import HeadRecord as HeadRecord
    from speechfeat.heads.binding import Binding as Binding
    from speechfeat.heads.choosing import LayerChoice as LayerChoice
    from speechfeat.heads.choosing import choose_layer as choose_layer
    from speechfeat.heads.classifiers import Prototypes as Prototypes
    from speechfeat.heads.episodes import few_shot as few_shot
    from speechfeat.heads.estimators import POOLED_KINDS as POOLED_KINDS
    from speechfeat.heads.estimators import pooled_head as pooled_head
    from speechfeat.heads.fitting import FrameConfig as FrameConfig
    from speechfeat.heads.framed import FRAME_KINDS as FRAME_KINDS
    from speechfeat.heads.framed import sweep_rates as sweep_rates
    from speechfeat.heads.framed import train_frame_head as train_frame_head
    from speechfeat.heads.networked import FrameHead as FrameHead
    from speechfeat.heads.opening import HEAD_KINDS as HEAD_KINDS
    from speechfeat.heads.opening import load_head as load_head
    from speechfeat.heads.opening import train_head as train_head
    from speechfeat.heads.pooled import PooledHead as PooledHead
    from speechfeat.heads.semi import SelfTrained as SelfTrained
    from speechfeat.heads.semi import SelfTraining as SelfTraining
    from speechfeat.heads.semi import self_train as self_train
    from speechfeat.heads.taught import distill_head as distill_head
    from speechfeat.heads.taught import held_out_answers as held_out_answers
    from speechfeat.heads.taught import self_train_head as self_train_head
    from speechfeat.joining import join_stores as join_stores
    from speechfeat.leaks import Leak as Leak
    from speechfeat.leaks import LeakReport as LeakReport
    from speechfeat.leaks import leak_report as leak_report
    from speechfeat.matching import MatchConfig as MatchConfig
    from speechfeat.matching import Matcher as Matcher
    from speechfeat.matching import Pairs as Pairs
    from speechfeat.matching import load_matcher as load_matcher
    from speechfeat.matching import recall as recall
    from speechfeat.matching import retrieval_ranks as retrieval_ranks
    from speechfeat.matching import train_matcher as train_matcher
    from speechfeat.metrics import DetCurve as DetCurve
    from speechfeat.metrics import bootstrap_interval as bootstrap_interval
    from speechfeat.metrics import det_curve as det_curve
    from speechfeat.metrics import equal_error_rate as equal_error_rate
    from speechfeat.metrics import min_dcf as min_dcf
    from speechfeat.plots import plot_confusion as plot_confusion
    from speechfeat.plots import plot_det as plot_det
    from speechfeat.plots import plot_embeddings as plot_embeddings
    from speechfeat.plots import plot_layers as plot_layers
    from speechfeat.plots import plot_mix as plot_mix
    from speechfeat.plots import plot_spotting as plot_spotting
    from speechfeat.probing import LayerScore as LayerScore
    from speechfeat.probing import probe_layers as probe_layers
    from speechfeat.probing import score_trials as score_trials
    from speechfeat.probing import verify_layers as verify_layers
    from speechfeat.regularisation import mixup as mixup
    from speechfeat.regularisation import spec_augment as spec_augment
    from speechfeat.splits import listed_fold as listed_fold
    from speechfeat.splits import make_folds as make_folds
    from speechfeat.spotting import Outcomes as Outcomes
    from speechfeat.spotting import SpottingCurve as SpottingCurve
    from speechfeat.spotting import false_rejection_at as false_rejection_at
    from speechfeat.spotting import false_rejection_curve as false_rejection_curve
    from speechfeat.spotting import match_detections as match_detections
    from speechfeat.store import Store as Store
    from speechfeat.text_extraction import TextExtractor as TextExtractor
    from speechfeat.text_extraction import embed_texts as embed_texts
    from speechfeat.text_extraction import extract_text_features as extract_text_features
    from speechfeat.text_features import TextFeatures as TextFeatures
    from speechfeat.transcripts import ENGLISH as ENGLISH
    from speechfeat.transfer.batches import BatchPlan as BatchPlan
    from speechfeat.transfer.batches import UtteranceBatches as UtteranceBatches
    from speechfeat.transfer.config import TrainConfig as TrainConfig
    from speechfeat.transfer.consistency import FixMatch as FixMatch
    from speechfeat.transfer.heads import HeadShape as HeadShape
    from speechfeat.transfer.heads import new_head as new_head
    from speechfeat.transfer.model import TransferModel as TransferModel
    from speechfeat.transfer.objectives import CrossEntropy as CrossEntropy
    from speechfeat.transfer.objectives import Distilled as Distilled
    from speechfeat.transfer.objectives import Task as Task
    from speechfeat.transfer.regimes import Frozen as Frozen
    from speechfeat.transfer.regimes import Full as Full
    from speechfeat.transfer.regimes import Gradual as Gradual
    from speechfeat.transfer.regimes import LoRA as LoRA
    from speechfeat.transfer.regimes import TopBlocks as TopBlocks
    from speechfeat.transfer.saving import save_encoder as save_encoder
    from speechfeat.transfer.training import Trainer as Trainer
    from speechfeat.transfer.tuning import Tuning as Tuning
    from speechfeat.transfer.tuning import TuningPlan as TuningPlan
    from speechfeat.types import Frames as Frames
    from speechfeat.types import Utterance as Utterance
    from speechfeat.units import FrameGrid as FrameGrid
    from speechfeat.units import Stage as Stage
    from speechfeat.verification import as_norm as as_norm
    from speechfeat.windows import window_embeddings as window_embeddings


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'speechfeat' has no attribute {name!r}")
    from speechfeat.memory import importing

    with importing():
        module = importlib.import_module(f"speechfeat.{_LAZY[name]}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
