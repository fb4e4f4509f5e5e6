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
    "Chunking": "chunking",
    "Encoder": "encoders.base",
    "ExtractConfig": "config",
    "Extractor": "extraction",
    "FrameGrid": "units",
    "Frames": "types",
    "ModelError": "errors",
    "ParameterError": "errors",
    "SpeechFeatures": "features",
    "SpeechfeatError": "errors",
    "Stage": "units",
    "Store": "store",
    "StoreError": "errors",
    "Utterance": "types",
    "embed": "extraction",
    "extract_features": "extraction",
    "load_encoder": "encoders.loading",
    "wrap_module": "encoders.wrapped",
}

__all__ = ["__version__", *_LAZY]  # noqa: PLE0604 - names of the table above

if TYPE_CHECKING:
    from speechfeat.chunking import Chunking as Chunking
    from speechfeat.config import ExtractConfig as ExtractConfig
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
    from speechfeat.store import Store as Store
    from speechfeat.types import Frames as Frames
    from speechfeat.types import Utterance as Utterance
    from speechfeat.units import FrameGrid as FrameGrid
    from speechfeat.units import Stage as Stage


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'speechfeat' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"speechfeat.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
