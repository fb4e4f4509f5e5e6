"""Low-rank adapters in the blocks of a model, by peft (Hu et al., 2022: LoRA)."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from speechfeat.encoders.precision import OneDnnLinear
from speechfeat.errors import ModelError

if TYPE_CHECKING:
    from speechfeat.transfer.model import TransferModel

NAME = "default"


def check_peft() -> None:
    """Refuse adapters where peft is not installed.

    Raises:
        ModelError: that says how to install it.
    """
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ModelError(f'LoRA needs peft ({error}); install it: pip install -e ".[train]"') from None


def add_adapters(model: "TransferModel", rank: int, alpha: int) -> None:
    """Put an adapter beside every linear layer of the blocks; what the model gives stays the same until they learn.

    Args:
        model: changed in place.
        rank: of the adapters.
        alpha: what they give is multiplied by alpha / rank.

    Raises:
        ModelError: if peft is not installed, or the blocks have no linear layer.
    """
    check_peft()
    from peft import LoraConfig, inject_adapter_in_model

    names = {id(module): name for name, module in model.backbone.named_modules()}
    blocks = [model.encoder.backbone.blocks[number] for number in range(model.depth)]
    # Other subclasses are called by their weights, past any adapter.
    kinds = (nn.Linear, OneDnnLinear)
    linear = [names[id(layer)] for block in blocks for layer in block.modules() if type(layer) in kinds]
    if not linear:
        raise ModelError(
            f"the blocks of {model.encoder.name!r} have no linear layer that an adapter could stand beside"
        )
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=linear), model.backbone, NAME)
    model.backbone.to(model.device)


def merge_adapters(model: "TransferModel") -> None:
    """Put what adapters have learnt into the layers beside them, and take the adapters away; in place."""
    for name, layer in list(model.backbone.named_modules()):
        # An adapter is known by the layer that it holds; without peft there are none.
        if hasattr(layer, "lora_A") and hasattr(layer, "get_base_layer"):
            layer.merge()
            path, _, leaf = name.rpartition(".")
            base = layer.get_base_layer()
            with torch.no_grad():
                base.weight.add_(0.0)  # peft wrote to `.data`, which torch does not count as a change
            setattr(model.backbone.get_submodule(path), leaf, base)
