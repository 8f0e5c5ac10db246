"""Each attention block against its formula in NumPy, with the block's own weights; its gradient against differences."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from napari_embryo.models.attention import AttentionGate, ChannelAttention, DualAttentionGate, NonLocal, ScaleAttention
from napari_embryo.models.blocks import ASPP, USUAL_RATIO, InjectedConv, RegressionHead, cbr, resize_to, separable

Array = npt.NDArray[np.float64]
M = TypeVar("M", bound=nn.Module)


def settled(block: M, seed: int = 0) -> M:
    """Random weights and running statistics everywhere, in double precision and eval mode."""
    rng = torch.Generator().manual_seed(seed)
    block = block.double().eval()
    for tensor in (*block.parameters(), *(b for b in block.buffers() if b.is_floating_point())):
        tensor.data = torch.randn(tensor.shape, generator=rng, dtype=torch.float64) * 0.4
    for norm in (m for m in block.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_var.copy_(torch.rand(norm.num_features, generator=rng, dtype=torch.float64) + 0.5)
    return block


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The formulas. (C, H, W) arrays, one image; nothing here knows torch but for reading weights.


def weights(module: nn.Module) -> tuple[Array, Array | float]:
    weight, bias = module.weight.detach().numpy(), module.bias
    return weight, 0.0 if bias is None else bias.detach().numpy()


def conv(x: Array, layer: nn.Module) -> Array:
    """Cross-correlation with zero padding, stride 1: the sum over the kernel's places."""
    weight, bias = weights(layer)
    k = weight.shape[-1]
    padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    h, w = x.shape[1:]
    out = sum(
        np.tensordot(weight[:, :, dy, dx], padded[:, dy : dy + h, dx : dx + w], 1) for dy in range(k) for dx in range(k)
    )
    return out + np.reshape(bias, (-1, 1, 1))


def norm(x: Array, layer: nn.Module) -> Array:
    weight, bias = weights(layer)
    mean, var = layer.running_mean.numpy(), layer.running_var.numpy()
    scaled = (x - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
    return scaled * weight[:, None, None] + bias[:, None, None]


def conv_norm_relu(x: Array, layers: nn.Sequential) -> Array:
    return np.maximum(norm(conv(x, layers[0]), layers[1]), 0)


def linear(x: Array, layer: nn.Module) -> Array:
    weight, bias = weights(layer)
    return weight @ x + bias


def mlp(x: Array, layers: nn.Sequential) -> Array:
    return linear(np.maximum(linear(x, layers[0]), 0), layers[2])


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def pool2(x: Array) -> Array:
    """Maximum of each 2 x 2; an odd last row or column is left out."""
    h, w = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = x[:, :h, :w]
    return np.max([x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2], x[:, 1::2, 1::2]], axis=0)


def tent(n_in: int, n_out: int) -> Array:
    """Matrix of linear interpolation between pixel centers at half-integer places, the edge values going on outside."""
    place = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(n_in)))


def upsample(x: Array, hw: tuple[int, int]) -> Array:
    return np.einsum("ia,jb,cab->cij", tent(x.shape[1], hw[0]), tent(x.shape[2], hw[1]), x)


def non_local(block: NonLocal, x: Array) -> tuple[Array, Array]:
    theta, phi, g = conv(x, block.theta), pool2(conv(x, block.phi)), pool2(conv(x, block.g))
    grid = phi.shape[1:]
    phi, g = phi.reshape(len(phi), -1), g.reshape(len(g), -1)
    y, received = np.empty((len(g), *x.shape[1:])), np.zeros(phi.shape[1])
    for place in np.ndindex(x.shape[1:]):
        e = np.exp(theta[:, *place] @ phi)
        a = e / e.sum()
        y[:, *place] = g @ a
        received += a
    share = received / np.prod(x.shape[1:]) * len(received)
    return x + norm(conv(y, block.w), block.bn), share.reshape(1, *grid)


def alpha_of(block: AttentionGate, x: Array, g: Array) -> Array:
    both = conv(x, block.theta) + upsample(conv(g, block.phi), x.shape[1:])
    return sigmoid(conv(np.maximum(both, 0), block.psi))


def gate(block: AttentionGate, x: Array, g: Array) -> tuple[Array, Array]:
    alpha = alpha_of(block, x, g)
    return norm(conv(alpha * x, block.w[0]), block.w[1]), alpha


def bare_gate(block: AttentionGate, x: Array, g: Array) -> tuple[Array, Array]:
    alpha = alpha_of(block, x, g)
    return alpha * x, alpha


