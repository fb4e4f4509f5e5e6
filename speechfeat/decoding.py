"""Recordings as blocks of samples: libsndfile first, FFmpeg (PyAV, optional) for the containers it does not know."""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile

from speechfeat.errors import AudioError

SNDFILE_SUFFIXES = frozenset(
    ".wav .flac .ogg .oga .opus .mp3 .mp2 .aif .aiff .aifc .au .snd .sph .nist .w64 .rf64 .caf".split()
)
PYAV_SUFFIXES = frozenset(
    ".m4a .m4b .aac .mp4 .m4v .mov .3gp .webm .weba .mkv .mka .wma .amr .ac3 .avi".split()
)

# Values (samples times channels) decoded at once: 1 MiB of float32, whatever the number of channels.
BLOCK_VALUES = 2**18

# libsndfile's seconds decoded before a segment of an Ogg file: it primes the decoder with 80 ms only, after which
# Vorbis is wrong for one window and Opus keeps another noise state for seconds (measured: up to 0.006 of full
# scale with none, 0.003 with 4 s, nothing with 10 s). Ten seconds of Opus decode in 10 ms.
_OGG_PREROLL_SECONDS = 10

# A header may promise a little more than there is; a longer part missing makes a recording "truncated".
TOLERANCE_SECONDS = 0.1

# FLAC written to a pipe has no length; libsndfile then says 2**63 - 1.
_UNKNOWN_LENGTH = 2**62

# RIFF sizes from here on are placeholders of a writer that could not seek back (ffmpeg, sox in a pipe).
_RIFF_PLACEHOLDER = 0x7FFF0000

