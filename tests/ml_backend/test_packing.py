"""Linear layers laid out for the processor: the same numbers, and nothing else changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ml_backend.packing import LEAST, PackedLinear, pack


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(1, 1), (1, 7), (64, 1), (3, 40)])
@torch.inference_mode()
def test_a_packed_layer_multiplies_like_the_plain_one(rows: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(520, 530, bias=bias)
    packed = PackedLinear(plain)
    x = torch.randn(*rows, 520)
    torch.testing.assert_close(packed(x), plain(x), rtol=1e-4, atol=1e-5)
    assert packed.weight.shape == plain.weight.shape


def test_large_float32_layers_are_packed_and_no_others() -> None:
    model = nn.ModuleDict(
        {
            "large": nn.Linear(512, LEAST // 512),
            "small": nn.Linear(511, LEAST // 512),
            "bfloat16_": nn.Linear(512, LEAST // 512, dtype=torch.bfloat16),
            "inside": nn.Sequential(nn.Linear(1024, 512), nn.Embedding(1000, 512)),
        }
    )
    assert pack(model) == 2
    assert {name for name, module in model.named_modules() if isinstance(module, PackedLinear)} == {"large", "inside.0"}
    assert pack(model) == 0
