"""Linear layers whose weights lie in the order that the processor's matrix kernels read them in.

A product of few rows with a weight matrix is spent on loading the matrix. oneDNN's blocked layout lets it be read
straight through: in float32 such products take 0.6 to 0.9 of the time of the ordinary layout's, in bfloat16 as long. It
is a copy of the weights, so it belongs to a model whose weights stay as they are.
"""

from __future__ import annotations

import torch
from torch import nn

ROWS = 64
"""Rows that the layout is chosen for, about a prompt's tokens; it serves any number of them."""

LEAST_WEIGHTS = 1 << 17
"""Weights of a layer below which the ordinary layout is as fast: they stay in the cache between two products.

A rule, and no trial: a trial's outcome may change from one time to the next, and with it the last bits of thoughts.
"""


class ReorderedLinear(nn.Module):
    """A linear layer's product from a copy of its weights in blocked layout. CPU only; equal up to rounding."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(…, width in) -> (…, width out)."""
        return torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, "none", [], "")


def reordering_pays(linear: nn.Linear) -> bool:
    """Whether a layer is large enough, of a type that gains (float32), and this build of torch can reorder it."""
    weight = linear.weight
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or weight.numel() < LEAST_WEIGHTS:
        return False
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
