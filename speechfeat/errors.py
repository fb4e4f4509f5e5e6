"""The errors a user can meet: each holds one sentence with what is wrong, the value, what is allowed and the cure."""


class SpeechfeatError(Exception):
    """Base of every error that speechfeat raises on purpose; the commands print it as one line."""


class ParameterError(SpeechfeatError, ValueError):
    """An argument or option is outside what is allowed."""


class InputError(SpeechfeatError):
    """One input cannot be read or encoded; a run notes it in `errors.jsonl` and goes on."""


class AudioError(InputError):
    """One recording cannot be read or encoded."""


class TextError(InputError):
    """One text cannot be read or encoded."""


class ModelError(SpeechfeatError):
    """A checkpoint or module cannot serve as the encoder asked for."""


class StoreError(SpeechfeatError):
    """A store is damaged, busy, or was made with another configuration."""
