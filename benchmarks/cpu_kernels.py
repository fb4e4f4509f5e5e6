"""What encoders are made of on a CPU, by the library's own way and by ours: layers, attention, convolutions, blocks.

    python -m benchmarks.cpu_kernels

Calls of both alternate; medians. Convolutions come with the GELU behind them.
"""

import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import ParakeetEncoder, ParakeetEncoderConfig, Wav2Vec2Config, Wav2Vec2ConformerConfig, WhisperConfig
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2Encoder, Wav2Vec2FeatureEncoder
from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import Wav2Vec2ConformerEncoder
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from benchmarks.limits import DTYPES, matrix_rate
from speechfeat.encoders.blocked_attention import attend
from speechfeat.encoders.channels_last import convolve, to_channels_last
from speechfeat.encoders.flights import Flight, frames_of
from speechfeat.encoders.fused_conformer import fuse_conformer, fuse_waveform_conformer
from speechfeat.encoders.fused_wav2vec2 import fuse_waveform
from speechfeat.encoders.fused_whisper import fuse_whisper
from speechfeat.encoders.masking import MaskedGroupNorm, Padding
from speechfeat.encoders.precision import OneDnnLinear, Precision, has_onednn, has_slow_mkl
from speechfeat.encoders.shapes import widened, writes_code
from speechfeat.encoders.streams import Streams
from speechfeat.encoders.stretches import STRETCH_BYTES, run_in_stretches

CALLS = 9
HEADS, DIM = 12, 64
ATTENTION = {"attn_implementation": "sdpa"}
Call = Callable[[], object]
M = TypeVar("M", bound=nn.Module)


def linear_layers(dtype: torch.dtype) -> Iterator[tuple[str, float, Call, Call]]:
    """A name, GFLOP, and both ways, of each size."""
    for inputs, outputs in ((384, 1536), (768, 768), (768, 3072), (3072, 768)):
        stock, other = nn.Linear(inputs, outputs).to(dtype), OneDnnLinear(inputs, outputs).to(dtype)
        for rows in (50, 750):
            states = torch.randn(rows, inputs, dtype=dtype)
            name = f"linear {inputs} to {outputs}, {rows} frames"
            yield name, 2e-9 * inputs * outputs * rows, lambda a=stock, x=states: a(x), lambda a=other, x=states: a(x)


def attentions(dtype: torch.dtype) -> Iterator[tuple[str, float, Call, Call]]:
    """As `linear_layers`."""
    for length in (150, 300, 600, 1500):
        parts = [torch.randn(1, HEADS, length, DIM).to(dtype) for _ in range(3)]
        yield (
            f"attention, {HEADS} heads, {length} frames",
            4e-9 * length**2 * HEADS * DIM,
            lambda given=parts: F.scaled_dot_product_attention(*given),
            lambda given=parts: attend(*given, DIM**-0.5),
        )


def whole_rows(dtype: torch.dtype) -> Iterator[tuple[str, float, Call, Call]]:
    """As `linear_layers`; attention over a number of frames, and over the next that fills rows of AMX, with a mask."""
    if not writes_code(torch.device("cpu"), dtype):
        return
    for length in (57, 126, 251, 333, 502, 1000):
        own = [torch.randn(1, HEADS, length, DIM).to(dtype) for _ in range(3)]
        width = widened(length)
        wide = [F.pad(one, (0, 0, 0, width - length)) for one in own]
        mask = torch.zeros(width, width, dtype=dtype)
        mask[:, length:] = -torch.inf
        yield (
            f"attention, {HEADS} heads, {length} frames as {width}",
            4e-9 * length**2 * HEADS * DIM,
            lambda given=own: F.scaled_dot_product_attention(*given),
            lambda given=wide, bias=mask: F.scaled_dot_product_attention(*given, bias),
        )


