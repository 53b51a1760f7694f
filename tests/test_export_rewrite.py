"""Each rewrite against PyTorch in float64, on the smallest network that has its pattern."""

# B batch, C channels

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from export import positions, rewrite

# Two ways of adding up some hundred float64 terms; a graph holds the epsilon of a norm as float32, whatever its type.
TOLERANCE = 1e-11


def exported(module: nn.Module, sample: Tensor) -> onnx.ModelProto:
    """The module's graph in float64, from the input that Facet's graphs have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.double().eval(), (sample,), dynamo=True, verbose=False, input_names=["images"], opset_version=18
        )
    assert program is not None
    return program.model_proto


def randomised(module: nn.Module) -> nn.Module:
    """With weights as after some training: fresh ones hide a fault in zeros and ones."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator)
    return module


def check(
    module: nn.Module, sample: Tensor, rewrites: Callable[[onnx.ModelProto], int], expected: int
) -> onnx.ModelProto:
    """The rewritten graph, once it was seen to answer as PyTorch does and to be as often rewritten as expected."""
    made = exported(module, sample)
    assert rewrites(made) == expected
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(made, strict_mode=True), full_check=True)
    assert rewrites(made) == 0
    (found,) = ReferenceEvaluator(made).run(None, {"images": sample.numpy()})
    np.testing.assert_allclose(found, module(sample).detach().numpy(), rtol=0, atol=TOLERANCE)
    return made


