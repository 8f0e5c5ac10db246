"""U-Net: the size of the literature, any picture size, and gradients everywhere."""

import pytest
import torch
from torch import Tensor

from napari_embryo import models
from napari_embryo.models import binary
from napari_embryo.models.baselines import UNet
from napari_embryo.settings import UNetSettings

PUBLISHED = 31_037_633
"""The widespread PyTorch U-Net: RGB in, one class out, 2 x 2 transposed convolutions."""


def count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def build(base_channels: int = 8, classes: tuple[str, ...] = ("ICM", "TE", "ZP")) -> UNet:
    torch.manual_seed(0)
    net = models.build(UNetSettings(base_channels=base_channels, classes=classes))
    assert isinstance(net, UNet)
    return net


def pictures(count: int, hw: tuple[int, int] = (48, 64)) -> Tensor:
    return torch.randn(count, 1, *hw, generator=torch.Generator().manual_seed(1))


def formula(base: int, classes: int) -> int:
    """Two 3 x 3 convolutions with batch normalisation per level, 1 x 1 before every concatenation, 1 x 1 head."""

    def double(i: int, o: int) -> int:
        return 9 * (i * o + o * o) + 4 * o

    w = [base * 2**i for i in range(5)]
    down = sum(double(i, o) for i, o in zip([1, *w[:-1]], w, strict=True))
    up = sum(2 * c * c + c + double(2 * c, c) for c in w[:4])
    return down + up + base * classes + classes


@pytest.mark.parametrize(("base", "classes"), [(64, 1), (16, 3), (8, 2)])
def test_as_many_parameters_as_the_formula(base: int, classes: int) -> None:
    assert count(build(base, tuple("abc"[:classes]))) == formula(base, classes)


def test_as_many_parameters_as_the_literature_s() -> None:
    """A transposed convolution has three 2c x c kernels more than a 1 x 1 one, an RGB stem 2 x 9 x 64 weights more."""
    transposed = sum(3 * 2 * c * c for c in (64, 128, 256, 512))
    assert count(build(64, ("ZP",))) + transposed + 2 * 9 * 64 == PUBLISHED


@pytest.mark.parametrize("hw", [(224, 300), (223, 301), (97, 131), (48, 64), (17, 31), (16, 16)])
@pytest.mark.parametrize("classes", [("ZP",), ("ICM", "TE", "ZP")])
def test_any_size(hw: tuple[int, int], classes: tuple[str, ...]) -> None:
    with torch.no_grad():
        out = build(4, classes).eval()(pictures(2, hw))
    assert {name: tuple(t.shape) for name, t in out.items()} == {"logits": (2, len(classes), *hw)}
    assert torch.isfinite(out["logits"]).all()


@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_parameter(training: bool) -> None:
    net, images = build(), pictures(2)
    with torch.no_grad():
        net.train()(images)
    targets = {"masks": images.expand(-1, 3, -1, -1) > 0, "valid": torch.ones_like(images), "known": torch.ones(2, 3)}
    sum(binary.loss(net.train(training)(images), targets).values(), torch.zeros(())).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_eval_is_deterministic_and_batch_invariant() -> None:
    net, images = build(), pictures(3)
    with torch.no_grad():
        net.train()(images)
        net.eval()
        together, again, alone = net(images)["logits"], net(images)["logits"], net(images[1:2])["logits"]
    assert torch.equal(together, again)
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)


def test_it_sees_as_far_as_its_depth() -> None:
    """A change in one corner reaches the other through the bottleneck."""
    net, images = build().eval(), pictures(1, (64, 64)).requires_grad_()
    net(images)["logits"][0, 0, 60, 60].backward()
    assert images.grad is not None
    assert images.grad[0, 0, :4, :4].any()


def test_it_has_no_attention_maps() -> None:
    assert build().map_names() == ()
    assert models.MAPS["unet"] == {}