def dual_gate(block: DualAttentionGate, x: Array, g: Array) -> tuple[Array, Array]:
    (out1, alpha1), (out2, alpha2) = gate(block.first, x, g), gate(block.second, x, g)
    return conv_norm_relu(np.concatenate((out1, out2)), block.join), np.concatenate((alpha1, alpha2))


def channel_attention(block: ChannelAttention, x: Array) -> tuple[Array, Array, Array]:
    f = norm(conv(conv_norm_relu(x, block.expand[0]), block.expand[1]), block.expand[2])
    beta = sigmoid(mlp(f.mean((1, 2)), block.mlp)) + sigmoid(mlp(f.max((1, 2)), block.mlp))
    gain = ((beta - 1)[:, None, None] * abs(f)).sum(0) / abs(f).sum(0)
    out = np.maximum(beta[:, None, None] * f + norm(conv(x, block.residual[0]), block.residual[1]), 0)
    return conv_norm_relu(out, block.reduce), beta, gain[None]


def scale_attention(block: ScaleAttention, x: Array, use_relu: bool) -> tuple[Array, Array, Array]:
    k = block.per_scale
    pooled = mlp(x.mean((1, 2)), block.mlp) + mlp(x.max((1, 2)), block.mlp)
    gamma = np.array([sigmoid(pooled[s : s + k].mean()) for s in range(0, len(x), k)])
    scaled = np.concatenate([gamma[i] * x[i * k : (i + 1) * k] for i in range(len(gamma))])
    logits = conv(conv_norm_relu(scaled, block.spatial), block.spatial[3])
    maps = sigmoid(np.maximum(logits, 0) if use_relu else logits)
    attended = np.concatenate([maps[i] * scaled[i * k : (i + 1) * k] for i in range(len(gamma))])
    return conv_norm_relu(np.maximum(attended + scaled + x, 0), block.reduce), gamma, maps


Case = tuple[nn.Module, tuple[Tensor, ...], Callable[..., tuple[Array, ...]]]
CASES: dict[str, Case] = {
    "non-local": (settled(NonLocal(6, 3)), (random(2, 6, 6, 8),), non_local),
    "non-local, odd": (settled(NonLocal(6, 3)), (random(2, 6, 5, 7),), non_local),
    "gate": (settled(AttentionGate(4, 6)), (random(2, 4, 6, 8), random(2, 6, 3, 4, seed=2)), gate),
    "gate, odd": (settled(AttentionGate(4, 6, 5)), (random(2, 4, 7, 9), random(2, 6, 4, 5, seed=2)), gate),
    "gate alone": (
        settled(AttentionGate(4, 6, 5, project=False)),
        (random(2, 4, 7, 9), random(2, 6, 4, 5, seed=2)),
        bare_gate,
    ),
    "dual gate": (settled(DualAttentionGate(4, 6)), (random(2, 4, 5, 9), random(2, 6, 3, 5, seed=2)), dual_gate),
    "channel": (settled(ChannelAttention(6, 4, dropout=0.5)), (random(2, 6, 5, 7),), channel_attention),
    "scale": (settled(ScaleAttention(3, 2)), (random(2, 6, 5, 7),), lambda b, x: scale_attention(b, x, True)),
    "scale, no ReLU": (
        settled(ScaleAttention(4, 4, use_relu=False)),
        (random(2, 16, 6, 4),),
        lambda b, x: scale_attention(b, x, False),
    ),
}
cases = pytest.mark.parametrize(("block", "inputs", "formula"), CASES.values(), ids=CASES)


@cases
def test_block_is_its_formula(
    block: nn.Module, inputs: tuple[Tensor, ...], formula: Callable[..., tuple[Array, ...]]
) -> None:
    found = [out.detach().numpy() for out in block(*inputs)]
    for i in range(len(inputs[0])):
        expected = formula(block, *(x[i].numpy() for x in inputs))
        assert len(found) == len(expected)
        for out, reference in zip(found, expected, strict=True):
            np.testing.assert_allclose(out[i], reference, atol=1e-9)


