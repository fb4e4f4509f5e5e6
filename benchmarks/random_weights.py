"""Models with random weights: what an architecture costs or gives without training."""

import torch
import transformers

from speechfeat.encoders.catalog import find

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}

# name -> model_type and what differs from its default configuration
SIZES = {
    "wav2vec2-base": ("wav2vec2", {}),
    "wavlm-base": ("wavlm", {}),
    "wav2vec2-conformer-large": ("wav2vec2-conformer", LARGE),
}


def random_model(name: str) -> tuple[transformers.PreTrainedModel, object]:
    """A model with random weights (seed 0) and its feature extractor.

    Args:
        name: one of `SIZES`, a name of the catalogue, or a checkpoint directory, whose weights are not read.
    """
    if name in SIZES:
        model_type, changes = SIZES[name]
        config = transformers.AutoConfig.for_model(model_type, **changes)
        extractor: object = transformers.Wav2Vec2FeatureExtractor()
    else:
        spec = find(name)
        source = spec.source if spec else name
        config = transformers.AutoConfig.from_pretrained(source)
        extractor = transformers.AutoFeatureExtractor.from_pretrained(source)
    torch.manual_seed(0)
    # A checkpoint in half precision says so in its configuration.
    return transformers.AutoModel.from_config(config, dtype=torch.float32), extractor
