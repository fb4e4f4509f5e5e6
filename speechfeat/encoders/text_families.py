"""Text models as a table: where the blocks of each architecture are, and what follows them.

One mechanism carries them all: the stock model runs on a batch that is padded on its right with the mask of what is
valid, and taps read its blocks. Positions then count from the first token, which is what every one of these models does
to a text alone; a causal model never sees what is right of a token, the others are told by the mask.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import transformers
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig

from speechfeat.errors import ModelError


class TextFamily(NamedTuple):
    """What is to be known of an architecture.

    Attributes:
        blocks: path of the stack of blocks in the model.
        norm: path of the norm that follows the last block, or "" where that ends in one.
        causal: whether a token sees only those before it.
        model: name of the class in transformers, where `AutoModel` would load more than the text encoder.
        part: of the configuration, where the checkpoint is of a larger model.
        key_mapping: from names of the checkpoint's weights to those of the model, as patterns.
    """

    blocks: str
    norm: str = ""
    causal: bool = False
    model: str = ""
    part: str = ""
    key_mapping: dict[str, str] | None = None


BERT = TextFamily("encoder.layer")
T5 = TextFamily("encoder.block", "encoder.final_layer_norm")
LLAMA = TextFamily("layers", "norm", causal=True)
CLIP = TextFamily("encoder.layers", "final_layer_norm", causal=True, model="CLIPTextModel")
CLAP = TextFamily("encoder.layer", model="ClapTextModel")
# Of a model of two towers, the weights of the text's.
TOWER = {r"^text_model\.": ""}

# model_type of a transformers configuration -> its family
TEXT_FAMILIES = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "data2vec-text", "electra", "mpnet"), BERT),
    **dict.fromkeys(("deberta", "deberta-v2"), BERT),
    "roberta-prelayernorm": TextFamily("encoder.layer", "LayerNorm"),
    "xlm-roberta-xl": TextFamily("encoder.layer", "encoder.LayerNorm"),
    "distilbert": TextFamily("transformer.layer"),
    "albert": TextFamily("encoder.albert_layer_groups"),
    "modernbert": TextFamily("layers", "final_norm"),
    "eurobert": TextFamily("layers", "norm"),
    "t5": T5._replace(model="T5EncoderModel"),
    "mt5": T5._replace(model="MT5EncoderModel"),
    "umt5": T5._replace(model="UMT5EncoderModel"),
    "gpt2": TextFamily("h", "ln_f", causal=True),
    "gpt_neo": TextFamily("h", "ln_f", causal=True),
    "gpt_neox": TextFamily("layers", "final_layer_norm", causal=True),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3"), LLAMA),
    **dict.fromkeys(("olmo2", "smollm3", "granite", "stablelm", "starcoder2"), LLAMA),
    "clip_text_model": CLIP,
    "clip": CLIP._replace(part="text_config", key_mapping=TOWER),
    "clap_text_model": CLAP,
    "clap": CLAP._replace(part="text_config", key_mapping=TOWER),
}


def find_text_family(config: PretrainedConfig, source: str) -> TextFamily:
    """The family of a configuration.

    Raises:
        ModelError: if it is no text encoder that is known.
    """
    family = TEXT_FAMILIES.get(config.model_type)
    if family is None:
        raise ModelError(
            f"{source!r} is a {config.model_type!r} model, which is no text encoder known here; known types: "
            f"{', '.join(sorted(TEXT_FAMILIES))}"
        )
    return family


def model_class(family: TextFamily, config: PretrainedConfig) -> Any:
    """The class of transformers that holds the text encoder and no more."""
    return getattr(transformers, family.model) if family.model else AutoModel._model_mapping[type(config)]


def text_tower(model: Any, family: TextFamily) -> nn.Module:
    """The text encoder within a model in memory, which may have a head or another tower.

    Raises:
        ModelError: if there is none.
    """
    wanted = getattr(transformers, family.model) if family.model else None
    if wanted is None or isinstance(model, wanted):
        return getattr(model, "base_model", model)
    for module in model.modules():
        if isinstance(module, wanted):
            return module
    if family.model.endswith("EncoderModel") and hasattr(model, "get_encoder"):
        stack = model.get_encoder()
        # The encoder's stack alone, under the name that it has in the encoder model.
        return _Holder(stack)
    raise ModelError(f"{type(model).__name__} has no {family.model}; give the text encoder itself")


class _Holder(nn.Module):
    """A stack under the name `encoder`."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config

    def forward(self, **inputs: Any) -> object:
        """Run the stack."""
        return self.encoder(**inputs)


def find_blocks(model: nn.Module, family: TextFamily) -> tuple[Sequence[nn.Module], nn.Module | None]:
    """The blocks, one for each layer, and the norm behind them."""
    blocks: Any = model.get_submodule(family.blocks)
    norm = model.get_submodule(family.norm) if family.norm else None
    if family.blocks.endswith("albert_layer_groups"):
        blocks = _unroll(model)
    stack = model.get_submodule(family.blocks.rpartition(".")[0])
    if getattr(stack, "conv", None) is not None:
        # DeBERTa-v2 has a convolution beside block 1, added behind it: the output of both is layer 1, and the
        # convolution is entered with the same states as the block.
        blocks = [stack.conv, *blocks[1:]]
    return blocks, norm


class _Pass(nn.Module):
    """One passage through a block whose weights several layers share."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run the block."""
        return self.block(*args, **kwargs)


def _unroll(model: Any) -> nn.ModuleList:
    """Give every layer of an ALBERT a block of its own, with the shared weights, so that each can be tapped."""
    stack, count = model.encoder, model.config.num_hidden_layers
    groups = stack.albert_layer_groups
    stack.albert_layer_groups = nn.ModuleList(_Pass(groups[layer * len(groups) // count]) for layer in range(count))
    stack.config.num_hidden_groups = count
    return stack.albert_layer_groups
