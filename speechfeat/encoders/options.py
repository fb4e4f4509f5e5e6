"""How a checkpoint may be opened."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckpointOptions:
    """How a checkpoint may be opened.

    Attributes:
        revision: branch, tag or commit on the hub.
        allow_pickle: take `pytorch_model.bin` where there are no safetensors.
        trust_remote_code: run the checkpoint's own Python code.
        short_window: for encoders defined on one fixed window (Whisper), run on the utterance's own length.
    """

    revision: str | None = None
    allow_pickle: bool = False
    trust_remote_code: bool = False
    short_window: bool = False