def convolutions(dtype: torch.dtype) -> Iterator[tuple[str, float, Call, Call]]:
    """As `linear_layers`."""
    for length, kernel in ((38399, 3), (4799, 3), (1199, 2)):
        conv = nn.Conv1d(512, 512, kernel, stride=2).to(dtype)
        states = torch.randn(1, 512, length).to(dtype)
        inside = states.transpose(1, 2).contiguous().transpose(1, 2)
        yield (
            f"convolution of {kernel} taps, {length} places",
            1e-9 * length * kernel * 512**2,
            lambda a=conv, x=states: F.gelu(a(x)),
            lambda a=conv, x=inside: convolve(a, x, nn.GELU()),
        )
    for length in (150, 500, 1000):
        conv = nn.Conv1d(768, 768, 128, padding=64, groups=16).to(dtype)
        states = torch.randn(1, length, 768).to(dtype).transpose(1, 2)
        yield (
            f"16 groups of 128 taps, {length} places",
            1e-9 * length * 128 * 48 * 768 * 2,
            lambda a=conv, x=states: F.gelu(a(x)),
            lambda a=conv, x=states: convolve(a, x, nn.GELU()),
        )


def front_ends(dtype: torch.dtype) -> Iterator[tuple[str, float, Call, Call]]:
    """As `linear_layers`; ours of wav2vec 2.0 on utterances side by side, in one go and in stretches."""
    count = torch.get_num_threads()
    streams = Streams(1, count)

    def run(front_end: nn.Module, samples: torch.Tensor) -> list[Flight]:
        # Both are of the thread that enters them.
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            front_end(samples)
        return []

    for norm in ("group", "layer"):
        stock = Wav2Vec2FeatureEncoder(Wav2Vec2Config(feat_extract_norm=norm, conv_bias=norm == "layer"))
        outline, whole = _twins(stock, dtype)
        if norm == "group":
            whole.conv_layers[0].layer_norm = MaskedGroupNorm(whole.conv_layers[0].layer_norm, Padding(()), depth=1)
        for layer in whole.conv_layers:
            to_channels_last(layer)
        ways = whole, copy.deepcopy(whole)
        for way, size in zip(ways, (sys.maxsize, STRETCH_BYTES), strict=True):
            run_in_stretches(way, size)
        for length in (4, 10, 30):
            samples = torch.randn(1, length * 16000)
            with FlopCounterMode(display=False) as counter:
                outline(samples.to("meta"))
            tasks = [[partial(run, way, samples)] * count for way in ways]
            calls = [lambda some=some: frames_of(streams.begin(some)) for some in tasks]
            yield f"{norm}-normed front end, {length} s in stretches", count * counter.get_total_flops() / 1e9, *calls


def conformer_blocks(dtype: torch.dtype) -> Iterator[tuple[str, float, Call, Call]]:
    """As `linear_layers`; a block of the size of `conformer-s`."""
    sizes = {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 4, "num_key_value_heads": 4}
    stock, padding = ParakeetEncoder(ParakeetEncoderConfig(num_hidden_layers=1, **ATTENTION, **sizes)), Padding(())
    outline, fused = _twins(stock, dtype)
    fuse_conformer(fused, padding)
    for count, length in ((1, 25), (12, 25), (1, 300)):
        states = torch.randn(count, length, sizes["hidden_size"])
        padding.set([length] * count, length)
        ways = _blocks((outline, stock, fused), states, position_embeddings=stock.encode_positions(states))
        yield f"conformer block, {count} x {length} frames", *ways


def waveform_conformer_blocks(dtype: torch.dtype) -> Iterator[tuple[str, float, Call, Call]]:
    """As `linear_layers`; a block of the size of Wav2Vec2-Conformer large."""
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "hidden_act": "swish"}
    config = Wav2Vec2ConformerConfig(num_hidden_layers=1, position_embeddings_type="relative", **ATTENTION, **sizes)
    stock, padding = Wav2Vec2ConformerEncoder(config), Padding(())
    outline, fused = _twins(stock, dtype)
    fuse_waveform_conformer(fused.layers, config.hidden_size, padding)
    for length in (150, 500):
        states = torch.randn(1, length, config.hidden_size)
        padding.set([length], length)
        places = stock.embed_positions(states)
        ways = _blocks((outline, stock, fused), states, attention_mask=None, relative_position_embeddings=places)
        yield f"Wav2Vec2-Conformer block, {length} frames", *ways


def whisper_blocks(dtype: torch.dtype) -> Iterator[tuple[str, float, Call, Call]]:
    """As `linear_layers`; a block of the size of Whisper tiny, of all frames and as the deepest for 12 s."""
    config = WhisperConfig(d_model=384, encoder_ffn_dim=1536, encoder_attention_heads=6, encoder_layers=1, **ATTENTION)
    stock, padding = WhisperEncoder(config), Padding(())
    (outline, fused), length = _twins(stock, dtype), config.max_source_positions
    fuse_whisper(fused.layers, padding)
    states = torch.randn(1, length, config.d_model)
    for wanted in (length, 600):
        padding.set([length], length, wanted)
        ways = _blocks((outline, stock, fused), states, attention_mask=None)
        yield f"Whisper block, {wanted} of {length} frames", *ways