# First bytes of containers that both decoders or only FFmpeg know; anything else is not given to FFmpeg, which
# reads playlists and can take noise for audio.
_MEDIA_MAGIC = (
    *(b"RIFF", b"RIFX", b"FORM", b"OggS", b"fLaC", b"ID3", b"caff", b"\xff\xfb", b"\xff\xf3"),
    *(b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75", b"#!AMR", b"\xff\xf1", b"\xff\xf9", b"FLV", b"\x0b\x77"),
)


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
        """Blocks `[n, num_channels]` float32 from sample `first` on; valid until the next one, only once."""

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
        The open recording; closed at the end of the block.

    Raises:
        AudioError: if there is no readable file, or neither decoder knows it.
    """
    _check_file(path)
    recording: Recording
    try:
        recording = SndfileRecording(path)
    except soundfile.LibsndfileError as error:
        recording = _open_with_pyav(path, _reason(error))
    with closing(recording):
        yield recording


class SndfileRecording:
    """A recording that libsndfile decodes; its attributes are those of `Recording`."""

    def __init__(self, path: str) -> None:
        if Path(path).suffix.lower() == ".raw":
            raise AudioError(f"{path!r} is headerless audio; convert it to WAV or FLAC")
        # Bytes keep names that are not UTF-8, and decoding by name needs no Python call for each read. Absolute,
        # because libsndfile takes "-" for the standard input.
        name = os.fsencode(Path(path).absolute()) if os.name == "posix" else path
        self._file = soundfile.SoundFile(name)
        if self._file.format == "RAW":  # libsndfile takes .vox and .gsm by their suffix, whatever they hold
            self._file.close()
            raise AudioError(f"{path!r} is headerless audio; convert it to WAV or FLAC")
        self.sample_rate: int = self._file.samplerate
        self.num_channels: int = self._file.channels
        self.num_samples: int | None = self._file.frames if self._file.frames < _UNKNOWN_LENGTH else None
        self.damage = _missing_end(path, self._file)

    def blocks(self, first: int) -> Iterator[np.ndarray]:
        """Blocks from sample `first` on; a decoder error ends them and is kept in `damage`."""
        is_ogg = self._file.format == "OGG"
        start = max(0, first - _OGG_PREROLL_SECONDS * self.sample_rate) if is_ogg else first
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
                # soundfile drops the count of a failed read, and `tell` is wrong after it (MP3, FLAC without a
                # length); the samples are in the block all the same, up to the first one left as NaN.
                part = block[: np.argmax(np.isnan(np.append(block[:, 0], np.nan)))]
                if self.num_samples is not None:  # FLAC without a length always ends in an error
                    self.damage = _reason(error)
                yield part
                return
            if len(part) == 0:  # damaged Ogg files give short reads before their end
                return
            yield part


class PyavRecording:
    """A recording that FFmpeg decodes through PyAV; its attributes are those of `Recording`."""

    def __init__(self, path: str) -> None:
        import av

        self._error: type[Exception] = av.error.FFmpegError
        with ExitStack() as stack:
            # A file object, not a name: FFmpeg takes names for URLs, and playlists may then open others.
            file = stack.enter_context(Path(path).open("rb"))
            self._container = stack.enter_context(av.open(file))
            streams = self._container.streams
            if not streams.audio:
                kinds = ", ".join(sorted({stream.type for stream in streams})) or "nothing"
                raise AudioError(f"{path!r} holds no audio stream, only {kinds}")
            self._stream = streams.audio[0]
            self._frames = self._container.decode(self._stream)
            # Only a decoded frame has the true rate: the header of HE-AAC gives half of it.
            self._first = next(self._frames, None)
            if self._first is None:
                raise AudioError(f"{path!r} holds no samples")
            self.sample_rate: int = self._first.sample_rate
            self.num_channels: int = self._first.layout.nb_channels
            self.num_samples: int | None = self._header_samples()
            self.damage = ""
            self._stack = stack.pop_all()

    def blocks(self, first: int) -> Iterator[np.ndarray]:
        """Blocks from sample `first` on; a decoder error ends them and is kept in `damage`.

        Everything before `first` is decoded too: AAC fills its bands with noise from the decoder's state, so that
        only a decoder that has seen the whole beginning gives the same samples.
        """
        yield from _skip(self._decode(), first)

    def count_samples(self) -> int:
        """Samples of one channel, by the time stamps of the packets: nothing is decoded."""
        end = self._first.pts * self._first.time_base if self._first.pts is not None else 0
        end += self._first.samples / self.sample_rate
        for packet in self._container.demux(self._stream):
            if packet.pts is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        return round(end * self.sample_rate)

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def _header_samples(self) -> int | None:
        if self._stream.duration and "mp4" in self._container.format.name:
            return round(self._stream.duration * self._stream.time_base * self.sample_rate)
        if self._container.duration and "matroska" in self._container.format.name:
            return round(self._container.duration * self.sample_rate / 1_000_000)
        return None  # FFmpeg guesses the others from the bit rate

    def _decode(self) -> Iterator[np.ndarray]:
        frame = self._first
        try:
            while frame is not None:
                if (frame.sample_rate, frame.layout.nb_channels) != (self.sample_rate, self.num_channels):
                    self.damage = "its sample rate or channel count changes on the way"
                    return
                yield _frame_samples(frame)
                frame = next(self._frames, None)
        except self._error as error:
            self.damage = str(error.strerror)  # type: ignore[attr-defined]


def _frame_samples(frame) -> np.ndarray:
    """`[n, C]` float32 in [-1, 1] of a frame of any sample format."""
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
    """Raise AudioError unless `path` is a regular file with something in it that may be read."""
    file = Path(path)
    try:
        status = file.stat()
    except FileNotFoundError:
        if file.is_symlink():
            raise AudioError(f"{path!r} is a broken link to {str(file.readlink())!r}") from None
        raise AudioError(f"{path!r} does not exist") from None
    except (OSError, ValueError) as error:  # no permission on a parent, a loop of links, a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"{path!r} cannot be opened: {reason}") from error
    if stat.S_ISDIR(status.st_mode):
        listable = os.access(path, os.R_OK | os.X_OK)
        raise AudioError(f"{path!r} is a directory" + ("" if listable else " without permission to list it"))
    if not stat.S_ISREG(status.st_mode):  # libsndfile would wait for ever on a pipe
        raise AudioError(f"{path!r} is not a regular file but a device, pipe or socket")
    if status.st_size == 0:
        raise AudioError(f"{path!r} is empty (0 bytes)")
    if not os.access(path, os.R_OK):
        raise AudioError(f"{path!r} may not be read: no permission")


def _open_with_pyav(path: str, reason: str) -> PyavRecording:
    """Open what libsndfile rejected for `reason`, or raise AudioError with what the file is instead."""
    with Path(path).open("rb") as file:
        head = file.read(1024)
    if head.startswith(b"version https://git-lfs"):
        raise AudioError(f"{path!r} is a Git LFS pointer, not the recording; fetch it with: git lfs pull")
    if _is_text(head):
        raise AudioError(f"{path!r} is text, not audio; it starts with {head[:24]!r}")
    foreign = Path(path).suffix.lower() in PYAV_SUFFIXES or head[4:8] == b"ftyp"
    rejected = AudioError(f"{path!r} is not audio that libsndfile can read: {reason}")
    if not foreign and not head.startswith(_MEDIA_MAGIC):
        raise rejected
    try:
        return PyavRecording(path)
    except ImportError:
        if not foreign and head.startswith(_MEDIA_MAGIC[:9]):
            raise rejected from None
        raise AudioError(f"{path!r} needs PyAV to be decoded: pip install 'speechfeat[av]'") from None
    except (OSError, ValueError) as error:  # FFmpegError derives from either, or from both
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"{path!r} is not audio that libsndfile or FFmpeg can read: {reason}") from error


def _is_text(head: bytes) -> bool:
    """Whether the first bytes of a file read as text."""
    text = head.decode("utf-8", errors="ignore")
    readable = sum(char.isprintable() or char.isspace() for char in text)
    return readable == len(text) and len(text.encode()) > len(head) - 4  # the last character may be cut


def _missing_end(path: str, file: soundfile.SoundFile) -> str:
    """Why the end of an open recording is missing, "" if it is not.

    libsndfile corrects the length of a cut WAV, AIFF or Ogg file without a word, so their own marks are read: the
    size in the header of the first two, the end-of-stream flag of the last page of Ogg.
    """
    if file.format not in {"WAV", "WAVEX", "AIFF", "OGG"}:
        return ""
    with Path(path).open("rb") as raw:
        size = raw.seek(0, os.SEEK_END)
        if file.format == "OGG":
            raw.seek(max(0, size - 2 * 65536))  # a page has less than 64 KiB
            tail = raw.read()
            page = tail.rfind(b"OggS")
            ended = 0 <= page < len(tail) - 5 and tail[page + 5] & 4
            return "" if ended else "its last Ogg page is missing"
        raw.seek(0)
        head = raw.read(8)
    declared = int.from_bytes(head[4:], "big" if head[:4] in {b"FORM", b"RIFX"} else "little") + 8
    missing_samples = (declared - size) * file.frames / size
    if declared > _RIFF_PLACEHOLDER or missing_samples < TOLERANCE_SECONDS * file.samplerate:
        return ""
    return f"its header declares {declared} bytes, the file has {size}"


def _reason(error: soundfile.LibsndfileError) -> str:
    """What libsndfile says, without the name of the file that it repeats."""
    text = error.error_string.strip().rstrip(".")
    if text.startswith("File does not exist"):  # what it says of an .mp3 without an MPEG frame
        return "no MPEG frame found"
    return text.removeprefix("Error : ")
