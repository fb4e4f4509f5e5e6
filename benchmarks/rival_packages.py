"""The encoders of other packages, as `benchmarks.rivals` runs them; they come with `pip install -e ".[bench]"`."""

import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers

from speechfeat.encoders import classical

BATCH_SIZE = 8
SAMPLE_RATE = 16000
# Frames of each of a list of recordings, from their samples, and how many recordings are read for a call.
Encode = Callable[[list[np.ndarray]], list[np.ndarray]]


def cut(states: np.ndarray, batch: list[np.ndarray]) -> list[np.ndarray]:
    """Frames `[T, D]` of each of a padded batch: those who pad cut those of the padding off, or have none of use."""
    longest = max(map(len, batch))
    counts = [max(1, round(states.shape[1] * len(one) / longest)) for one in batch]
    return [values[:count] for values, count in zip(states, counts, strict=True)]


def torchaudio_loop(model: str, device: str) -> tuple[Encode, int]:
    """The wav2vec 2.0 of torchaudio's bundles with the same sizes and random weights, one recording at a time."""
    from torchaudio.models.wav2vec2.utils import import_huggingface_model

    # It imports models with a CTC head only.
    config = transformers.AutoConfig.from_pretrained(model)
    stock = transformers.Wav2Vec2ForCTC(config).eval()
    encoder = import_huggingface_model(stock).eval().to(device)

    def encode(batch: list[np.ndarray]) -> list[np.ndarray]:
        states, _ = encoder.extract_features(torch.from_numpy(batch[0])[None].to(device))
        return [states[-2][0].cpu().numpy()]

    return encode, 1


def speechbrain_wrapper(model: str, device: str) -> tuple[Encode, int]:
    """SpeechBrain's wrapper around transformers, padded batches."""
    from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2

    encoder = Wav2Vec2(source=model, save_path=model, output_all_hiddens=True, freeze=True).to(device)

    def encode(batch: list[np.ndarray]) -> list[np.ndarray]:
        longest = max(map(len, batch))
        waves = torch.from_numpy(np.stack([np.pad(one, (0, longest - len(one))) for one in batch])).to(device)
        relative = torch.tensor([len(one) / longest for one in batch], device=device)
        return cut(encoder(waves, relative)[-2].cpu().numpy(), batch)

    return encode, BATCH_SIZE


def s3prl_upstream(model: str, device: str) -> tuple[Encode, int]:
    """The wav2vec 2.0 of s3prl itself with the same sizes and random weights, padded batches.

    `s3prl.nn` and `s3prl.hub` do not import beside torchaudio 2.11 (they call `set_audio_backend` and import
    `sox_effects`, which are gone); the upstream that they would give does.
    """
    from s3prl.upstream.wav2vec2.expert import UpstreamExpert
    from s3prl.upstream.wav2vec2.wav2vec2_model import AudioPretrainingConfig, Wav2Vec2Config, Wav2Vec2Model

    config = transformers.AutoConfig.from_pretrained(model)
    own = Wav2Vec2Config(
        extractor_mode="layer_norm" if config.feat_extract_norm == "layer" else "default",
        encoder_layers=config.num_hidden_layers,
        encoder_embed_dim=config.hidden_size,
        encoder_ffn_embed_dim=config.intermediate_size,
        encoder_attention_heads=config.num_attention_heads,
        layer_norm_first=config.do_stable_layer_norm,
        conv_feature_layers=str(list(zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True))),
        conv_bias=config.conv_bias,
        conv_pos=config.num_conv_pos_embeddings,
        conv_pos_groups=config.num_conv_pos_embedding_groups,
    )
    task = AudioPretrainingConfig(normalize=config.feat_extract_norm == "layer")
    parts = {"task_cfg": dataclasses.asdict(task), "model_cfg": dataclasses.asdict(own)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "converted.pt"
        torch.save(parts | {"model_weight": Wav2Vec2Model(own).state_dict()}, file)
        encoder = UpstreamExpert(str(file)).eval().to(device)

    def encode(batch: list[np.ndarray]) -> list[np.ndarray]:
        states = encoder([torch.from_numpy(one).to(device) for one in batch])["hidden_states"][-2]
        return cut(states.cpu().numpy(), batch)

    return encode, BATCH_SIZE


def sentence_transformers_encode(model: str, device: str) -> tuple[Encode, int]:
    """`encode` of sentence-transformers 6, batches sorted by length; the last layer, which is all that it gives."""
    from sentence_transformers import SentenceTransformer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # It asks for a processor, and so for a tokenizer, which recordings do not need.
        (folder / "vocab.json").write_text(json.dumps({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4}))
        for file in Path(model).iterdir():
            if file.name != "vocab.json":
                (folder / file.name).symlink_to(file.absolute())
        encoder = SentenceTransformer(name, device=device)
    # It needs the mask, which checkpoints with group norm do not ask for.
    masked = {"audio": {"return_attention_mask": True}}

    def encode(batch: list[np.ndarray]) -> list[np.ndarray]:
        given = [{"array": one, "sampling_rate": SAMPLE_RATE} for one in batch]
        found = encoder.encode(given, batch_size=BATCH_SIZE, output_value="token_embeddings", processing_kwargs=masked)
        # It pads within its own batches, and its mask is of samples.
        counts = encoder[0].model._get_feat_extract_output_lengths(torch.tensor([len(one) for one in batch])).tolist()
        return [values[:count].cpu().numpy() for values, count in zip(found, counts, strict=True)]

    return encode, 32 * BATCH_SIZE


def librosa_loop(model: str, device: str) -> tuple[Encode, int]:
    """Librosa's functions of one call with the settings of `logmel` and `mfcc`, one recording at a time."""
    import librosa

    def encode(batch: list[np.ndarray]) -> list[np.ndarray]:
        options = {"sr": SAMPLE_RATE, "n_fft": classical.N_FFT, "hop_length": classical.HOP}
        if model == "logmel":
            energies = librosa.feature.melspectrogram(y=batch[0], n_mels=classical.NUM_MELS[model], **options)
            return [librosa.power_to_db(energies).T]
        number = classical.NUM_COEFFICIENTS
        values = librosa.feature.mfcc(y=batch[0], n_mfcc=number, n_mels=classical.NUM_MELS[model], **options)
        return [np.concatenate([values, librosa.feature.delta(values)]).T]

    return encode, 1


def torchaudio_transforms(model: str, device: str) -> tuple[Encode, int]:
    """Torchaudio's transforms with the settings of `logmel` and `mfcc`, one recording at a time."""
    from torchaudio import transforms
    from torchaudio.functional import compute_deltas

    options = {"n_fft": classical.N_FFT, "hop_length": classical.HOP, "n_mels": classical.NUM_MELS[model]}
    if model == "logmel":
        module = torch.nn.Sequential(
            transforms.MelSpectrogram(SAMPLE_RATE, **options), transforms.AmplitudeToDB(top_db=80.0)
        )
    else:
        module = transforms.MFCC(SAMPLE_RATE, classical.NUM_COEFFICIENTS, melkwargs=options)
    module = module.to(device)

    def encode(batch: list[np.ndarray]) -> list[np.ndarray]:
        values = module(torch.from_numpy(batch[0]).to(device))
        if model == "mfcc":
            values = torch.cat([values, compute_deltas(values, win_length=classical.DELTA_WIDTH)])
        return [values.T.cpu().numpy()]

    return encode, 1