class Block(nn.Module):
    """A ConvNeXt block on a map, scaled and normalised as it is there; linear layers as convolutions where asked."""

    def __init__(self, *, convolutions: bool, bias: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.gamma = nn.Parameter(torch.ones(6))
        self.convolutions = convolutions
        if convolutions:
            self.up, self.down = nn.Conv2d(6, 9, 1, bias=bias), nn.Conv2d(9, 6, 1, bias=bias)
        else:
            self.up, self.down = nn.Linear(6, 9, bias=bias), nn.Linear(9, 6, bias=bias)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        normed_BHWC = self.norm(map_BCHW.permute(0, 2, 3, 1))
        if self.convolutions:
            found_BCHW = self.down(torch.relu(self.up(normed_BHWC.permute(0, 3, 1, 2))))
        else:
            found_BCHW = self.down(torch.relu(self.up(normed_BHWC))).permute(0, 3, 1, 2)
        return map_BCHW + found_BCHW * self.gamma[:, None, None]


@pytest.fixture(params=[(True, True), (True, False), (False, True), (False, False)])
def block(request: pytest.FixtureRequest) -> Block:
    convolutions, bias = request.param
    made = randomised(Block(convolutions=convolutions, bias=bias))
    assert isinstance(made, Block)
    return made


@pytest.fixture
def map_BCHW() -> Tensor:
    return torch.randn(2, 6, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def ops(made: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in made.graph.node)


def test_a_layer_scale_goes_into_the_layer_before_it(block: Block, map_BCHW: Tensor) -> None:
    made = check(block, map_BCHW, rewrite.fold_layer_scales, 1)
    assert ops(made)["Mul"] == ops(exported(block, map_BCHW))["Mul"] - 1


def test_the_scale_and_shift_of_a_norm_go_into_the_layer_behind_it(block: Block, map_BCHW: Tensor) -> None:
    made = check(block, map_BCHW, rewrite.fold_norms, 1)
    (norm,) = (node for node in made.graph.node if node.op_type == "LayerNormalization")
    assert len(norm.input) == 2
    (scale,) = (tensor for tensor in made.graph.initializer if tensor.name == norm.input[1])
    assert (numpy_helper.to_array(scale) == 1).all()


class Stem(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, images_BHWC: Tensor) -> Tensor:
        mean, std = (torch.tensor(of, dtype=torch.float64) * 255 for of in ((0.48, 0.45, 0.4), (0.23, 0.22, 0.25)))
        pixels_BCHW = ((images_BHWC.double() - mean) / std).permute(0, 3, 1, 2)
        return sum(layer(pixels_BCHW) for layer in self.layers)  # type: ignore[return-value]


@pytest.fixture
def images_BHWC() -> Tensor:
    return torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def shift(made: onnx.ModelProto) -> np.ndarray:
    (sub,) = (node for node in made.graph.node if node.op_type == "Sub")
    return next(numpy_helper.to_array(tensor) for tensor in made.graph.initializer if tensor.name == sub.input[1])


@pytest.mark.parametrize("bias", [True, False])
def test_the_normalisation_goes_into_a_first_convolution_that_does_not_pad(images_BHWC: Tensor, bias: bool) -> None:
    made = check(randomised(Stem(nn.Conv2d(3, 5, 4, 4, bias=bias))), images_BHWC, rewrite.fold_pixels, 1)
    assert (shift(made) == 128).all()
    assert not ops(made)["Div"]


def test_a_first_convolution_that_pads_takes_the_deviations_and_leaves_the_means(images_BHWC: Tensor) -> None:
    made = check(randomised(Stem(nn.Conv2d(3, 5, 3, 2, padding=1))), images_BHWC, rewrite.fold_pixels, 1)
    np.testing.assert_allclose(shift(made), np.array([0.48, 0.45, 0.4]) * 255)
    assert not ops(made)["Div"]


def test_two_first_convolutions_are_folded_together_or_not_at_all(images_BHWC: Tensor) -> None:
    both = Stem(nn.Conv2d(3, 5, 4, 4), nn.Conv2d(3, 5, 4, 4, bias=False))
    check(randomised(both), images_BHWC, rewrite.fold_pixels, 1)
    pooled = Stem(nn.Conv2d(3, 3, 4, 4), nn.AvgPool2d(4))
    check(randomised(pooled), images_BHWC, rewrite.fold_pixels, 0)


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.down = nn.Conv2d(6, 8, 2, 2, groups=2)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        return self.down(self.norm(map_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))  # type: ignore[no-any-return]


def test_a_norm_goes_into_a_grouped_convolution_with_a_kernel(map_BCHW: Tensor) -> None:
    check(randomised(Grouped()), map_BCHW, rewrite.fold_norms, 1)


class Padded(Grouped):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(6, 8, 3, padding=1)


def test_a_norm_before_a_convolution_that_pads_is_left_alone(map_BCHW: Tensor) -> None:
    check(randomised(Padded()), map_BCHW, rewrite.fold_norms, 0)


class Scaled(nn.Module):
    """What must not be folded: the layer's own answer is read too, or a nonlinearity stands between."""

    def __init__(self, *, read_twice: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.gamma = nn.Parameter(torch.ones(6))
        self.read_twice = read_twice

    def forward(self, map_BCHW: Tensor) -> Tensor:
        found = self.linear(map_BCHW)
        if not self.read_twice:
            return torch.relu(found) * self.gamma
        return found * self.gamma + torch.relu(found)


@pytest.mark.parametrize("read_twice", [True, False])
def test_a_scale_whose_layer_is_not_its_own_is_left_alone(map_BCHW: Tensor, read_twice: bool) -> None:
    check(randomised(Scaled(read_twice=read_twice)), map_BCHW, rewrite.fold_layer_scales, 0)


class Shared(nn.Module):
    """Two blocks on one weight, as the exporter leaves equal tensors: each must keep its own answer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.scales = nn.Parameter(torch.ones(2, 4))

    def forward(self, map_BCHW: Tensor) -> Tensor:
        once = self.linear(map_BCHW) * self.scales[0]
        return torch.relu(self.linear(once) * self.scales[1])


def test_a_weight_that_two_layers_share_is_changed_for_each_alone(map_BCHW: Tensor) -> None:
    check(randomised(Shared()), map_BCHW, rewrite.fold_layer_scales, 2)


def test_so_is_one_that_has_the_name_of_its_first_reader(map_BCHW: Tensor) -> None:
    module = randomised(Shared())
    made = exported(module, map_BCHW)
    for tensor in made.graph.initializer:  # as names.readable calls what has lost its name
        if readers := [node for node in made.graph.node if tensor.name in node.input]:
            name, before = f"{readers[0].name}/weight", tensor.name
            for node in readers:
                node.input[:] = [name if one == before else one for one in node.input]
            tensor.name = name
    assert rewrite.fold_layer_scales(made) == 2
    (found,) = ReferenceEvaluator(made).run(None, {"images": map_BCHW.numpy()})
    np.testing.assert_allclose(found, module(map_BCHW).detach().numpy(), rtol=0, atol=TOLERANCE)


def test_a_block_computes_on_sequences_between_its_transposes(map_BCHW: Tensor) -> None:
    made = check(randomised(Block(convolutions=False, bias=True)), map_BCHW, positions.flatten_positions, 1)
    ranks = {
        info.name: len(info.type.tensor_type.shape.dim)
        for info in onnx.shape_inference.infer_shapes(made).graph.value_info
    }
    between = [node for node in made.graph.node if node.op_type in ("LayerNormalization", "MatMul", "Relu")]
    assert {node.op_type for node in between} == {"LayerNormalization", "MatMul", "Relu"}
    assert all(ranks[tensor] == 3 for node in between for tensor in node.output)


def test_a_norm_on_its_own_between_transposes_is_flattened_at_any_batch(map_BCHW: Tensor) -> None:
    check(randomised(Block(convolutions=True, bias=True)), map_BCHW, positions.flatten_positions, 1)


class Between(nn.Module):
    """Something between two transposes that is not one position at a time, or is read elsewhere too."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.norm = nn.LayerNorm(6)
        self.rows = nn.Parameter(torch.ones(4, 1))  # as broadcast over a map: one for each column of it

    def forward(self, map_BCHW: Tensor) -> Tensor:
        found_BHWC = self.norm(map_BCHW.permute(0, 2, 3, 1))
        if self.what == "a mean over rows":
            found_BHWC = found_BHWC - found_BHWC.mean(1, keepdim=True)
        if self.what == "a constant for each column":
            found_BHWC = found_BHWC * self.rows
        if self.what == "a softmax over columns":
            found_BHWC = found_BHWC.softmax(2)
        found_BCHW = found_BHWC.permute(0, 3, 1, 2)
        if self.what == "another reader":
            return found_BCHW + found_BHWC.mean((1, 2))[:, :, None, None]
        return torch.relu(found_BCHW)


@pytest.mark.parametrize(
    "what", ["a mean over rows", "a constant for each column", "a softmax over columns", "another reader"]
)
def test_what_is_not_one_position_at_a_time_stays_a_map(map_BCHW: Tensor, what: str) -> None:
    check(randomised(Between(what)), map_BCHW, positions.flatten_positions, 0)


def test_between_itself_would_be_flattened(map_BCHW: Tensor) -> None:
    check(randomised(Between("nothing")), map_BCHW, positions.flatten_positions, 1)
