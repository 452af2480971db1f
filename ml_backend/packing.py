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
        self.weight = nn.Parameter(linear.weight.detach().to("meta"), requires_grad=False)
        self.bias = linear.bias
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply, shape (..., in_features) to (..., out_features)."""
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return product


def pack(model: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Replace the large linear layers of a float32 model on a CPU; returns (parent, name, layer) of each.

    Nothing is replaced where oneDNN is not there.  The model can not be trained, saved or given an adapter afterwards.
    """
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return []
    replaced = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and _fits(child.weight)
    ]
    for parent, name, child in replaced:
        setattr(parent, name, PackedLinear(child))
    return replaced


@torch.inference_mode()
def pack_if_same(model: nn.Module) -> bool:
    """Pack a causal language model and keep that if its scores stay the same; returns whether it is packed.

    A model may read a layer's `weight` itself (Mamba's time step does), which a packed layer no longer has.
    """
    ids = torch.arange(4)[None]
    expected = model(input_ids=ids).logits if all(p.device.type == "cpu" for p in model.parameters()) else None
    if expected is None or not (replaced := pack(model)):
        return False
    try:
        same = torch.allclose(model(input_ids=ids).logits, expected, rtol=1e-3, atol=1e-3)
    except (RuntimeError, NotImplementedError):
        same = False
    if not same:
        for parent, name, child in replaced:
            setattr(parent, name, child)
    return same


def _fits(weight: torch.Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() >= LEAST