@cases
def test_gradient_is_the_difference_quotient(block: nn.Module, inputs: tuple[Tensor, ...], formula: object) -> None:
    asked = tuple(x[:1, :, :4, :4].clone().requires_grad_() for x in inputs)
    differentiable = 1 if isinstance(block, ChannelAttention) else None  # its gain is for the eye, not for training

    def outputs(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(block(*tensors)[:differentiable])

    assert torch.autograd.gradcheck(outputs, asked)


@pytest.mark.parametrize(
    ("block", "inputs", "index", "low", "high"),
    [
        (AttentionGate(4, 6), ((3, 4, 6, 8), (3, 6, 3, 4)), 1, 0, 1),
        (AttentionGate(4, 6, 5, project=False), ((3, 4, 6, 8), (3, 6, 3, 4)), 1, 0, 1),
        (DualAttentionGate(4, 6), ((3, 4, 6, 8), (3, 6, 3, 4)), 1, 0, 1),
        (ChannelAttention(6, 4), ((3, 6, 6, 8),), 1, 0, 2),
        (ChannelAttention(6, 4), ((3, 6, 6, 8),), 2, -1, 1),
        (ScaleAttention(4, 4), ((3, 16, 6, 8),), 1, 0, 1),
        (ScaleAttention(4, 4), ((3, 16, 6, 8),), 2, 0.5, 1),
        (ScaleAttention(4, 4, use_relu=False), ((3, 16, 6, 8),), 2, 0, 1),
    ],
    ids=[
        "gate",
        "gate alone",
        "dual gate",
        "channel beta",
        "channel gain",
        "scale weight",
        "scale map",
        "scale map without ReLU",
    ],
)
def test_attention_keeps_its_range(
    block: nn.Module, inputs: tuple[tuple[int, ...], ...], index: int, low: float, high: float
) -> None:
    block.double().eval()
    for strength in (1, 5):
        attention = block(*(strength * random(*shape) for shape in inputs))[index]
        assert attention.min() >= low
        assert attention.max() < high


@pytest.mark.parametrize("hw", [(6, 8), (5, 7), (1, 6), (6, 1), (1, 1)])
def test_non_local_starts_as_the_identity_and_shares_out_all_attention(hw: tuple[int, int]) -> None:
    block = NonLocal(8, 4).double().eval()
    x = random(2, 8, *hw)
    out, received = block(x)
    assert torch.equal(out, x)
    assert received.shape == (2, 1, max(1, hw[0] // 2), max(1, hw[1] // 2))
    torch.testing.assert_close(received.mean((1, 2, 3)), torch.ones(2, dtype=torch.float64))


def test_non_local_looks_evenly_at_a_flat_picture() -> None:
    _, received = NonLocal(8, 4).eval()(torch.full((1, 8, 6, 8), 0.7))
    torch.testing.assert_close(received, torch.ones(1, 1, 3, 4))


def test_neutral_channels_have_no_gain() -> None:
    block = ChannelAttention(6, 4).eval()
    for parameter in block.mlp.parameters():
        nn.init.zeros_(parameter)
    _, beta, gain = block(torch.randn(2, 6, 5, 7))
    assert torch.equal(beta, torch.ones(2, 8))
    assert not gain.any()


def test_dropout_rests_when_not_training() -> None:
    torch.manual_seed(0)
    block, x = ChannelAttention(6, 4, dropout=0.5), torch.randn(2, 6, 5, 7)
    block.eval()
    assert torch.equal(block(x)[0], block(x)[0])
    block.train()
    assert not torch.equal(block(x)[0], block(x)[0])


@pytest.mark.parametrize(("small", "large"), [((3, 4), (6, 8)), ((4, 5), (7, 9)), ((1, 1), (3, 5)), ((5, 5), (5, 5))])
def test_upsampling_meets_its_partner(small: tuple[int, int], large: tuple[int, int]) -> None:
    x = random(1, 2, *small)
    found = resize_to(x, torch.empty(1, 9, *large))
    np.testing.assert_allclose(found[0].numpy(), upsample(x[0].numpy(), large), atol=1e-12)


@pytest.mark.parametrize("kernel", [1, 3])
def test_convolution_normalization_relu(kernel: int) -> None:
    block, x = settled(cbr(3, 5, kernel)), random(1, 3, 5, 7)
    np.testing.assert_allclose(block(x)[0].detach().numpy(), conv_norm_relu(x[0].numpy(), block), atol=1e-12)
    assert block[0].bias is None


def dilated(x: Array, layers: nn.Sequential, rate: int) -> Array:
    """Each channel by its own 3 x 3 kernel with holes, then a mixture, normalization, ReLU."""
    kernel = layers[0].weight.detach().numpy()[:, 0]
    padded = np.pad(x, ((0, 0), (rate, rate), (rate, rate)))
    h, w = x.shape[1:]
    rows = [(i, j, rate * i, rate * j) for i in range(3) for j in range(3)]
    deep = sum(kernel[:, i, j, None, None] * padded[:, dy : dy + h, dx : dx + w] for i, j, dy, dx in rows)
    return np.maximum(norm(conv(deep, layers[1]), layers[2]), 0)


@pytest.mark.parametrize("rate", [1, 2, 6])
def test_separable_convolution(rate: int) -> None:
    block, x = settled(separable(3, 5, rate)), random(1, 3, 7, 9)
    np.testing.assert_allclose(block(x)[0].detach().numpy(), dilated(x[0].numpy(), block, rate), atol=1e-12)


@pytest.mark.parametrize("hw", [(7, 9), (1, 1), (20, 3)])
def test_pyramid_pooling_is_its_five_branches(hw: tuple[int, int]) -> None:
    """That of the whole picture leaves the padding out: the first picture is padded on its left half."""
    block, x = settled(ASPP(6, (1, 2, 4), 5)), random(2, 6, *hw)
    weight = torch.ones(2, 1, *hw, dtype=torch.float64)
    weight[0, :, :, : hw[1] // 2] = 0
    for picture, shown, found in zip(x.numpy(), weight.numpy(), block(x, weight).detach().numpy(), strict=True):
        average = (picture * shown).sum((1, 2), keepdims=True) / shown.sum()
        whole = np.maximum(conv(average, block.whole[0]), 0)
        far = [dilated(picture, branch, rate) for branch, rate in zip(block.far, (1, 2, 4), strict=True)]
        branches = [conv_norm_relu(picture, block.near), *far, np.broadcast_to(whole, (5, *hw))]
        np.testing.assert_allclose(found, conv_norm_relu(np.concatenate(branches), block.join[0]), atol=1e-9)


def injected(kernel: int, vector: int = 7) -> InjectedConv:
    return settled(InjectedConv(4, vector, 3, kernel))


@pytest.mark.parametrize("hw", [(5, 8), (2, 2), (1, 3), (1, 1)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_injection_is_the_convolution_of_the_features_with_the_vector_at_every_place(
    kernel: int, hw: tuple[int, int]
) -> None:
    """Also at the borders, where part of the kernel meets zeros."""
    block, features, vector = injected(kernel), random(2, 4, *hw), random(2, 7, seed=2)
    literal = torch.cat((features, vector[:, :, None, None].expand(-1, -1, *hw)), 1)
    found, share = block(features, vector)
    expected = nn.functional.conv2d(literal, block.weight, block.bias, padding=kernel // 2)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    for i in range(2):
        np.testing.assert_allclose(found[i].detach().numpy(), conv(literal[i].numpy(), block), atol=1e-9)
    torch.testing.assert_close(share, torch.einsum("oikl,bi->bo", block.weight[:, 4:], vector), atol=1e-9, rtol=0)


@pytest.mark.parametrize("kernel", [1, 3])
def test_injection_s_gradient_is_that_of_the_literal_convolution(kernel: int) -> None:
    block = injected(kernel)
    inputs = random(1, 4, 3, 3).requires_grad_(), random(1, 7, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, v: block(x, v)[0], inputs)
    literal = torch.cat((inputs[0], inputs[1][:, :, None, None].expand(-1, -1, 3, 3)), 1)
    expected = nn.functional.conv2d(literal, block.weight, block.bias, padding=kernel // 2)
    asked = (block.weight, block.bias, *inputs)
    ours = torch.autograd.grad(block(*inputs)[0].square().sum(), asked)
    for own, other in zip(ours, torch.autograd.grad(expected.square().sum(), asked), strict=True):
        torch.testing.assert_close(own, other, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kernel", [1, 3])
def test_injection_starts_as_a_plain_convolution(kernel: int) -> None:
    block, features, vector = InjectedConv(4, 7, 3, kernel), torch.randn(2, 4, 5, 6), torch.randn(2, 7)
    found, share = block(features, vector)
    expected = nn.functional.conv2d(features, block.weight[:, :4], block.bias, padding=kernel // 2)
    assert torch.equal(found, expected)
    assert not share.any()
    none = InjectedConv(4, 0, 3, kernel)
    out, _ = none(features, features.new_zeros(2, 0))
    assert torch.equal(out, nn.functional.conv2d(features, none.weight, none.bias, padding=kernel // 2))


def test_a_regression_starts_at_the_usual_ratio_and_can_leave_it() -> None:
    head, features = RegressionHead(nn.Identity(), 6, dropout=0), torch.rand(4, 6)
    vector, logit = head(features)
    assert torch.equal(vector, features)
    torch.testing.assert_close(torch.sigmoid(logit), torch.full((4, 1), USUAL_RATIO))
    torch.sigmoid(logit).sum().backward()
    assert head.last.weight.grad is not None
    assert head.last.weight.grad.all()
