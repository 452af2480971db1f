"""A leaner forward pass on a CPU for models built like Llama: fewer, larger kernels a layer.

A small model spends most of a decode step on launching kernels.  This pass reads the same weights as the
Transformers model beside it, and saves what that one can not: linear layers that read the same input are
one product, attention of single tokens is two batched products over the key-value heads, a layer's keys and
values lie in one buffer, and the last layer is finished only for the tokens whose scores are
needed.  `ml_backend.slots.memory_for` compares its scores with the model's own before it is used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ml_backend.memory import GRAIN, Place, in_place, padded
from ml_backend.weights import Weights

MODEL_TYPES = frozenset({"llama", "mistral", "qwen2"})
"""Transformers' names of the architectures that this pass computes."""
ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})
"""Kinds of rotary position code that depend on a token's position alone, not on the text's length."""


class Joint:
    """Linear layers that read the same input, as one product."""

    def __init__(self, *layers: nn.Module) -> None:
        """Join the weights of plain layers, which from now on are views of the joint weight; packed ones stay."""
        self.layers = layers
        self.weight: torch.Tensor | None = None
        self.bias: torch.Tensor | None = None
        if any(type(layer) is not nn.Linear for layer in layers):
            return
        plain = [layer for layer in layers if isinstance(layer, nn.Linear)]
        self.weight = torch.cat([layer.weight.detach() for layer in plain])
        biases = [layer.bias for layer in plain]
        if any(bias is not None for bias in biases):
            parts = zip(plain, biases, strict=True)
            self.bias = torch.cat([p.weight.new_zeros(len(p.weight)) if b is None else b.detach() for p, b in parts])
        pieces = torch.split(self.weight, [len(layer.weight) for layer in plain])
        for layer, piece in zip(plain, pieces, strict=True):
            layer.weight = nn.Parameter(piece, requires_grad=False)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply, shape (tokens, in_features) to (tokens, out_features of all layers)."""
        if self.weight is not None:
            return F.linear(x, self.weight, self.bias)
        return torch.cat([layer(x) for layer in self.layers], dim=-1)


class Norm:
    """Root mean square normalisation (Zhang and Sennrich 2019)."""

    def __init__(self, module: Any) -> None:
        self.weight, self.epsilon = module.weight, float(module.variance_epsilon)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise, shape (tokens, hidden size)."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


@dataclasses.dataclass(frozen=True, slots=True)
class Pass:
    """What all layers of one forward pass share; `rows` texts of `new` tokens each, padded on the right."""

    rows: int
    new: int
    slots: slice | torch.Tensor
    index: torch.Tensor
    """Slots, shape (rows, 1)."""
    columns: torch.Tensor
    """Positions of the new tokens, shape (rows, new)."""
    cos: torch.Tensor
    sin: torch.Tensor
    """Rotary position codes, shape (tokens, 1, head size); the first half of `sin` is negated."""
    bias: torch.Tensor
    """What is added to attention scores, shape (rows, new, width): 0, or minus infinity for later tokens."""
    last: torch.Tensor
    """Place of every row's last new token among the tokens, shape (rows,)."""
    last_bias: torch.Tensor
    """`bias` of the last tokens alone, shape (rows x key-value heads, 1, width)."""


