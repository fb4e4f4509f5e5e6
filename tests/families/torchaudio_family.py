"""Tiny configurations of torchaudio's encoders."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torchaudio import models
from torchaudio.pipelines._wav2vec2.utils import _extend_model

from speechfeat.encoders.torchaudio_models import MelFrontEnd
from tests.families.case import Case

TINY = {
    "extractor_conv_layer_config": [(16, 10, 5), *[(16, 3, 2)] * 4, *[(16, 2, 2)] * 2],
    "encoder_embed_dim": 32,
    "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 4,
    "encoder_num_layers": 3,
    "encoder_num_heads": 4,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 64,
    "encoder_ff_interm_dropout": 0.1,
    "encoder_dropout": 0.1,
    "encoder_layer_drop": 0.1,
    "aux_num_out": None,
}
WAVLM = {**TINY, "encoder_num_buckets": 32, "encoder_max_distance": 80}
EMFORMER = {
    "input_dim": 80,
    "encoding_dim": 24,
    "num_symbols": 5,
    "segment_length": 16,
    "right_context_length": 4,
    "time_reduction_input_dim": 8,
    "time_reduction_stride": 4,
    "transformer_num_heads": 4,
    "transformer_ffn_dim": 64,
    "transformer_num_layers": 3,
    "transformer_dropout": 0.1,
    "transformer_activation": "gelu",
    "transformer_left_context_length": 30,
    "transformer_max_memory_size": 0,
    "transformer_weight_init_scale_strategy": "depthwise",
    "transformer_tanh_on_mem": True,
    "symbol_embedding_dim": 8,
    "num_lstm_layers": 1,
    "lstm_layer_norm": True,
    "lstm_layer_norm_epsilon": 1e-3,
    "lstm_dropout": 0.1,
}


def waveform_model(kind: str, layer_norm: bool) -> nn.Module:
    """Random norms too, so that two of them taken for one another would show."""
    torch.manual_seed(0)
    build = models.wavlm_model if kind == "wavlm" else models.wav2vec2_model
    mode = "layer_norm" if layer_norm else "group_norm"
    config = {**(WAVLM if kind == "wavlm" else TINY), "extractor_mode": mode, "extractor_conv_bias": layer_norm}
    model = build(**config, encoder_layer_norm_first=layer_norm)
    for name, parameter in model.named_parameters():
        if "norm" in name or "gru_rel_pos_const" in name:
            nn.init.normal_(parameter, 1.0, 0.3)
    return model.eval()


def make_waveform(kind: str, layer_norm: bool, normalize: bool) -> tuple[Any, None]:
    model = waveform_model(kind, layer_norm)
    return _extend_model(model, normalize_waveform=True) if normalize else model, None


@torch.no_grad()
def single_waveform(model: Any, _extractor: None, clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inputs = torch.from_numpy(clip)[None]
    layers, _ = model.extract_features(inputs)
    last, _ = model(inputs)
    return layers[-2][0].numpy(), last[0].numpy()


@torch.no_grad()
def padded_waveform(model: Any, _extractor: None, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
    inputs = pad_sequence([torch.from_numpy(clip) for clip in clips], batch_first=True)
    layers, counts = model.extract_features(inputs, torch.tensor([len(clip) for clip in clips]))
    return [layers[-2][row, :count].numpy() for row, count in enumerate(counts)]


def mels(clips: Sequence[np.ndarray], right_context: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded features and their lengths, as the extractors of torchaudio's recipes give them."""
    features = [torch.from_numpy(MelFrontEnd().prepare(clip)) for clip in clips]
    padded = nn.functional.pad(pad_sequence(features, batch_first=True), (0, 0, 0, right_context))
    return padded, torch.tensor([len(one) for one in features])


def make_conformer(group_norm: bool, convolution_first: bool) -> tuple[Any, None]:
    torch.manual_seed(0)
    options = {"use_group_norm": group_norm, "convolution_first": convolution_first}
    return models.Conformer(80, 4, 64, 3, 31, **options).eval(), None


@torch.no_grad()
def run_blocks(model: Any, blocks: nn.ModuleList, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """Penultimate and last states `[B, T, D]`, and the lengths that the model gives."""
    states = []
    hooks = [block.register_forward_hook(lambda _block, _args, output: states.append(output)) for block in blocks]
    _, counts = model(*inputs)
    for hook in hooks:
        hook.remove()
    penultimate, last = (state[0] if isinstance(state, tuple) else state for state in states[-2:])
    return [penultimate.transpose(0, 1), last.transpose(0, 1), counts]


def run_conformer(model: Any, clips: Sequence[np.ndarray]) -> list[torch.Tensor]:
    return run_blocks(model, model.conformer_layers, *mels(clips))


def make_emformer(**overrides: Any) -> tuple[Any, None]:
    torch.manual_seed(0)
    return models.emformer_rnnt_model(**{**EMFORMER, **overrides}).eval(), None


def run_emformer(right_context: int, model: Any, clips: Sequence[np.ndarray]) -> list[torch.Tensor]:
    transcriber = model.transcriber
    return run_blocks(transcriber, transcriber.transformer.emformer_layers, *mels(clips, right_context))


def single(run: Any, model: Any, _extractor: None, clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    penultimate, last, _ = run(model, [clip])
    return penultimate[0].numpy(), last[0].numpy()


def padded(run: Any, model: Any, _extractor: None, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
    penultimate, _, counts = run(model, clips)
    return [penultimate[row, :count].numpy() for row, count in enumerate(counts)]


def waveform_case(kind: str, layer_norm: bool, normalize: bool) -> Case:
    name = f"torchaudio {kind} {'layer' if layer_norm else 'group'} norm{' normalised' if normalize else ''}"
    make = partial(make_waveform, kind, layer_norm, normalize)
    # The WavLM of torchaudio refuses lengths.
    return Case(name, make, single_waveform, None if kind == "wavlm" else padded_waveform)


def emformer_case(name: str, **overrides: Any) -> Case:
    run = partial(run_emformer, overrides.get("right_context_length", EMFORMER["right_context_length"]))
    return Case(f"Emformer {name}", partial(make_emformer, **overrides), partial(single, run), partial(padded, run))


CASES = [
    *[
        waveform_case(kind, layer_norm, normalize)
        for kind in ("wav2vec2", "wavlm")
        for layer_norm, normalize in ((False, False), (True, False), (True, True))
    ],
    *[
        Case(
            f"torchaudio Conformer {'group' if group_norm else 'batch'} norm{' convolution first' if first else ''}",
            partial(make_conformer, group_norm, first),
            partial(single, run_conformer),
            partial(padded, run_conformer),
        )
        for group_norm in (False, True)
        for first in (False, True)
    ],
    emformer_case("RNN-T"),
    emformer_case("RNN-T with memory", transformer_max_memory_size=2, transformer_left_context_length=3),
    emformer_case("RNN-T long right context", segment_length=8, right_context_length=8, time_reduction_stride=2),
    emformer_case("RNN-T no right context", right_context_length=0, transformer_left_context_length=4),
]