def waveform_blocks(dtype: torch.dtype) -> Iterator[tuple[str, float, Call, Call]]:
    """As `linear_layers`; a block of wav2vec 2.0's size, as one is in half precision with AMX."""
    if not writes_code(torch.device("cpu"), dtype):
        return
    stock, padding = Wav2Vec2Encoder(Wav2Vec2Config(num_hidden_layers=1, **ATTENTION)), Padding(())
    outline, fused = _twins(stock, dtype)
    fuse_waveform(fused.layers, padding, is_pre_norm=False)
    for length in (100, 320, 512, 640, 768, 1024):
        states = torch.randn(1, length, 768)
        padding.set([length], length)
        yield f"wav2vec 2.0 block, {length} frames", *_blocks((outline, stock, fused), states)


def first_products(dtype: torch.dtype) -> Iterator[tuple[str, float, float]]:
    """A name, the seconds of a product of a number of frames that was not met before, and those of the next such."""
    for inputs, outputs in ((768, 768), (768, 3072), (3072, 768)):
        layer = OneDnnLinear(inputs, outputs).to(dtype)
        times = []
        for rows in (401, 501, 601, 701, 801):
            states = torch.randn(rows, inputs, dtype=dtype)
            times.append([seconds(partial(layer, states)) for _ in range(2)])
        first, second = (statistics.median(part) for part in zip(*times[1:], strict=True))
        yield f"linear {inputs} to {outputs}, 501 to 801 frames", first, second


KINDS = (
    *(linear_layers, attentions, whole_rows, convolutions, front_ends),
    *(conformer_blocks, waveform_conformer_blocks, whisper_blocks, waveform_blocks),
)


def _twins(encoder: M, dtype: torch.dtype) -> tuple[M, M]:
    """An encoder's shapes alone, and a copy of it; it is brought to a dtype in place."""
    encoder.eval()
    outline = copy.deepcopy(encoder).to("meta")
    Precision(str(dtype).removeprefix("torch.")).convert(encoder, torch.device("cpu"))
    return outline, copy.deepcopy(encoder)


def _blocks(
    encoders: tuple[M, M, M],
    states: torch.Tensor,
    **given: torch.Tensor | None,
) -> tuple[float, Call, Call]:
    """GFLOP of the first block of an encoder by its shapes, and the calls of two others on states `[B, T, D]`."""

    def run(encoder: Any) -> None:
        encoder.layers[0](states, **given)

    outline, stock, fused = encoders
    shapes = {name: None if one is None else one.to("meta") for name, one in given.items()}
    with FlopCounterMode(display=False) as counter:
        outline.layers[0](states.to("meta"), **shapes)  # type: ignore[index, operator]
    return counter.get_total_flops() / 1e9, partial(run, stock), partial(run, fused)


def seconds(call: Call) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


@torch.inference_mode()
def main() -> None:
    device = torch.device("cpu")
    print(f"{torch.get_num_threads()} threads; MKL's float32 is {'' if has_slow_mkl(device) else 'not '}taken for slow")
    for name, dtype in DTYPES.items():
        if not has_onednn(device, dtype):
            print(f"oneDNN does not multiply {name} here")
            continue
        print(f"\n{name}, GFLOP/s; a large product {matrix_rate('cpu', name) / 1e9:.0f}")
        print(f"{'':42} torch   ours   ratio")
        for cases in KINDS:
            for label, work, stock, ours in cases(dtype):
                # As encoders are run, which take half precision by it.
                with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                    stock(), ours()
                    times = [(seconds(stock), seconds(ours)) for _ in range(CALLS)]
                one, other = (statistics.median(pair) for pair in zip(*times, strict=True))
                print(f"{label:42} {work / one:5.0f}  {work / other:5.0f}  {one / other:5.2f}x")
        print(f"\n{'ms of ours, ' + name:42} first   then")
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            for label, first, second in first_products(dtype):
                print(f"{label:42} {1e3 * first:5.1f}  {1e3 * second:5.1f}")


if __name__ == "__main__":
    main()