class Layer:
    """One decoder layer; heads are grouped by the key-value head that they read (Ainslie et al. 2023)."""

    def __init__(self, layer: Any, heads: int, groups: int, size: int) -> None:
        """Take the weights of a Transformers layer with `heads` query and `groups` key-value heads of `size`."""
        attention, mlp = layer.self_attn, layer.mlp
        self.heads, self.groups, self.size = heads, groups, size
        self.scale = float(attention.scaling)
        self.before, self.after = Norm(layer.input_layernorm), Norm(layer.post_attention_layernorm)
        self.inputs = Joint(attention.q_proj, attention.k_proj, attention.v_proj)
        self.gates = Joint(mlp.gate_proj, mlp.up_proj)
        self.output, self.down = attention.o_proj, mlp.down_proj

    def __call__(self, x: torch.Tensor, buffer: torch.Tensor, now: Pass, final: bool) -> torch.Tensor:
        """Run on `x`, shape (tokens, hidden size).

        `buffer`, shape (2, slots, key-value heads, capacity, head size), takes the new keys and values.
        With `final` only the rows' last tokens are finished: shape (rows, hidden size).
        """
        states = self.inputs(self.before(x)).view(len(x), -1, self.size)
        turned = self.heads + self.groups
        query_key = states[:, :turned]
        first, second = query_key.chunk(2, dim=-1)
        swapped = torch.cat((second, first), dim=-1)
        query_key = torch.addcmul(query_key * now.cos, swapped, now.sin)
        shape = (now.rows, now.new, self.groups, self.size)
        for side, new in enumerate((query_key[:, self.heads :], states[:, turned:])):
            buffer[side][now.index, :, now.columns] = new.view(shape)
        query = query_key[:, : self.heads]
        width = now.bias.shape[-1]
        known = buffer[:, :, :, :width][:, now.slots]
        if final and now.new > 1:
            x, query = x[now.last], query[now.last]
        mixed = self._single(query, known, now) if final or now.new == 1 else self._many(query, known, now)
        x = x + self.output(mixed)
        gate, up = self.gates(self.after(x)).chunk(2, dim=-1)
        finished: torch.Tensor = x + self.down(F.silu(gate) * up)
        return finished

    def _single(self, query: torch.Tensor, known: torch.Tensor, now: Pass) -> torch.Tensor:
        """Attend from one token a row, shape (rows, heads, head size)."""
        query = query.reshape(now.rows * self.groups, -1, self.size)
        keys, values = known.flatten(1, 2)
        scores = torch.baddbmm(now.last_bias, query, keys.transpose(1, 2), alpha=self.scale)
        return torch.bmm(scores.softmax(-1), values).view(now.rows, -1)

    def _many(self, query: torch.Tensor, known: torch.Tensor, now: Pass) -> torch.Tensor:
        """Attend from several tokens a row, shape (tokens, heads, head size); heads of a group stand side by side."""
        share = self.heads // self.groups
        query = query.reshape(now.rows, now.new, self.groups, share, self.size).permute(0, 2, 1, 3, 4).flatten(2, 3)
        bias = now.bias.repeat_interleave(share, dim=1)[:, None] if share > 1 else now.bias[:, None]
        mixed = F.scaled_dot_product_attention(query, known[0], known[1], attn_mask=bias, scale=self.scale)
        mixed = mixed.view(now.rows, self.groups, now.new, share, self.size).transpose(1, 2)
        return mixed.reshape(now.rows * now.new, -1)


