"""From one feature map to the logits of every attribute."""

# B batch, C channels, H height, W width, L attributes, K classes of one attribute, N positions (H * W)

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

REFERENCE_TRUNK = 1024


class ChannelAttention(nn.Module):
    """Reweights the channels of a map by its own average (squeeze-and-excitation, Hu et al., 2018)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        squeezed = max(8, channels // reduction)
        self.squeeze = nn.Linear(channels, squeezed)
        self.excite = nn.Linear(squeezed, channels)
        # Twice the sigmoid of zero is one: the gate starts as the identity, on pretrained features.
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        squeezed = torch.relu(self.squeeze(map_BCHW.mean((2, 3))))
        return map_BCHW * (2 * torch.sigmoid(self.excite(squeezed)))[:, :, None, None]


class AttentionHeads(nn.Module):
    """All attributes of a category at once: each has its own attention over positions, then a linear layer.

    The attention starts uniform, as average pooling. Every parameter's rows belong to one attribute (L rows,
    or that attribute's classes among all), so that one head can be kept or put back alone.
    """

    def __init__(self, channels: int, classes: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.query_LC = nn.Parameter(torch.zeros(len(classes), channels))
        self.dropout = nn.Dropout(dropout)
        linear = nn.Linear(channels, sum(classes))
        self.weight_KC, self.bias_K = linear.weight, linear.bias

    def attention(self, map_BCHW: Tensor) -> Tensor:
        """[B, L, H, W], each map summing to 1: where each attribute looks."""
        scores_BLN = self.query_LC @ map_BCHW.flatten(2)
        attention_BLHW: Tensor = scores_BLN.softmax(-1).unflatten(-1, map_BCHW.shape[2:])
        return attention_BLHW

    def forward(self, map_BCHW: Tensor) -> list[Tensor]:
        attention_BLN = self.attention(map_BCHW).flatten(2)
        pooled_BLC = self.dropout(attention_BLN @ map_BCHW.flatten(2).transpose(1, 2))
        # The last layer one attribute after the other: some microseconds. As one product for all, gathered or masked,
        # OpenVINO 2026.4 answered batches and int8 graphs wrongly.
        weights = self.weight_KC.split(self.classes)
        biases = self.bias_K.split(self.classes)
        return [
            pooled_BC @ weight_KC.T + bias_K
            for pooled_BC, weight_KC, bias_K in zip(pooled_BLC.unbind(1), weights, biases, strict=True)
        ]

    def rows_of(self, index: int) -> list[Tensor]:
        """Views of the parameters of one attribute's head, last the weight and the bias that make its logits."""
        return [
            self.query_LC.data[index],
            self.weight_KC.data.split(self.classes)[index],
            self.bias_K.data.split(self.classes)[index],
        ]

    def picked(self, indices: Sequence[int]) -> AttentionHeads:
        """A copy with the heads of these attributes alone, in this order."""
        made = copy.deepcopy(self)
        queries, weights, biases = zip(*(self.rows_of(index) for index in indices), strict=True)
        made.classes = tuple(self.classes[index] for index in indices)
        made.query_LC = nn.Parameter(torch.stack(queries))
        made.weight_KC, made.bias_K = nn.Parameter(torch.cat(weights)), nn.Parameter(torch.cat(biases))
        return made


class ReferenceHead(nn.Module):
    """One attribute's head as the reference system has it, sigmoid before the last linear layer included."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.spatial = nn.Sequential(
            nn.Conv2d(REFERENCE_TRUNK, 512, 3, padding=1, groups=32),
            nn.GELU(),
            nn.Conv2d(512, 512, 3, padding=1, groups=32),
            nn.GELU(),
        )
        self.gate = nn.Sequential(nn.Linear(512, 128), nn.GELU(), nn.Linear(128, 512), nn.Sigmoid())
        self.classify = nn.Sequential(
            nn.Linear(512, 1024),
            nn.LayerNorm(1024),
            nn.GELU(),
            nn.Dropout(0.2),
            nn.Linear(1024, 512),
            nn.LayerNorm(512),
            nn.Sigmoid(),
            nn.Dropout(0.1),
            nn.Linear(512, classes),
        )

    def forward(self, map_BCHW: Tensor) -> Tensor:
        # Gating a map and then averaging it is averaging it and then gating.
        pooled_BC = self.spatial(map_BCHW).mean((2, 3))
        logits: Tensor = self.classify(pooled_BC * self.gate(pooled_BC))
        return logits


class ReferenceHeads(nn.Module):
    """The reference's heads, one module an attribute."""

    def __init__(self, classes: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(ReferenceHead(count) for count in classes)

    def forward(self, map_BCHW: Tensor) -> list[Tensor]:
        return [head(map_BCHW) for head in self.heads]

    def rows_of(self, index: int) -> list[Tensor]:
        """The parameters of one attribute's head, last the weight and the bias that make its logits."""
        return [parameter.data for parameter in self.heads[index].parameters()]

    def picked(self, indices: Sequence[int]) -> ReferenceHeads:
        """A copy with the heads of these attributes alone, in this order."""
        return copy.deepcopy(
            self, {id(self.heads): nn.ModuleList(copy.deepcopy(self.heads[index]) for index in indices)}
        )


class Parts(NamedTuple):
    """What stands between the backbone and the logits."""

    neck: nn.Module
    heads: AttentionHeads | ReferenceHeads
    channels: int
    """Of the map that the heads read."""


def build(kind: str, channels: int, classes: Sequence[int], dropout: float) -> Parts:
    """The neck and heads of that kind over a map of `channels`."""
    if kind == "reference":
        neck = nn.Sequential(nn.Conv2d(channels, REFERENCE_TRUNK, 1), nn.GELU(), nn.Dropout(dropout))
        return Parts(neck, ReferenceHeads(classes), REFERENCE_TRUNK)
    return Parts(ChannelAttention(channels), AttentionHeads(channels, classes, dropout), channels)
