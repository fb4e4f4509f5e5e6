"""What torchaudio calls bundles: its pretrained encoders by name, and its models in memory.

Its wav2vec 2.0, HuBERT and WavLM are the architectures of transformers under other names. They are renamed, so that
one implementation, with its exact batches, serves both. Its RNN-T models keep their own code.
"""

import difflib
import pickle
from typing import Any

import torch
from torch import Tensor, nn
from torchaudio import models, pipelines
from transformers import PreTrainedModel, Wav2Vec2Config, Wav2Vec2Model, WavLMConfig, WavLMModel

from speechfeat.encoders.backbone import Backbone
from speechfeat.encoders.torchaudio_models import conformer_backbone, emformer_backbone, mel_of_bundle
from speechfeat.encoders.wav2vec2 import WaveformBackbone
from speechfeat.errors import ModelError

# As torch.nn.functional.layer_norm has it, which the bundles apply to the waveform.
NORMALIZE_EPS = 1e-5

# Every encoder of these architectures in torchaudio takes this rate.
SAMPLE_RATE = 16000


def open_source(name: str, options: object) -> Backbone:
    """Load a bundle, from torch.hub's cache or from the network.

    The files are pickles; torch opens them for tensors alone, so that none of their code runs.

    Raises:
        ModelError: for an unknown name, or when the weights cannot be had.
    """
    del options
    bundle = _find(name)
    try:
        if isinstance(bundle, pipelines.RNNTBundle):
            front_end = mel_of_bundle(bundle)
            return emformer_backbone(bundle.get_decoder().model.transcriber, front_end)
        model = bundle.get_model(dl_kwargs={"weights_only": True, "map_location": "cpu"})
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the weights of torchaudio's {name} could not be had ({type(error).__name__}: {reason}); check the "
            f"connection, or put the file into {torch.hub.get_dir()}"
        ) from None
    return wrap(model, None)


def wrap(model: nn.Module, front_end: Any) -> Backbone:
    """Wrap a model of torchaudio that is in memory.

    Args:
        model: a wav2vec 2.0, HuBERT or WavLM with or without what bundles and pretraining put around it, a
            `Conformer`, an Emformer RNN-T, or the transcriber of one.
        front_end: samples to features for the last two; None for torchaudio's log-mel.

    Raises:
        ModelError: for any other model.
    """
    if isinstance(model, models.Conformer):
        return conformer_backbone(model, front_end)
    if isinstance(model, models.RNNT):
        model = model.transcriber
    if hasattr(model, "time_reduction"):
        return emformer_backbone(model, front_end)
    normalize = getattr(model, "normalize_waveform", False)
    inner = getattr(model, "model", getattr(model, "wav2vec2", model))
    if not isinstance(inner, models.Wav2Vec2Model):
        raise ModelError(
            f"{type(model).__name__} of torchaudio is no encoder known here (Wav2Vec2Model, Conformer, RNNT and its "
            "transcriber are); name its blocks, hop, window and sample rate with speechfeat.wrap_module"
        )
    return WaveformBackbone(convert(inner), SAMPLE_RATE, NORMALIZE_EPS if normalize else None)


def _find(name: str) -> Any:
    kinds = (pipelines.Wav2Vec2Bundle, pipelines.RNNTBundle)
    bundles = {key: value for key, value in vars(pipelines).items() if isinstance(value, kinds)}
    if name in bundles:
        return bundles[name]
    close = difflib.get_close_matches(name.upper(), bundles, n=2, cutoff=0.5)
    meant = f"; did you mean {' or '.join(repr(f'torchaudio:{match}') for match in close)}?" if close else ""
    raise ModelError(f"torchaudio has no encoder bundle {name!r}{meant} It has {', '.join(sorted(bundles))}")


def convert(model: models.Wav2Vec2Model) -> PreTrainedModel:
    """The same encoder in the classes of transformers; the weights are shared, not copied."""
    is_wavlm = hasattr(model.encoder.transformer.layers[0].attention, "rel_attn_embed")
    config_class, model_class = (WavLMConfig, WavLMModel) if is_wavlm else (Wav2Vec2Config, Wav2Vec2Model)
    with torch.device("meta"):
        converted = model_class(config_class(**_config(model, is_wavlm)))
    converted.load_state_dict(_renamed(model), assign=True)
    return converted.eval()


def _config(model: models.Wav2Vec2Model, is_wavlm: bool) -> dict[str, Any]:
    """The configuration of transformers, read off the modules."""
    convs = [layer.conv for layer in model.feature_extractor.conv_layers]
    transformer = model.encoder.transformer
    block = transformer.layers[0]
    group_norm = isinstance(model.feature_extractor.conv_layers[0].layer_norm, nn.GroupNorm)
    config = {
        "conv_dim": [conv.out_channels for conv in convs],
        "conv_kernel": [conv.kernel_size[0] for conv in convs],
        "conv_stride": [conv.stride[0] for conv in convs],
        "conv_bias": convs[0].bias is not None,
        "feat_extract_norm": "group" if group_norm else "layer",
        "num_conv_pos_embeddings": transformer.pos_conv_embed.conv.kernel_size[0],
        "num_conv_pos_embedding_groups": transformer.pos_conv_embed.conv.groups,
        "hidden_size": block.attention.embed_dim,
        "num_attention_heads": block.attention.num_heads,
        "num_hidden_layers": len(transformer.layers),
        "intermediate_size": block.feed_forward.intermediate_dense.out_features,
        "do_stable_layer_norm": block.layer_norm_first,
        # Without masking in training there is no masking vector, which torchaudio keeps elsewhere.
        "mask_time_prob": 0.0,
        "mask_feature_prob": 0.0,
    }
    if is_wavlm:
        config |= {"num_buckets": block.attention.num_buckets, "max_bucket_distance": block.attention.max_distance}
    return config


def _renamed(model: models.Wav2Vec2Model) -> dict[str, Tensor]:
    """The weights under the names of transformers, without those of a head."""
    weights = {}
    for name, tensor in model.state_dict().items():
        key = name.replace("encoder.transformer.", "encoder.").replace(
            "encoder.feature_projection", "feature_projection"
        )
        if key.startswith("aux."):
            continue
        if ".attention.attention.in_proj_" in key:
            # torch.nn.MultiheadAttention keeps the three projections in one matrix.
            prefix, kind = key.split(".attention.attention.in_proj_")
            for projection, part in zip("qkv", tensor.chunk(3), strict=True):
                weights[f"{prefix}.attention.{projection}_proj.{kind}"] = part
        else:
            weights[key.replace(".attention.attention.", ".attention.")] = tensor
    return weights
