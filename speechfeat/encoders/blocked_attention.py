"""Attention on a CPU by blocks of queries, for processors on which torch's own is slow.

torch's kernel takes its products to MKL, which keeps AVX-512 from processors of AMD. Here oneDNN makes them, scores and
softmax are in float32, and no more scores than a cache holds are kept. For short utterances torch's kernel is as fast
(`python -m benchmarks.cpu_kernels`).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from speechfeat.encoders.onednn import multiply
from speechfeat.encoders.precision import has_slow_mkl

# Scores in a block, 2 MiB of float32: twice as many or half of them take 5 to 10 % longer.
BLOCK_SCORES = 2**19
# Utterances of fewer frames are left to torch.
MIN_FRAMES = 300
# Adds to scores `[t, T]` of a head, in place, what belongs to it from a frame on.
AddBias = Callable[[Tensor, int, int, int], object]


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float, add_bias: AddBias | None = None) -> Tensor:
    """Attention of frames to all frames.

    Args:
        query: `[B, H, T', D]`, of all frames or of the first.
        key: what queries are compared with, `[B, H, T, D]`.
        value: what is summed, of the shape of the keys.
        scale: of the scores.
        add_bias: called with scores, the utterance, the head, and the first of the frames that ask.

    Returns:
        `[B, T', H, D]`
    """
    count, heads, length, dim = query.shape
    outputs = query.new_empty(count, length, heads, dim)
    step = max(64, BLOCK_SCORES // key.shape[2])
    for row in range(count):
        asking, asked = (query[row].float() * scale).contiguous(), key[row].float().contiguous()
        summed = value[row].transpose(1, 2).contiguous()
        for head in range(heads):
            for first in range(0, length, step):
                scores = multiply(asking[head, first : first + step], asked[head], None)
                if add_bias is not None:
                    add_bias(scores, row, head, first)
                weights = scores.softmax(-1).to(value.dtype)
                outputs[row, first : first + step, head] = multiply(weights, summed[head], None)
    return outputs


def is_worth(key: Tensor) -> bool:
    """Whether `attend` is faster than torch's kernel for keys `[B, H, T, D]`, and gives no gradients in vain."""
    return key.shape[2] >= MIN_FRAMES and has_slow_mkl(key.device) and not torch.is_grad_enabled()
