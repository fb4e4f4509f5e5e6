"""What reading a recording promises, for every format, rate and kind of damage."""

import os
import struct
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from speechfeat import audio, decoding
from speechfeat.audio import decoder_versions, probe, read_audio
from speechfeat.errors import AudioError, ParameterError

# Format, subtype and suffix, with the largest error that storing makes.
FORMATS = {
    "wav8": ("WAV", "PCM_U8", ".wav", 2**-7),
    "wav16": ("WAV", "PCM_16", ".wav", 2**-15),
    "wav24": ("WAV", "PCM_24", ".wav", 2**-22),
    "wav32": ("WAV", "PCM_32", ".wav", 2**-22),
    "float": ("WAV", "FLOAT", ".wav", 0),
    "aiff": ("AIFF", "PCM_16", ".aiff", 2**-15),
    "flac": ("FLAC", "PCM_16", ".flac", 2**-15),
    "vorbis": ("OGG", "VORBIS", ".ogg", 0.2),
    "opus": ("OGG", "OPUS", ".opus", 0.3),
    "mp3": ("MP3", "MPEG_LAYER_III", ".mp3", 0.2),
}


def speechlike(num_samples: int, rate: int, num_channels: int = 1, seed: int = 0) -> np.ndarray:
    """A gliding tone in noise, `[num_samples, num_channels]`, another in each channel."""
    rng = np.random.default_rng(seed)
    times = np.arange(num_samples)[:, None] / rate
    tones = 0.3 * np.sin(2 * np.pi * (200 + 100 * np.arange(num_channels)) * times * (1 + 0.2 * times))
    return (tones + 0.02 * rng.standard_normal(tones.shape)).astype(np.float32)


def save(path: Path, samples: np.ndarray, rate: int, kind: str = "float") -> str:
    form, subtype, _, _ = FORMATS[kind]
    soundfile.write(path, samples, rate, format=form, subtype=subtype)
    return str(path)


def cut(path: str, kept: float) -> str:
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(len(data) * kept)])
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(tmp_path, kind):
    _, _, suffix, tolerance = FORMATS[kind]
    samples = speechlike(48_000, 16_000)
    path = save(tmp_path / f"x{suffix}", samples, 16_000, kind)
    info = probe(path)
    assert (info.sample_rate, info.num_channels) == (16_000, 1)
    assert info.duration == pytest.approx(3.0)
    read = read_audio(path, 16_000)
    assert read.samples.dtype == np.float32
    assert read.samples.flags.c_contiguous
    assert (read.samples.shape, read.source_rate, read.flags) == ((48_000,), 16_000, ())
    np.testing.assert_allclose(read.samples, samples[:, 0], atol=tolerance)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 44_101])
def test_resampling_is_that_of_soxr_and_has_the_nearest_length(tmp_path, rate):
    for num_samples in (2, 399, rate + 7):
        samples = speechlike(num_samples, rate)
        read = read_audio(save(tmp_path / "x.wav", samples, rate), 16_000)
        assert len(read.samples) == int(num_samples * 16_000 / rate + 0.5)
        np.testing.assert_array_equal(read.samples, soxr.resample(samples[:, 0], rate, 16_000))
        assert ("narrowband" in read.flags) == (rate < 16_000)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_segment_is_a_slice_of_the_whole(tmp_path, kind, rate):
    path = save(tmp_path / f"x{FORMATS[kind][2]}", speechlike(4 * rate, rate), rate, kind)
    whole = read_audio(path, 16_000).samples
    for start, duration in [(0.0, 1.0), (0.3, 0.5), (1.23456, 1.0), (2.0, None), (3.99, None)]:
        segment = read_audio(path, 16_000, start=start, duration=duration)
        begin = round(start * 16_000)
        end = None if duration is None else begin + round(duration * 16_000)
        assert segment.flags == ()
        atol = 0 if rate == 16_000 and kind != "opus" else 2e-6
        np.testing.assert_allclose(segment.samples, whole[begin:end], rtol=0, atol=atol)


