"""The heads on maps of a few channels."""

# B batch, C channels, H height, W width, L attributes, K classes of one attribute

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from train import heads
from train.heads import AttentionHeads, ChannelAttention, ReferenceHead, ReferenceHeads

CLASSES = (4, 2, 3)
SHAPE = (5, 3)


@pytest.fixture
def map_BCHW() -> Tensor:
    return torch.randn(2, 16, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def attention_heads() -> AttentionHeads:
    """With queries as after some training; they start at zero."""
    torch.manual_seed(1)
    made = AttentionHeads(16, CLASSES, dropout=0.5).eval()
    nn.init.normal_(made.query_LC)
    return made


def test_each_attribute_has_an_attention_map_that_sums_to_one(
    attention_heads: AttentionHeads, map_BCHW: Tensor
) -> None:
    attention_BLHW = attention_heads.attention(map_BCHW)
    assert attention_BLHW.shape == (2, len(CLASSES), *SHAPE)
    assert (attention_BLHW > 0).all()
    # Fifteen float32 terms.
    torch.testing.assert_close(attention_BLHW.sum((2, 3)), torch.ones(2, len(CLASSES)), rtol=0, atol=1e-6)
    assert not torch.allclose(attention_BLHW[:, 0], attention_BLHW[:, 1], atol=1e-2)


def test_attention_starts_uniform_which_is_average_pooling(map_BCHW: Tensor) -> None:
    made = AttentionHeads(16, CLASSES, dropout=0.5).eval()
    uniform = torch.full((2, len(CLASSES), *SHAPE), 1 / (SHAPE[0] * SHAPE[1]))
    torch.testing.assert_close(made.attention(map_BCHW), uniform, rtol=0, atol=1e-7)
    expected_BK = map_BCHW.mean((2, 3)) @ made.weight_KC.T + made.bias_K
    torch.testing.assert_close(torch.cat(made(map_BCHW), 1), expected_BK, rtol=1e-5, atol=1e-6)


def test_the_gate_starts_as_the_identity(map_BCHW: Tensor) -> None:
    assert ChannelAttention(16)(map_BCHW).equal(map_BCHW)


@torch.no_grad()
def test_all_heads_at_once_equal_one_after_the_other(attention_heads: AttentionHeads, map_BCHW: Tensor) -> None:
    together = attention_heads(map_BCHW)
    assert [tuple(logits_BK.shape) for logits_BK in together] == [(2, count) for count in CLASSES]
    for index, logits_BK in enumerate(together):
        query_C, weight_KC, bias_K = attention_heads.rows_of(index)
        for photo, map_CHW in enumerate(map_BCHW):
            positions_CN = map_CHW.flatten(1)
            pooled_C = positions_CN @ (query_C @ positions_CN).softmax(0)
            # The order of a few float32 additions.
            torch.testing.assert_close(logits_BK[photo], weight_KC @ pooled_C + bias_K, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["attention", "reference"])
def test_writing_into_one_heads_rows_changes_that_head_and_no_other(kind: str) -> None:
    torch.manual_seed(2)
    made = (AttentionHeads(16, CLASSES, 0.0) if kind == "attention" else ReferenceHeads(CLASSES)).eval()
    map_BCHW = torch.randn(2, 16 if kind == "attention" else heads.REFERENCE_TRUNK, *SHAPE)
    for row in made.rows_of(1):
        before = made(map_BCHW)
        row.add_(torch.randn_like(row))
        after = made(map_BCHW)
        # Another head's logits are the same sums of the same numbers; the changed one's move by far more than this.
        same = [torch.allclose(old, new, atol=1e-6) for old, new in zip(before, after, strict=True)]
        assert same == [True, False, True]


@pytest.mark.parametrize("kind", ["attention", "reference"])
def test_the_rows_of_all_heads_are_all_of_their_parameters(kind: str) -> None:
    made = AttentionHeads(16, CLASSES, 0.0) if kind == "attention" else ReferenceHeads(CLASSES)
    counted = sum(row.numel() for index in range(len(CLASSES)) for row in made.rows_of(index))
    assert counted == sum(parameter.numel() for parameter in made.parameters())


@torch.no_grad()
@pytest.mark.parametrize("kind", ["attention", "reference"])
def test_the_last_rows_of_a_head_are_the_weight_and_the_bias_that_make_its_logits(kind: str) -> None:
    torch.manual_seed(3)
    made = (AttentionHeads(16, CLASSES, 0.0) if kind == "attention" else ReferenceHeads(CLASSES)).eval()
    map_BCHW = torch.randn(2, 16 if kind == "attention" else heads.REFERENCE_TRUNK, *SHAPE)
    expected = made(map_BCHW)[1] / 2
    *_, weight_KC, bias_K = made.rows_of(1)
    weight_KC.div_(2)
    bias_K.div_(2)
    assert made(map_BCHW)[1].equal(expected)  # a power of two leaves every digit


@torch.no_grad()
@pytest.mark.parametrize("kind", ["attention", "reference"])
def test_picked_heads_answer_as_before_in_the_order_asked_for_and_are_their_own(kind: str) -> None:
    torch.manual_seed(4)
    made = (AttentionHeads(16, CLASSES, 0.5) if kind == "attention" else ReferenceHeads(CLASSES)).eval()
    for row in made.rows_of(2):
        row.add_(torch.randn_like(row))  # attention starts the same for all
    map_BCHW = torch.randn(2, 16 if kind == "attention" else heads.REFERENCE_TRUNK, *SHAPE)
    expected = made(map_BCHW)
    picked = made.picked([2, 0])
    assert not picked.training
    # One product of a matrix fewer: its float32 additions may come in another order.
    for index, logits_BK in zip((2, 0), picked(map_BCHW), strict=True):
        torch.testing.assert_close(logits_BK, expected[index], rtol=1e-5, atol=1e-6)
    for parameter in picked.parameters():
        parameter.zero_()
    assert all(before.equal(after) for before, after in zip(expected, made(map_BCHW), strict=True))


@torch.no_grad()
def test_gating_the_average_equals_averaging_the_gated_map() -> None:
    torch.manual_seed(3)
    head = ReferenceHead(4).eval()
    map_BCHW = torch.randn(2, heads.REFERENCE_TRUNK, *SHAPE)
    spatial_BCHW = head.spatial(map_BCHW)
    gated_BCHW = spatial_BCHW * head.gate(spatial_BCHW.mean((2, 3)))[:, :, None, None]
    # 15 float32 additions in another order.
    torch.testing.assert_close(head(map_BCHW), head.classify(gated_BCHW.mean((2, 3))), rtol=1e-5, atol=1e-6)


def test_a_reference_head_has_the_parameters_of_the_reference() -> None:
    for classes in (2, 10):
        count = sum(parameter.numel() for parameter in ReferenceHead(classes).parameters())
        assert count == 1_407_104 + 513 * classes
