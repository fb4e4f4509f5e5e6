"""What the first and last bytes of a recording tell that libsndfile does not: what it is, and whether it is whole."""

import mmap
import os
from pathlib import Path

# RIFF sizes from here on are placeholders of a writer that could not seek back (ffmpeg, sox in a pipe).
_RIFF_PLACEHOLDER = 0x7FFF0000

# An Ogg page has less than 64 KiB: the last whole one begins in the last two of them, even in a cut file.
_OGG_TAIL = 2 * 65536

# Kilobits per second of MPEG layer III by the index in a frame's header; 0 is "free", 15 is not allowed.
_KILOBITS_MPEG1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KILOBITS_MPEG2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG1_RATES = (44_100, 48_000, 32_000)

# First bytes of the containers that libsndfile reads, and of those that only FFmpeg does.
_SNDFILE_MAGIC = (b"RIFF", b"RIFX", b"FORM", b"OggS", b"fLaC", b"ID3", b"caff")
_MPEG_SYNC = tuple(bytes([0xFF, second]) for second in (0xFA, 0xFB, 0xF2, 0xF3, 0xE2, 0xE3))
_FFMPEG_MAGIC = (b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75", b"#!AMR", b"\xff\xf1", b"\xff\xf9", b"FLV", b"\x0b\x77")


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file read as UTF-8 text."""
    text = head.decode("utf-8", errors="ignore")
    readable = all(char.isprintable() or char.isspace() for char in text)
    return readable and len(text.encode()) > len(head) - 4  # the last character may be cut


def is_sndfile_container(head: bytes) -> bool:
    """Whether a file begins like one that libsndfile reads."""
    return head.startswith(_SNDFILE_MAGIC + _MPEG_SYNC)


def is_ffmpeg_container(head: bytes) -> bool:
    """Whether a file begins like one that only FFmpeg reads: MP4, Matroska, ASF, AMR, ADTS, Flash, AC-3."""
    return head.startswith(_FFMPEG_MAGIC) or head[4:8] == b"ftyp"


def missing_riff_bytes(path: str) -> int:
    """Bytes that the header of a WAV or AIFF file promises and the file does not have; 0 if it is whole."""
    with Path(path).open("rb") as file:
        head = file.read(8)
        size = file.seek(0, os.SEEK_END)
    declared = int.from_bytes(head[4:], "big" if head[:4] in {b"FORM", b"RIFX"} else "little") + 8
    return 0 if declared > _RIFF_PLACEHOLDER else max(0, declared - size)


def has_ogg_end(path: str) -> bool:
    """Whether an Ogg file ends in a whole page with the end-of-stream flag."""
    with Path(path).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _OGG_TAIL))
        tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27 or not page[5] & 4:
        return False
    lacing = page[27 : 27 + page[26]]  # the sizes of the pieces that make its body
    return len(page) >= 27 + page[26] + sum(lacing)


def has_guessed_length(path: str) -> bool:
    """Whether an MP3 file has a variable bit rate and no tag with its length.

    libsndfile takes the length of a file without a Xing, Info or VBRI tag from the bit rate of its first frame and
    stops decoding there: of a recording that begins in silence most would be lost without a word.
    """
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = 0
        if data[:3] == b"ID3":  # its size is four bytes of seven bits
            start = 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
        first = data[start : start + 200]
        if any(tag in first for tag in (b"Xing", b"Info", b"VBRI")):
            return False
        bit_rates = set()
        position = start
        while frame := _mpeg_frame(data[position : position + 4]):
            kilobits, num_bytes = frame
            bit_rates.add(kilobits)
            if len(bit_rates) > 1:
                return True
            position += num_bytes
    return False


def _mpeg_frame(header: bytes) -> tuple[int, int] | None:
    """Kilobits per second and bytes of the layer III frame with this header; None if it is not one."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version = header[1] >> 3 & 3  # 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
    rate_index, bit_rate_index = header[2] >> 2 & 3, header[2] >> 4
    if version == 1 or rate_index == 3 or bit_rate_index in {0, 15}:
        return None
    kilobits = (_KILOBITS_MPEG1 if version == 3 else _KILOBITS_MPEG2)[bit_rate_index]
    rate = _MPEG1_RATES[rate_index] // {3: 1, 2: 2, 0: 4}[version]
    samples_per_byte = 144_000 if version == 3 else 72_000
    return kilobits, samples_per_byte * kilobits // rate + (header[2] >> 1 & 1)