def test_segment_of_variable_rate_mp3(tmp_path):
    # Tone, then noise, then silence: the bit rate varies, and seeking by it lands elsewhere.
    samples = np.concatenate([speechlike(160_000, 16_000)[:, 0], np.zeros(80_000, np.float32)])
    samples[80_000:120_000] = 0.3 * np.random.default_rng(0).standard_normal(40_000)
    path = str(tmp_path / "x.mp3")
    with soundfile.SoundFile(path, "w", 16_000, 1, format="MP3", bitrate_mode="VARIABLE") as file:
        file.write(samples)
    whole = read_audio(path, 16_000)
    assert len(whole.samples) == 240_000
    assert whole.flags == ()
    np.testing.assert_array_equal(
        read_audio(path, 16_000, start=6.1, duration=2).samples, whole.samples[97_600:129_600]
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_block_size_changes_nothing(tmp_path, kind, monkeypatch):
    path = save(tmp_path / f"x{FORMATS[kind][2]}", speechlike(48_000, 24_000, 2), 24_000, kind)
    whole = read_audio(path, 16_000).samples
    for block_values in (2_000, 6_002, 2**16):
        monkeypatch.setattr(decoding, "BLOCK_VALUES", block_values)
        np.testing.assert_array_equal(read_audio(path, 16_000).samples, whole)


def test_channels(tmp_path):
    samples = speechlike(8_000, 16_000, 3)
    path = save(tmp_path / "x.wav", samples, 16_000)
    np.testing.assert_allclose(read_audio(path, 16_000).samples, samples.mean(axis=1), atol=1e-7)
    for channel in range(3):
        np.testing.assert_array_equal(read_audio(path, 16_000, channel).samples, samples[:, channel])
    with pytest.raises(AudioError, match="no channel 3: it has 3"):
        read_audio(path, 16_000, 3)


def test_ends(tmp_path):
    path = save(tmp_path / "x.wav", speechlike(44_100, 44_100), 44_100)
    overhang = read_audio(path, 16_000, start=0.5, duration=0.55)
    assert (len(overhang.samples), overhang.flags) == (8_000, ())
    short = read_audio(path, 16_000, start=0.5, duration=2.0)
    assert (len(short.samples), short.flags) == (8_000, ("truncated",))
    for start in (1.0, 1.5, 1e9):
        with pytest.raises(AudioError, match=r"past the end of .*, which has 1\.000 s"):
            read_audio(path, 16_000, start=start)
    with pytest.raises(AudioError, match="shorter than a sample"):
        read_audio(path, 16_000, duration=1e-6)
    with pytest.raises(AudioError, match="shorter than a sample"):
        read_audio(save(tmp_path / "one.wav", np.ones((1, 1)), 44_100), 16_000)


@pytest.mark.parametrize(
    "arguments",
    [
        {"sample_rate": 0},
        {"channel": "all"},
        {"channel": -1},
        {"channel": True},
        {"start": -0.1},
        {"start": float("nan")},
        {"duration": 0},
        {"duration": float("inf")},
    ],
)
def test_bad_calls(tmp_path, arguments):
    path = save(tmp_path / "x.wav", speechlike(100, 16_000), 16_000)
    with pytest.raises(ParameterError, match=next(iter(arguments))):
        read_audio(path, **{"sample_rate": 16_000, **arguments})


def test_silence(tmp_path):
    for kind in ("wav16", "flac", "opus", "mp3"):
        path = save(tmp_path / f"x{FORMATS[kind][2]}", np.zeros((16_000, 1)), 16_000, kind)
        assert read_audio(path, 16_000).flags == ("silent",)
    quiet = np.zeros((16_000, 1))
    quiet[5] = 2**-15
    assert read_audio(save(tmp_path / "x.wav", quiet, 16_000, "wav16"), 16_000).flags == ()


@pytest.mark.parametrize("kind", ["wav16", "aiff", "flac", "vorbis", "opus", "mp3"])
def test_cut_recordings_keep_what_there_is(tmp_path, kind):
    samples = speechlike(64_000, 16_000)
    path = save(tmp_path / f"x{FORMATS[kind][2]}", samples, 16_000, kind)
    whole = read_audio(path, 16_000).samples
    kept = read_audio(cut(path, 0.6), 16_000)
    assert kept.flags == ("truncated",)
    assert 16_000 < len(kept.samples) < 45_000
    num_same = len(kept.samples) - 2_000  # decoders fade or fill what they cannot finish
    np.testing.assert_array_equal(kept.samples[:num_same], whole[:num_same])
    assert read_audio(path, 16_000, duration=0.5).flags == ()


def test_damage_in_the_middle(tmp_path):
    path = save(tmp_path / "x.flac", speechlike(64_000, 16_000), 16_000, "flac")
    whole = read_audio(path, 16_000).samples
    data = bytearray(Path(path).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 500] = bytes(500)
    Path(path).write_bytes(data)
    kept = read_audio(path, 16_000)
    assert kept.flags == ("truncated",)
    assert len(kept.samples) > 16_000
    np.testing.assert_array_equal(kept.samples, whole[: len(kept.samples)])


def test_streams_without_a_length(tmp_path):
    samples = speechlike(32_000, 16_000)
    flac = Path(save(tmp_path / "x.flac", samples, 16_000, "flac"))
    data = bytearray(flac.read_bytes())
    data[21] &= 0xF0  # STREAMINFO: 36 bits of the number of samples
    data[22:26] = bytes(4)
    flac.write_bytes(data)
    wav = Path(save(tmp_path / "x.wav", samples, 16_000, "wav16"))
    data = bytearray(wav.read_bytes())
    data[4:8] = data[40:44] = b"\xff" * 4
    wav.write_bytes(data)
    for path in (flac, wav):
        assert probe(str(path)).duration == 2.0
        read = read_audio(str(path), 16_000)
        assert (len(read.samples), read.flags) == (32_000, ())
        assert len(read_audio(str(path), 16_000, start=1.5).samples) == 8_000
    with pytest.raises(AudioError, match="no samples from 5"):
        read_audio(str(flac), 16_000, start=5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_numbers(tmp_path, value):
    samples = speechlike(1_000, 16_000, 2)
    samples[500, 1] = value
    path = save(tmp_path / "x.wav", samples, 16_000)
    with pytest.raises(AudioError, match="NaN or infinite"):
        read_audio(path, 16_000)
    assert len(read_audio(path, 16_000, 0).samples) == 1_000


def wav_header(rate: int) -> bytes:
    fields = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 136, b"WAVE", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    return fields + struct.pack("<4sI", b"data", 100) + bytes(100)


NOISE = np.random.default_rng(0).integers(0, 256, 5_000, dtype=np.uint8).tobytes()
NOT_AUDIO = {
    "empty": ("x.wav", b"", r"empty \(0 bytes\)"),
    "text": ("x.wav", "Où est le son ?\n".encode() * 100, "is text, not audio"),
    "playlist": ("x.m4a", b"#EXTM3U\nhttp://example.org/a.ts\n", "is text, not audio"),
    "lfs": ("x.flac", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "noise": ("x.wav", NOISE, "cannot be read by libsndfile"),
    "noise as mp3": ("x.mp3", NOISE, "no MPEG frame found"),
    "zeros": ("x.flac", bytes(5_000), "cannot be read by libsndfile"),
    "header only": ("x.wav", b"RIFF\x04\0\0\0WAVE", "cannot be read"),
    "raw": ("x.raw", bytes(5_000), "headerless"),
    "vox": ("x.vox", NOISE, "headerless"),
    "rate": ("x.wav", wav_header(3), "sample rate of 3 Hz"),
    "huge rate": ("x.wav", wav_header(2_000_000_000), "sample rate of 2000000000 Hz"),
}


@pytest.mark.parametrize("case", NOT_AUDIO.values(), ids=NOT_AUDIO)
def test_what_is_not_audio(tmp_path, case):
    name, data, message = case
    (tmp_path / name).write_bytes(data)
    for call in (probe, lambda path: read_audio(path, 16_000)):
        with pytest.raises(AudioError, match=message) as error:
            call(str(tmp_path / name))
        assert "\n" not in str(error.value)


def test_what_is_not_a_file(tmp_path):
    (tmp_path / "dir.wav").mkdir()
    (tmp_path / "broken.wav").symlink_to(tmp_path / "gone.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    save(tmp_path / "none.wav", np.zeros((0, 1)), 16_000, "wav16")
    cases = {
        "dir.wav": "is a directory",
        "broken.wav": "broken link to .*gone",
        "loop.wav": "cannot be opened",
        "pipe.wav": "not a regular file",
        "absent.wav": "does not exist",
        "nul\0.wav": "cannot be opened",
        "long" * 100: "cannot be opened",
        "none.wav": "holds no samples",
    }
    for name, message in cases.items():
        for call in (probe, lambda path: read_audio(path, 16_000)):
            with pytest.raises(AudioError, match=message):
                call(str(tmp_path / name))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read every file")
def test_no_permission(tmp_path):
    path = save(tmp_path / "x.wav", speechlike(100, 16_000), 16_000)
    Path(path).chmod(0)
    with pytest.raises(AudioError, match="Permission denied"):
        probe(path)


@pytest.mark.parametrize("name", [b"caf\xe9.flac", b"two\nlines.flac", b"-n.flac", b"-", b" .flac", b"a:b.flac"])
def test_odd_names(tmp_path, name, monkeypatch):
    save(tmp_path / "plain.flac", speechlike(1_000, 16_000), 16_000, "flac")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.flac").rename(os.fsdecode(name))
    assert probe(os.fsdecode(name)).sample_rate == 16_000
    assert len(read_audio(os.fsdecode(name), 16_000).samples) == 1_000


def test_memory_is_that_of_the_result(tmp_path):
    path = save(tmp_path / "x.wav", speechlike(60 * 44_100, 44_100, 2), 44_100, "wav16")
    tracemalloc.start()
    try:
        samples = read_audio(path, 16_000).samples
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert samples.nbytes == 60 * 16_000 * 4
    assert peak < samples.nbytes + 12 * 2**18  # a block, one of its channels, and that resampled


def test_threads_agree(tmp_path):
    paths = [save(tmp_path / f"{k}.flac", speechlike(20_000 + k, 22_050, seed=k), 22_050, "flac") for k in range(16)]
    alone = [read_audio(path, 16_000).samples for path in paths]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda path: read_audio(path, 16_000).samples, paths * 3))
    for one, other in zip(alone * 3, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_suffixes_and_versions():
    assert {".wav", ".flac", ".opus", ".mp3", ".m4a", ".webm"} <= audio.AUDIO_SUFFIXES
    versions = decoder_versions()
    assert {"libsndfile", "soundfile", "soxr"} <= set(versions)
    assert all(versions.values())


def encode(path: Path, codec: str, samples: np.ndarray, rate: int) -> str:
    """Samples `[n, 2]` in a container of FFmpeg."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="stereo")
        resampler = av.AudioResampler(format=stream.codec_context.format.name, layout="stereo", rate=rate)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = rate, 0
        fifo = av.AudioFifo()
        for part in resampler.resample(frame):
            fifo.write(part)
        while (part := fifo.read(960)) or (part := fifo.read(0, partial=True)):
            for packet in stream.encode(part):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return str(path)


CONTAINERS = {".m4a": "aac", ".mp4": "aac", ".aac": "aac", ".webm": "libopus", ".mkv": "flac", ".mov": "alac"}


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_containers_of_ffmpeg(tmp_path, suffix):
    samples = speechlike(96_000, 48_000, 2)
    path = encode(tmp_path / f"x{suffix}", CONTAINERS[suffix], samples, 48_000)
    info = probe(path)
    assert (info.sample_rate, info.num_channels) == (48_000, 2)
    assert info.duration == pytest.approx(2.0, abs=0.05)
    whole = read_audio(path, 48_000, 0)
    assert whole.flags == ()
    assert len(whole.samples) == pytest.approx(96_000, abs=2_500)
    if suffix in {".mkv", ".mov"}:
        np.testing.assert_allclose(whole.samples, samples[:, 0], atol=2**-14)
    segment = read_audio(path, 48_000, 0, start=0.7, duration=0.5)
    np.testing.assert_array_equal(segment.samples, whole.samples[33_600:57_600])
    if suffix == ".mkv":
        assert read_audio(cut(path, 0.5), 16_000).flags == ("truncated",)
    if suffix == ".m4a":  # its index comes last
        with pytest.raises(AudioError, match="libsndfile or FFmpeg"):
            read_audio(cut(path, 0.5), 16_000)


def test_mp3_of_variable_rate_without_its_length(tmp_path, monkeypatch):
    path = tmp_path / "x.mp3"
    with soundfile.SoundFile(path, "w", 16_000, 1, format="MP3", bitrate_mode="VARIABLE") as file:
        file.write(np.concatenate([np.zeros(80_000), 0.3 * np.random.default_rng(0).standard_normal(80_000)]))
    data = path.read_bytes()
    path.write_bytes(data[data.index(data[:2], 4) :])  # without the first frame, which is the tag
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "av.error", None)
        with pytest.raises(AudioError, match=r"speechfeat\[av\]"):
            read_audio(str(path), 16_000)
    pytest.importorskip("av")
    assert probe(str(path)).duration == pytest.approx(10, abs=0.15)
    read = read_audio(str(path), 16_000)
    assert len(read.samples) / 16_000 == pytest.approx(10, abs=0.15)


def test_container_without_audio(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        for packet in [*stream.encode(image), *stream.encode(None)]:
            container.mux(packet)
    with pytest.raises(AudioError, match="no audio stream, only video"):
        probe(str(tmp_path / "x.mp4"))


def test_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "av.error", None)
    (tmp_path / "x.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    with pytest.raises(AudioError, match=r"needs PyAV .*pip install 'speechfeat\[av\]'"):
        read_audio(str(tmp_path / "x.m4a"), 16_000)
    (tmp_path / "x.wav").write_bytes(b"RIFF\x04\0\0\0WAVE" + bytes(100))
    with pytest.raises(AudioError, match="cannot be read by libsndfile:"):
        read_audio(str(tmp_path / "x.wav"), 16_000)
