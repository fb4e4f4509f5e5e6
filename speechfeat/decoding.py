"""Recordings as blocks of samples: libsndfile first, FFmpeg (PyAV, optional) for the containers it does not know."""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile

from speechfeat.errors import AudioError
from speechfeat.headers import (
    has_guessed_length,
    has_ogg_end,
    is_ffmpeg_container,
    is_sndfile_container,
    is_text,
    missing_riff_bytes,
)

SNDFILE_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd"}
    | {".sph", ".nist", ".w64", ".rf64", ".caf"}
)
PYAV_SUFFIXES = frozenset(
    {".m4a", ".m4b", ".aac", ".mp4", ".m4v", ".mov", ".3gp", ".webm", ".weba", ".mkv", ".mka", ".wma"}
    | {".amr", ".ac3", ".avi"}
)

# Values (samples times channels) decoded at once: 1 MiB of float32, whatever the number of channels.
BLOCK_VALUES = 2**18

# Decoded before a segment of an Ogg file. libsndfile primes the decoder with 80 ms only: Vorbis is then wrong for
# one window, and Opus keeps another noise state for seconds (measured on speech: off by up to 0.006 of full scale
# without more, 0.003 after 4 s, 0 after 10 s). Ten seconds of Opus take 10 ms.
_OGG_PREROLL_SECONDS = 10

# A header may promise a little more than there is; a longer part missing makes a recording "truncated".
TOLERANCE_SECONDS = 0.1

# FLAC written to a pipe has no length; libsndfile then says 2**63 - 1.
_UNKNOWN_LENGTH = 2**62


class Recording(Protocol):
    """An open recording: what its header says, and its samples as blocks.

    Attributes:
        sample_rate: in Hz.
        num_channels: channels of every block.
        num_samples: samples of one channel by the header; None where it does not say.
        damage: why samples are missing at the end, "" while none are known to be; decoding can set it.
    """

    sample_rate: int
    num_channels: int
    num_samples: int | None
    damage: str

    def blocks(self, first: int) -> Iterator[np.ndarray]:
        """Blocks `[n, num_channels]` float32 from sample `first` on; each valid until the next; only once."""

    def count_samples(self) -> int:
        """Samples of one channel where the header does not say: reads the file, uses up `blocks`."""

    def close(self) -> None:
        """Close the file."""


@contextmanager
def open_recording(path: str) -> Iterator[Recording]:
    """Open a recording for one reading.

    Args:
        path: as the operating system knows it; undecodable bytes as surrogates.

    Yields:
        The open recording; it is closed when the `with` block ends.

    Raises:
        AudioError: if there is no readable file, or neither decoder knows it.
    """
    _check_file(path)
    try:
        recording = _open(path)
    except OSError as error:  # no permission, a failing disk, a file gone since
        raise AudioError(f"{path!r} cannot be read: {_reason(error)}") from error
    with closing(recording):
        yield recording


class _SequentialFile(soundfile.SoundFile):
    """A SoundFile that reads on where it stopped.

    `SoundFile.read` seeks to its own place after every block. In an MP3 of variable bit rate that lands elsewhere,
    so blocks would not be the recording; in Opus it decodes 80 ms again, which costs a tenth of a short file.
    """

    def seekable(self) -> bool:
        """False, which is what keeps `read` from seeking; `seek` works all the same."""
        return False


