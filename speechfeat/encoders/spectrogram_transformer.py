"""Audio Spectrogram Transformer: square patches of a log-mel spectrogram of one fixed window of 10.24 s.

Its states are two special tokens and one token for each patch, frequency by time. A frame here is the mean over the
frequencies of the patches at one time: it keeps the model's own dimension, and the mean over frames is then the mean
over patches. The special tokens, which belong to no time, are left out, and so are the patches that reach beyond the
recording into the silence that fills the window.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from transformers import ASTFeatureExtractor, PreTrainedModel

from speechfeat.encoders.backbone import Backbone
from speechfeat.errors import ModelError
from speechfeat.units import FrameGrid, Stage

# Kaldi's filter bank, which the feature extractor takes as it is: windows of 25 ms every 10 ms.
WINDOW_SECONDS = 0.025
HOP_SECONDS = 0.010

# The class token and the distillation token.
SPECIAL_TOKENS = 2


class SpectrogramTransformerBackbone(Backbone):
    """An Audio Spectrogram Transformer with its filter bank.

    Args:
        model: the base model, without a classifier.
        extractor: that of the checkpoint.
    """

    def __init__(self, model: PreTrainedModel, extractor: ASTFeatureExtractor) -> None:
        rate, config = extractor.sampling_rate, model.config
        filters = Stage(round(WINDOW_SECONDS * rate), round(HOP_SECONDS * rate))
        patches = Stage(config.patch_size, config.time_stride)
        super().__init__(
            model,
            model.layers,
            FrameGrid(rate, (filters, patches)),
            final_norm=model.layernorm,
            layout=self.to_frames,
            max_samples=(config.max_length - 1) * filters.stride + filters.kernel,
            exact_frames=False,
            input_stages=1,
        )
        self.extractor = extractor
        self.num_frequencies = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1

    def definition(self) -> dict[str, object]:
        """How the filter bank is normalised."""
        names = ("do_normalize", "mean", "std")
        return {name: getattr(self.extractor, name) for name in names}

    def to_frames(self, states: Tensor) -> Tensor:
        """Mean over frequency of the patches at each time, `[B, 2 + F * T, D]` -> `[B, T, D]`."""
        patches = states[:, SPECIAL_TOKENS:]
        return patches.unflatten(1, (self.num_frequencies, -1)).mean(1)

    def prepare(self, samples: np.ndarray) -> np.ndarray:
        """The extractor's filter bank of the whole window, `[N]` -> `[N', F]`."""
        features = self.extractor(samples, sampling_rate=self.extractor.sampling_rate, return_tensors="np")
        return features.input_values[0]

    def forward(self, inputs: Tensor, sizes: Sequence[int]) -> object:
        """Run the stock model; every input fills the window."""
        del sizes
        return self.module(inputs)


def backbone(model: PreTrainedModel, feature_extractor: object, options: object) -> SpectrogramTransformerBackbone:
    """Wrap a base model with the preprocessing of its checkpoint.

    Raises:
        ModelError: if the preprocessing is of another model.
    """
    del options
    if not isinstance(feature_extractor, ASTFeatureExtractor):
        raise ModelError(
            f"Audio Spectrogram Transformer needs an ASTFeatureExtractor, not a {type(feature_extractor).__name__}"
        )
    found = (feature_extractor.num_mel_bins, feature_extractor.max_length)
    needed = (model.config.num_mel_bins, model.config.max_length)
    if found != needed:
        raise ModelError(
            f"the feature extractor gives (mel bands, frames) = {found}, the model takes {needed}; "
            "they come from different checkpoints"
        )
    return SpectrogramTransformerBackbone(model, feature_extractor)
