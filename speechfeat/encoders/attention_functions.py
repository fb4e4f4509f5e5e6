"""`speechfeat.encoders.blocked_attention` for models that take transformers' attention functions."""

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from speechfeat.encoders.blocked_attention import attend, is_worth

# Name among transformers' attention functions.
BLOCKED = "speechfeat_blocked"


def blocked_attention_forward(  # noqa: PLR0917 - as transformers calls it
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: object,
) -> tuple[Tensor, None]:
    """In the place of transformers' attention functions; with a mask its own runs."""
    is_full = attention_mask is None and query.shape == key.shape and not getattr(module, "is_causal", False)
    if is_full and is_worth(key):
        return attend(query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)


def attend_in_blocks(model: PreTrainedModel) -> None:
    """Let the attention of a model, which must be of transformers' own functions, run in blocks."""
    AttentionInterface.register(BLOCKED, blocked_attention_forward)
    AttentionMaskInterface.register(BLOCKED, sdpa_mask)
    model.set_attn_implementation(BLOCKED)