class SndfileRecording:
    """A recording that libsndfile decodes; its attributes are those of `Recording`."""

    def __init__(self, path: str) -> None:
        # Bytes keep names that are not UTF-8, and a name costs no call into Python for each read as a file object
        # does. Absolute, because libsndfile takes "-" for the standard input.
        self._file = _SequentialFile(os.fsencode(Path(path).absolute()) if os.name == "posix" else path)
        self.format: str = self._file.format
        self.sample_rate: int = self._file.samplerate
        self.num_channels: int = self._file.channels
        self.num_samples: int | None = self._file.frames if self._file.frames < _UNKNOWN_LENGTH else None
        self.damage = _missing_end(path, self._file)

    def blocks(self, first: int) -> Iterator[np.ndarray]:
        """Blocks from sample `first` on; a decoder error ends them and is kept in `damage`."""
        start = first
        if self.format == "OGG":
            start = max(0, first - _OGG_PREROLL_SECONDS * self.sample_rate)
        elif self.format == "MP3":
            start = 0  # with a variable bit rate a seek lands elsewhere; an hour is decoded in a second
        if start:
            try:
                self._file.seek(start)
            except soundfile.LibsndfileError as error:
                self.damage = _reason(error)
                return
        yield from _skip(self._decode(), first - start)

    def count_samples(self) -> int:
        """Samples of one channel, by decoding all."""
        return sum(len(block) for block in self._decode())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _decode(self) -> Iterator[np.ndarray]:
        size = max(1, BLOCK_VALUES // self.num_channels)
        if self.num_samples is not None:
            size = max(1, min(size, self.num_samples))
        block = np.empty((size, self.num_channels), dtype=np.float32)
        while True:
            block.fill(np.nan)
            try:
                part = self._file.read(dtype="float32", out=block)
            except soundfile.LibsndfileError as error:
                # soundfile drops the count of a failed read, and `tell` is wrong after it (MP3). The samples are in
                # the block all the same, up to the first one left as NaN.
                part = block[: np.argmax(np.isnan(np.append(block[:, 0], np.nan)))]
                self.damage = _reason(error)
                yield part
                return
            if len(part) == 0:
                return
            yield part


class PyavRecording:
    """A recording that FFmpeg decodes through PyAV; its attributes are those of `Recording`."""

    def __init__(self, path: str) -> None:
        import av

        self._error = av.error.FFmpegError
        self.damage = ""
        with ExitStack() as stack:
            # A file object, not a name: FFmpeg takes a name for a URL, and a playlist could open others.
            file = stack.enter_context(Path(path).open("rb"))
            self._container: Any = stack.enter_context(av.open(file, mode="r"))
            streams = self._container.streams
            if not streams.audio:
                kinds = ", ".join(sorted({stream.type for stream in streams})) or "nothing"
                raise AudioError(f"{path!r} holds no audio stream, only {kinds}")
            self._stream: Any = streams.audio[0]
            if self._stream.codec_context is None:
                raise AudioError(f"{path!r} is coded in a way that this FFmpeg has no decoder for")
            self._frames = self._container.decode(self._stream)
            # Only a decoded frame has the true rate: the header of HE-AAC gives half of it.
            self._first: Any = next(self._frames, None)
            if self._first is None:
                raise AudioError(f"{path!r} holds no samples")
            self._close = stack.pop_all().close
        self.sample_rate: int = self._first.sample_rate
        self.num_channels: int = self._first.layout.nb_channels
        self.num_samples: int | None = self._header_samples()

    def blocks(self, first: int) -> Iterator[np.ndarray]:
        """Blocks from sample `first` on; a decoder error ends them and is kept in `damage`.

        What lies before `first` is decoded too: AAC fills its bands with noise from the decoder's state, so only a
        decoder that has seen the whole beginning gives the samples of the whole recording.
        """
        yield from _skip(self._decode(), first)

    def count_samples(self) -> int:
        """Samples of one channel, by the time stamps of the packets: nothing is decoded."""
        end = self._first.samples / self.sample_rate
        for packet in self._container.demux(self._stream):
            if packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        return round(end * self.sample_rate)

    def close(self) -> None:
        """Close the file."""
        self._close()

    def _header_samples(self) -> int | None:
        if self._stream.duration and "mp4" in self._container.format.name:
            return round(self._stream.duration * self._stream.time_base * self.sample_rate)
        if self._container.duration and self._container.format.name in {"matroska,webm", "ogg"}:
            return round(self._container.duration * self.sample_rate / 1_000_000)
        return None  # FFmpeg guesses the others from the bit rate

    def _decode(self) -> Iterator[np.ndarray]:
        frame = self._first
        try:
            while frame is not None:
                if (frame.sample_rate, frame.layout.nb_channels) != (self.sample_rate, self.num_channels):
                    self.damage = "its sample rate or number of channels changes on the way"
                    return
                yield _frame_samples(frame)
                frame = next(self._frames, None)
        except self._error as error:
            self.damage = _reason(error)


def _frame_samples(frame: Any) -> np.ndarray:
    """`[n, C]` float32 in [-1, 1] of a frame of FFmpeg, whatever its sample format."""
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        return values.astype(np.float32) / -float(np.iinfo(values.dtype).min)
    return values.astype(np.float32, copy=False)


def _skip(blocks: Iterator[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """The blocks without their first `count` samples."""
    for block in blocks:
        if count < len(block):
            yield block[count:]
        count = max(0, count - len(block))


def _check_file(path: str) -> None:
    """Raise AudioError unless `path` is a regular file with something in it."""
    file = Path(path)
    try:
        status = file.stat()
    except FileNotFoundError:
        if file.is_symlink():
            raise AudioError(f"{path!r} is a broken link to {str(file.readlink())!r}") from None
        raise AudioError(f"{path!r} does not exist") from None
    except (OSError, ValueError) as error:  # no permission on a parent, a loop of links, a NUL in the name
        raise AudioError(f"{path!r} cannot be opened: {_reason(error)}") from error
    if stat.S_ISDIR(status.st_mode):
        listable = os.access(path, os.R_OK | os.X_OK)
        raise AudioError(f"{path!r} is a directory" + ("" if listable else " without permission to list it"))
    if not stat.S_ISREG(status.st_mode):  # libsndfile would wait for ever on a pipe
        raise AudioError(f"{path!r} is not a regular file but a device, pipe or socket")
    if status.st_size == 0:
        raise AudioError(f"{path!r} is empty (0 bytes)")


def _open(path: str) -> Recording:
    if Path(path).suffix.lower() == ".raw":  # soundfile asks for the format of these, whatever they hold
        raise AudioError(f"{path!r} is headerless audio; convert it to WAV or FLAC")
    try:
        recording = SndfileRecording(path)
    except soundfile.LibsndfileError as error:
        return _open_with_pyav(path, _reason(error))
    if recording.format == "RAW":  # libsndfile takes .vox and .gsm by their suffix, whatever they hold
        recording.close()
        raise AudioError(f"{path!r} is headerless audio; convert it to WAV or FLAC")
    if recording.format == "MP3" and has_guessed_length(path):
        recording.close()
        return _open_with_pyav(path, "a variable bit rate and no length", foreign=True)
    return recording


def _open_with_pyav(path: str, reason: str, foreign: bool = False) -> PyavRecording:
    """Open what libsndfile cannot read for `reason`, or raise AudioError with what the file is instead.

    `foreign` are the files that FFmpeg alone can read: without PyAV, they are what to install it for.
    """
    with Path(path).open("rb") as file:
        head = file.read(1024)
    if head.startswith(b"version https://git-lfs"):
        raise AudioError(f"{path!r} is a Git LFS pointer, not the recording; fetch it with: git lfs pull")
    if is_text(head):
        raise AudioError(f"{path!r} is text, not audio: it starts with {head[:24]!r}")
    foreign = foreign or Path(path).suffix.lower() in PYAV_SUFFIXES or is_ffmpeg_container(head)
    unknown = AudioError(f"{path!r} cannot be read by libsndfile: {reason}")
    if not foreign and not is_sndfile_container(head):  # FFmpeg can take noise for a recording
        raise unknown
    try:
        from av.error import FFmpegError
    except ImportError:
        if foreign:
            raise AudioError(f"{path!r} needs PyAV to be decoded: pip install 'speechfeat[av]'") from None
        raise unknown from None
    try:
        return PyavRecording(path)
    except (FFmpegError, OSError, ValueError) as error:
        raise AudioError(f"{path!r} cannot be read by libsndfile or FFmpeg: {_reason(error)}") from error


def _missing_end(path: str, file: soundfile.SoundFile) -> str:
    """Why the end of an open recording is missing, "" if it is not.

    libsndfile corrects the length of a cut WAV, AIFF or Ogg file without a word.
    """
    if file.format == "OGG":
        return "" if has_ogg_end(path) else "its last Ogg page is missing"
    if file.format in {"WAV", "WAVEX", "AIFF"}:
        missing = missing_riff_bytes(path)
        bytes_per_second = Path(path).stat().st_size * file.samplerate / max(1, file.frames)
        if missing > TOLERANCE_SECONDS * bytes_per_second:
            return f"its header declares {missing} bytes more than it has"
    return ""


def _reason(error: Exception) -> str:
    """What a decoder or the system says, without the file's name that it repeats."""
    if not isinstance(error, soundfile.LibsndfileError):
        return getattr(error, "strerror", None) or str(error)
    text = error.error_string.strip().rstrip(".").removeprefix("Error : ")
    # This is what libsndfile says of an .mp3 without an MPEG frame.
    return "no MPEG frame found" if text.startswith("File does not exist") else text
