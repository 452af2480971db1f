"""Faster linear layers for drafting on a CPU: weights in the order in which oneDNN multiplies.

PyTorch's own linear layer hands the weight to the matrix product as it is stored.  With few rows, as in
decoding, reading it in that order costs as much as the arithmetic; laid out once for the kernel, one row
takes half the time and 64 rows four fifths of it (`benchmarks/drafting.py`).
"""

from __future__ import annotations

import torch
from torch import nn

LEAST = 1 << 18
"""Weights with fewer numbers stay as they are: they lie in the processor's cache anyway."""
ROWS = 64
"""For how many rows the layout is chosen; it works for any number."""


class PackedLinear(nn.Module):
    """A linear layer for inference; `weight` keeps its shape only (on the meta device), not its numbers."""

    def __init__(self, linear: nn.Linear) -> None:
        """Lay out the weight of `linear`, which must be float32 on a CPU."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = nn.Parameter(linear.weight.detach().to("meta"), requires_grad=False)
        self.bias = linear.bias
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply, shape (..., in_features) to (..., out_features)."""
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return product


def pack(model: nn.Module) -> int:
    """Replace the large linear layers of a float32 model on a CPU; returns how many, 0 where oneDNN is not there.

    The model can not be trained, saved or given an adapter afterwards.
    """
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return 0
    count = 0
    for parent in [module for module in model.modules() if type(module) is not nn.Linear]:
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and _fits(child.weight):
                setattr(parent, name, PackedLinear(child))
                count += 1
    return count


def _fits(weight: torch.Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() >= LEAST
