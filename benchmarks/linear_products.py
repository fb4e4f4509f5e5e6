"""Linear layers in float32 by torch's own way (MKL) and by oneDNN, on one core.

    python -m benchmarks.linear_products

Calls of both alternate; times are of the processor, medians, so that other work on the machine changes them little.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from speechfeat.encoders.precision import OneDnnLinear, has_slow_mkl

SIZES = ((384, 384), (384, 1536), (1536, 384), (768, 3072))
ROWS = (16, 64, 512, 2048)
CALLS = 20


def seconds(layer: Callable[[Tensor], Tensor], inputs: Tensor) -> float:
    began = time.process_time()
    layer(inputs)
    return time.process_time() - began


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    print(f"oneDNN is {'taken' if has_slow_mkl(torch.device('cpu')) else 'not taken'} here; GFLOP/s:")
    print("inputs  outputs  rows    MKL  oneDNN  time of oneDNN over MKL's")
    for inputs, outputs in SIZES:
        stock, other = nn.Linear(inputs, outputs), OneDnnLinear(inputs, outputs)
        for rows in ROWS:
            states = torch.randn(rows, inputs)
            times = [(seconds(stock, states), seconds(other, states)) for _ in range(CALLS)]
            mkl, onednn = (statistics.median(pair) for pair in zip(*times, strict=True))
            work = 2e-9 * inputs * outputs * rows
            print(f"{inputs:6}  {outputs:7}  {rows:4}  {work / mkl:5.0f}  {work / onednn:6.0f}  {onednn / mkl:.2f}")


if __name__ == "__main__":
    main()
