"""Tiny configurations of the conformers on mel frames: w2v-BERT, SeamlessM4T, Parakeet and its relatives, LASR."""

from collections.abc import Iterator, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers

from tests.families.case import Case, seeded

BLOCKS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
W2V_BERT = {**BLOCKS, "conv_depthwise_kernel_size": 7, "left_max_position_embeddings": 16}
TEXT = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 20}
UNITS = {"t2u_encoder_layers": 1, "t2u_decoder_layers": 1, "t2u_encoder_ffn_dim": 32, "t2u_decoder_ffn_dim": 32}
SEAMLESS = {
    **TEXT,
    **UNITS,
    "hidden_size": 32,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "speech_encoder_layers": 3,
    "speech_encoder_attention_heads": 4,
    "speech_encoder_intermediate_size": 64,
    "conv_depthwise_kernel_size": 7,
}
FAST = {**BLOCKS, "num_mel_bins": 80, "subsampling_conv_channels": 8}
LASR = {**BLOCKS, "num_mel_bins": 128, "subsampling_conv_channels": 16}
STREAMING = {**FAST, "sliding_window": 9, "default_num_lookahead_tokens": 3}
CTC = {"vocab_size": 17, "pad_token_id": 16}
TRANSDUCER = {"vocab_size": 17, "blank_token_id": 16, "decoder_hidden_size": 16, "num_decoder_layers": 1}
DECODER = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "intermediate_size": 32,
    "vocab_size": 20,
    "max_position_embeddings": 32,
}


class Row(NamedTuple):
    """A case: names in transformers, where the encoder lies in the model ("": it is the model), odd mel bands."""

    name: str
    model: str
    config: dict
    extractor: str
    encoder: str = ""
    bands: int | None = None


def rows() -> Iterator[Row]:
    seamless = "SeamlessM4TFeatureExtractor"
    for position in ("relative_key", "relative", "rotary", None):
        config = {**W2V_BERT, "position_embeddings_type": position}
        yield Row(f"w2v-BERT {position}", "Wav2Vec2BertModel", config, seamless)
    adapted = {**W2V_BERT, "add_adapter": True, "num_adapter_layers": 1, "vocab_size": 20}
    yield Row("w2v-BERT CTC with adapter", "Wav2Vec2BertForCTC", adapted, seamless, "wav2vec2_bert")
    for position in ("relative", "rotary"):
        config = {**SEAMLESS, "position_embeddings_type": position}
        yield Row(f"SeamlessM4T {position}", "SeamlessM4TForSpeechToText", config, seamless, "speech_encoder")
    for chunk in (20000, 10):
        config = {**SEAMLESS, "speech_encoder_chunk_size": chunk, "speech_encoder_left_chunk_num": 1}
        yield Row(f"SeamlessM4Tv2 chunk {chunk}", "SeamlessM4Tv2ForSpeechToText", config, seamless, "speech_encoder")

    parakeet = "ParakeetFeatureExtractor"
    yield Row("Parakeet", "ParakeetEncoder", FAST, parakeet)
    yield Row("Parakeet factor 4", "ParakeetEncoder", {**FAST, "subsampling_factor": 4}, parakeet)
    plain = {**FAST, "scale_input": False, "attention_bias": False, "convolution_bias": False}
    yield Row("Parakeet CTC", "ParakeetForCTC", {**CTC, "encoder_config": plain}, parakeet, "encoder")
    mixed = {**CTC, "encoder_config": {**FAST, "num_mel_bins": 128, "subsampling_factor": 4}}
    yield Row("Parakeet CTC on LASR's frames", "ParakeetForCTC", mixed, "LasrFeatureExtractor", "encoder")
    for head in ("RNNT", "TDT"):
        config = {**TRANSDUCER, "encoder_config": FAST}
        yield Row(f"Parakeet {head}", f"ParakeetFor{head}", config, parakeet, "encoder")
    inner = {**FAST, "model_type": "parakeet_encoder"}
    decoding = {
        "decoder_config": DECODER,
        "vocab_size": 20,
        "encoder_config": inner,
    }
    yield Row("Canary", "CanaryForConditionalGeneration", decoding, parakeet, "model.encoder")
    cohere = {**DECODER, "encoder_config": inner}
    extractor = ("CohereAsrFeatureExtractor", "model.encoder", 80)
    yield Row("Cohere ASR", "CohereAsrForConditionalGeneration", cohere, *extractor)

    streaming = "NemotronAsrStreamingFeatureExtractor"
    yield Row("Nemotron streaming", "NemotronAsrStreamingEncoder", STREAMING, streaming)
    config = {**TRANSDUCER, "encoder_config": STREAMING}
    yield Row("Nemotron streaming RNNT", "NemotronAsrStreamingForRNNT", config, streaming, "encoder")
    prompted = {**config, "num_prompts": 4, "prompt_intermediate_size": 16}
    yield Row("Nemotron 3.5", "Nemotron3_5AsrForRNNT", prompted, streaming, "encoder")
    yield Row("LASR", "LasrEncoder", LASR, "LasrFeatureExtractor")
    yield Row("LASR CTC", "LasrForCTC", {**CTC, "encoder_config": LASR}, "LasrFeatureExtractor", "encoder")


def make(row: Row) -> tuple[Any, Any]:
    model_class = getattr(transformers, row.model)
    model = seeded(model_class, model_class.config_class(**row.config))
    for module in model.modules():
        # New batch norms do nothing; trained ones turn zeros into something else.
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.1)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return model, getattr(transformers, row.extractor)(**({"feature_size": row.bands} if row.bands else {}))


def run(row: Row, model: Any, inputs: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Penultimate and last states of the stock encoder, and its mask of the frames that count."""
    encoder = attrgetter(row.encoder)(model) if row.encoder else model
    # In w2v-BERT and SeamlessM4T an adapter may follow the conformer.
    conformer = getattr(encoder, "encoder", encoder)
    kept = []
    handle = conformer.register_forward_hook(lambda _module, _args, result: kept.append(result))
    with torch.no_grad():
        result = encoder(**inputs, output_hidden_states=True)
    handle.remove()
    last = getattr(kept[0], "last_hidden_state", kept[0])
    mask = inputs.get("attention_mask") if conformer is not encoder else getattr(result, "attention_mask", None)
    return result.hidden_states[len(conformer.layers) - 1], last, mask


def single(row: Row, model: Any, extractor: Any, clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inputs = extractor(clip, sampling_rate=16000, return_tensors="pt")
    inputs.pop("audio_chunk_index", None)
    penultimate, last, mask = run(row, model, inputs)
    count = last.shape[1] if mask is None else int(mask.sum())
    return penultimate[0, :count].numpy(), last[0, :count].numpy()


def padded(row: Row, model: Any, extractor: Any, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
    inputs = extractor(list(clips), sampling_rate=16000, return_tensors="pt", padding=True, return_attention_mask=True)
    inputs.pop("audio_chunk_index", None)
    states, _, _ = run(row, model, inputs)
    lengths = [single(row, model, extractor, clip)[0].shape[0] for clip in clips]
    return [states[index, :length].numpy() for index, length in enumerate(lengths)]


ROWS = [row for row in rows() if hasattr(transformers, row.model)]
CASES = [Case(row.name, partial(make, row), partial(single, row), partial(padded, row)) for row in ROWS]
