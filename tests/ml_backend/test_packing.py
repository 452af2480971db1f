"""Linear layers laid out for the processor: the same numbers, and nothing else changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ml_backend.packing import LEAST, PackedLinear, pack, pack_if_same


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
    assert len(pack(model)) == 2
    assert {name for name, module in model.named_modules() if isinstance(module, PackedLinear)} == {"large", "inside.0"}
    assert pack(model) == []


def test_a_model_that_reads_a_weight_itself_is_left_as_it_was() -> None:
    class Scores:
        def __init__(self, logits: torch.Tensor) -> None:
            self.logits = logits

    class Model(nn.Module):
        def __init__(self, *, itself: bool) -> None:
            super().__init__()
            self.embedding, self.head, self.itself = nn.Embedding(600, 512), nn.Linear(512, 600), itself

        def forward(self, input_ids: torch.Tensor) -> Scores:
            hidden = self.embedding(input_ids)
            return Scores(hidden @ self.head.weight.T if self.itself else self.head(hidden))

    plain, odd = Model(itself=False), Model(itself=True)
    layer = odd.head
    assert pack_if_same(plain)
    assert isinstance(plain.head, PackedLinear)
    assert not pack_if_same(odd)
    assert odd.head is layer