class FusedMemory:
    """Feeds only new tokens, as `SlotMemory` does, through this module's own forward pass."""

    def __init__(self, weights: Weights) -> None:
        """Take the weights of a supported model; raises `ValueError` for any other."""
        if reason := unsupported(weights):
            raise ValueError(reason)
        config, model = weights.model.config, weights.model.model
        self.weights = weights
        self.groups = int(config.num_key_value_heads)
        heads = int(config.num_attention_heads)
        self.size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
        self.layers = [Layer(layer, heads, self.groups, self.size) for layer in model.layers]
        self.embed, self.norm, self.rotary = model.embed_tokens, Norm(model.norm), model.rotary_emb
        self.head = weights.model.get_output_embeddings()
        self.clear()

    def clear(self) -> None:
        """Drop all buffers."""
        # Zeroed, since columns that nobody has written are masked, but 0 x NaN would still be NaN.
        self.buffers = [torch.zeros(2, 1, self.groups, 0, self.size) for _ in self.layers]
        self.cos = self.sin = torch.empty(0, 1, self.size)

    def reserve(self, slots: int, tokens: int) -> None:
        """Make sure that `slots` rows of `tokens` tokens fit."""
        have, capacity = self.buffers[0].shape[1], self.buffers[0].shape[3]
        if slots > have or tokens > capacity:
            slots, capacity = max(slots, have), max(-(-tokens // GRAIN) * GRAIN, capacity)
            for number, old in enumerate(self.buffers):  # one after the other, so that memory is not needed twice
                grown = old.new_zeros(2, slots, self.groups, capacity, self.size)
                grown[:, :have, :, : old.shape[3]] = old
                self.buffers[number] = grown
        if capacity > len(self.cos):
            cos, sin = self.rotary(self.buffers[0], torch.arange(capacity)[None])
            sign = torch.ones(self.size)
            sign[: self.size // 2] = -1
            self.cos, self.sin = cos.view(-1, 1, self.size), (sin * sign).view(-1, 1, self.size)

    def forward(self, rows: Sequence[Place], feeds: Sequence[Sequence[int]]) -> torch.Tensor:
        """Feed each row's new tokens; return the scores after its last one, float32, (rows, vocabulary)."""
        now, tokens = self._pass(rows, feeds)
        x = self.embed(tokens)
        for number, layer in enumerate(self.layers):
            x = layer(x, self.buffers[number], now, final=number == len(self.layers) - 1)
        scores: torch.Tensor = self.head(self.norm(x))
        return scores

    def _pass(self, rows: Sequence[Place], feeds: Sequence[Sequence[int]]) -> tuple[Pass, torch.Tensor]:
        starts = torch.tensor([len(row.cached) for row in rows])
        lengths = torch.tensor([len(feed) for feed in feeds])
        new = int(lengths.max())
        width = int(starts.max()) + new
        slots = [row.slot for row in rows]
        self.reserve(max(slots) + 1, width)
        index = torch.tensor(slots)
        columns = starts[:, None] + torch.arange(new)
        flat = columns.flatten()
        later = torch.arange(width) > columns[:, :, None]
        bias = torch.zeros(later.shape).masked_fill_(later, float("-inf"))
        last = torch.arange(len(rows)) * new + lengths - 1
        last_bias = bias.flatten(0, 1)[last] if new > 1 else bias[:, 0]
        now = Pass(
            rows=len(rows),
            new=new,
            slots=in_place(slots, index),
            index=index[:, None],
            columns=columns,
            cos=self.cos[flat],
            sin=self.sin[flat],
            bias=bias,
            last=last,
            last_bias=last_bias.repeat_interleave(self.groups, dim=0)[:, None],
        )
        return now, padded(feeds, self.weights.device).flatten()

    def swap(self, a: int, b: int, length: int) -> None:
        """Exchange the first `length` tokens of two slots."""
        for buffer in self.buffers:
            held = buffer[:, a, :, :length].clone()
            buffer[:, a, :, :length] = buffer[:, b, :, :length]
            buffer[:, b, :, :length] = held

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of a slot to another one."""
        self.reserve(max(source, target) + 1, length)
        for buffer in self.buffers:
            buffer[:, target, :, :length] = buffer[:, source, :, :length]


def unsupported(weights: Weights) -> str:
    """Say why this pass does not compute a model; empty if it does."""
    model, config = weights.model, weights.model.config
    if weights.adapter is not None or getattr(config, "model_type", "") not in MODEL_TYPES:
        return "another architecture"
    if weights.device.type != "cpu" or any(p.dtype != torch.float32 for p in model.parameters()):
        return "not float32 on a CPU"
    if weights.sliding_window is not None and weights.sliding_window < weights.context_length:
        return "a sliding window shorter than the context"
    if config.hidden_act != "silu":
        return "another activation"
    if getattr(model.model.rotary_emb, "rope_type", "") not in ROPE_TYPES:
        return "position codes that depend on the length"
    if any(isinstance(module, nn.Linear) and type(module) is not nn.Linear for module in model.modules()):
        return "changed linear layers"
    return ""
