"""What is shown is what the network computed, in a range that does not depend on the picture."""

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from napari_embryo import models
from napari_embryo.explain import (
    AttentionMap,
    attention_maps,
    check_names,
    combined_heat_map,
    grad_cam,
    grad_cam_names,
    grad_cams,
)
from napari_embryo.families import BLASTOCYST_CLASSES, ResANetSettings, UNetSettings, VQAmodalSettings
from napari_embryo.geometry import plan
from napari_embryo.models.baselines import UNet
from napari_embryo.models.resanet import ResANet

NET_HW = (64, 96)
GEOMETRY = plan((97, 131), NET_HW)
IMAGE = torch.randn(1, 1, *NET_HW, generator=torch.Generator().manual_seed(1))
MAP_NAMES = (
    *("SA1", "SA2", "SA2a", "SA2b", "SA3", "SA3a", "SA3b", "SA4"),
    *("CA1", "CA2", "CA3", "CA4"),
    *("LA", "LA1", "LA2", "LA3", "LA4"),
)


def settled(settings: ResANetSettings | UNetSettings) -> Any:
    """A network whose statistics fit its weights."""
    torch.manual_seed(0)
    net = models.build(settings).train()
    with torch.no_grad():
        net(torch.randn(3, 1, *NET_HW))
    return net.eval()


@pytest.fixture(scope="module")
def resanet() -> ResANet:
    net: ResANet = settled(ResANetSettings())
    nn.init.constant_(net.sa1.bn.weight, 0.5)
    return net


@pytest.fixture(scope="module")
def unet() -> UNet:
    net: UNet = settled(UNetSettings(base_channels=8, classes=("ZP",)))
    return net


@pytest.fixture
def one_class(unet: UNet) -> UNet:
    """The same network with a head that says yes to some of this picture."""
    torch.manual_seed(1)
    nn.init.normal_(unet.head.weight)
    nn.init.zeros_(unet.head.bias)
    with torch.no_grad():
        unet.head.bias -= unet(IMAGE)["logits"].median()
    return unet


def outputs(net: nn.Module) -> dict[str, Tensor]:
    """Of the one picture, without the batch axis."""
    with torch.no_grad():
        return {name: tensor[0] for name, tensor in net(IMAGE).items()}


@pytest.fixture(scope="module")
def found(resanet: ResANet) -> dict[str, Tensor]:
    return outputs(resanet)


def test_resanet_has_the_maps_of_the_design(resanet: ResANet) -> None:
    assert resanet.map_names() == MAP_NAMES


@pytest.mark.parametrize(
    ("name", "channels", "window", "grid_hw"),
    [
        ("SA1", [0], (0, 4), (2, 3)),
        ("SA2", [0, 1], (0, 1), (8, 12)),
        ("SA2a", [0], (0, 1), (8, 12)),
        ("SA2b", [1], (0, 1), (8, 12)),
        ("SA3", [0, 1], (0, 1), (16, 24)),
        ("SA3a", [0], (0, 1), (16, 24)),
        ("SA3b", [1], (0, 1), (16, 24)),
        ("SA4", [0], (0, 1), (32, 48)),
        *((f"CA{i}", [0], (-1, 1), (2 * 2**i, 3 * 2**i)) for i in range(1, 5)),
        ("LA", [0, 1, 2, 3], (0, 1), (64, 96)),
        *((f"LA{i}", [i - 1], (0, 1), (64, 96)) for i in range(1, 5)),
    ],
)
def test_every_map_can_be_shown(
    found: dict[str, Tensor], name: str, channels: list[int], window: tuple[float, float], grid_hw: tuple[int, int]
) -> None:
    (shown,) = attention_maps("resanet", found, GEOMETRY, [name])
    assert (shown.name, shown.window, shown.grid.shape) == (name, window, grid_hw)
    assert shown.grid.dtype == np.float32
    assert shown.meaning
    computed = found[name.rstrip("ab") if name[:2] == "SA" else name[:2] if name[:2] == "LA" else name].numpy()
    np.testing.assert_allclose(shown.grid, computed[channels].mean(0), atol=1e-6)
    assert shown.grid.min() >= window[0]
    assert shown.grid.max() <= (np.prod(grid_hw) if name == "SA1" else window[1])
    on_image = shown.on_image()
    assert on_image.shape == (97, 131)
    assert shown.grid.min() - 1e-6 <= on_image.min() <= on_image.max() <= shown.grid.max() + 1e-6


def test_maps_come_in_the_order_asked_for(found: dict[str, Tensor]) -> None:
    names = ("LA3", "SA1", "CA2", "SA1")
    assert tuple(m.name for m in attention_maps("resanet", found, GEOMETRY, names)) == names
    assert attention_maps("resanet", found, GEOMETRY, ()) == ()


def test_a_flat_map_stays_flat() -> None:
    net: ResANet = settled(ResANetSettings())
    assert net.sa4 is not None
    for parameter in net.sa4.psi.parameters():
        nn.init.zeros_(parameter)
    (shown,) = attention_maps("resanet", outputs(net), GEOMETRY, ["SA4"])
    assert shown.window == (0, 1)
    np.testing.assert_allclose(shown.on_image(), 0.5, atol=1e-6)


def test_a_map_lies_only_on_what_the_network_saw() -> None:
    geometry = plan((97, 131), NET_HW, box=(20, 30, 80, 120))
    shown = AttentionMap("SA4", np.full((32, 48), 0.9, np.float32), (0, 1), "", geometry).on_image()
    expected = np.zeros((97, 131))
    expected[20:80, 30:120] = 0.9
    np.testing.assert_allclose(shown, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "lacking", "asked", "said"),
    [
        ("resanet", (), "SA9", "no attention map SA9 in resanet; it has " + ", ".join(MAP_NAMES)),
        ("resanet", (), "logits", "no attention map logits in resanet; it has SA1"),
        ("resanet", ("SA4",), "SA4", "no attention map SA4 in resanet; it has SA1"),
        ("unet", MAP_NAMES, "SA1", "no attention map SA1 in unet; it has none"),
    ],
)
def test_an_unknown_map_is_answered_with_the_known(
    found: dict[str, Tensor], family: str, lacking: tuple[str, ...], asked: str, said: str
) -> None:
    there = {name: tensor for name, tensor in found.items() if name not in lacking}
    with pytest.raises(ValueError, match=re.escape(said)):
        attention_maps(family, there, GEOMETRY, ["SA1", asked] if family == "resanet" else [asked])


def test_a_network_with_single_gates_has_no_second_gate() -> None:
    net: ResANet = settled(ResANetSettings(dual_gate=False))
    with pytest.raises(ValueError, match="no attention map SA2b, SA3b in resanet; it has SA1, SA2"):
        attention_maps("resanet", outputs(net), GEOMETRY, ["SA2b", "SA2", "SA3b"])
    with pytest.raises(ValueError, match="no attention map SA2a; these weights have SA1, SA2, SA3, SA4, CA1"):
        check_names(net, ["SA2", "SA2a"])
    assert len(attention_maps("resanet", outputs(net), GEOMETRY, net.map_names())) == len(MAP_NAMES) - 4


def test_names_are_checked_before_anything_is_computed(resanet: ResANet, unet: UNet) -> None:
    check_names(resanet, MAP_NAMES, "encoder 1/32")
    check_names(unet, (), "bottleneck")
    with pytest.raises(ValueError, match="no attention map SA1; these weights have none"):
        check_names(unet, ["SA1"])
    with pytest.raises(ValueError, match=r"no layer 'conv7'; Grad-CAM is available for bottleneck, .*, last"):
        check_names(unet, (), "conv7")


def by_hand(net: nn.Module, layer: nn.Module, class_index: int) -> npt.NDArray[np.float64]:
    """Score = sum of the positive logits (all, if none); ReLU(sum of mean gradient times activation)."""
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, out: kept.append(out))
    logits = net(IMAGE.clone().requires_grad_())["logits"][0, class_index]
    handle.remove()
    score = logits[logits > 0].sum() if (logits > 0).any() else logits.sum()
    (gradient,) = torch.autograd.grad(score, kept[0])
    w, a = gradient[0].double().mean((1, 2)).numpy(), kept[0][0].detach().double().numpy()
    cam = np.maximum(np.tensordot(w, a, 1), 0)
    return cam / cam.max() if cam.max() > 0 else cam


RESANET_LAYERS = {
    "encoder 1/32": (2, 3),
    "encoder 1/16": (4, 6),
    "decoder 1/16": (4, 6),
    "decoder 1/8": (8, 12),
    "decoder 1/4": (16, 24),
    "decoder 1/2": (32, 48),
    "last": (64, 96),
}
UNET_LAYERS = {
    "bottleneck": (4, 6),
    "decoder 1/8": (8, 12),
    "decoder 1/4": (16, 24),
    "decoder 1/2": (32, 48),
    "last": (64, 96),
}


@pytest.mark.parametrize(
    ("family", "layer", "grid_hw"),
    [
        *(("resanet", layer, grid) for layer, grid in RESANET_LAYERS.items()),
        *(("one_class", layer, grid) for layer, grid in UNET_LAYERS.items()),
    ],
)
def test_grad_cam_is_its_formula_at_every_layer(
    request: pytest.FixtureRequest, family: str, layer: str, grid_hw: tuple[int, int]
) -> None:
    net = request.getfixturevalue(family)
    cam = grad_cam(net, IMAGE, 0, GEOMETRY, layer)
    assert (cam.grid.shape, cam.window) == (grid_hw, (0, 1))
    assert layer in cam.name
    np.testing.assert_allclose(cam.grid, by_hand(net, net.cam_layers()[layer], 0), atol=1e-4)
    assert cam.on_image().shape == (97, 131)


def test_these_are_all_the_layers(resanet: ResANet, unet: UNet) -> None:
    assert list(resanet.cam_layers()) == list(RESANET_LAYERS)
    assert list(unet.cam_layers()) == list(UNET_LAYERS)


@pytest.mark.parametrize("any_positive", [True, False])
def test_grad_cam_at_the_last_layer_only_redraws_the_prediction(one_class: UNet, any_positive: bool) -> None:
    """The caveat of its docstring."""
    with torch.no_grad():
        if not any_positive:
            one_class.head.bias -= 1.1 * one_class(IMAGE)["logits"].max()
        logits = one_class(IMAGE)["logits"][0, 0]
    redrawn = torch.relu(logits - one_class.head.bias.detach()).numpy()
    cam = grad_cam(one_class, IMAGE, 0, GEOMETRY, "last").grid
    assert bool((logits > 0).any()) == any_positive
    assert np.corrcoef(cam.ravel(), redrawn.ravel())[0, 1] > 0.999
    np.testing.assert_allclose(cam, redrawn / redrawn.max(), atol=1e-3)


def test_evidence_against_everywhere_gives_zeros(one_class: UNet) -> None:
    """Activations are never negative behind a ReLU; all weights below zero speak against the class."""
    with torch.no_grad():
        one_class.head.weight.copy_(-one_class.head.weight.abs())
    cam = grad_cam(one_class, IMAGE, 0, GEOMETRY, "last")
    assert not cam.grid.any()
    assert cam.window == (0, 1)


def test_a_network_that_sees_nothing_gives_zeros(one_class: UNet) -> None:
    nn.init.zeros_(one_class.head.weight)
    for layer in UNET_LAYERS:
        assert not grad_cam(one_class, IMAGE, 0, GEOMETRY, layer).grid.any()


def test_an_unknown_layer_is_answered_with_the_known(resanet: ResANet) -> None:
    with pytest.raises(ValueError, match="no layer 'layer4'; Grad-CAM is available for " + ", ".join(RESANET_LAYERS)):
        grad_cam(resanet, IMAGE, 0, GEOMETRY, "layer4")


def test_a_family_without_layers_says_so() -> None:
    cells = models.build(VQAmodalSettings()).eval()
    with pytest.raises(ValueError, match="'encoder 1/32': networks of this family have no layers for Grad-CAM"):
        check_names(cells, (), "encoder 1/32")


def test_grad_cam_leaves_the_network_as_it_was(one_class: UNet) -> None:
    before = {name: tensor.clone() for name, tensor in one_class.state_dict().items()}
    with torch.no_grad():
        first, second = (grad_cam(one_class, IMAGE, 0, GEOMETRY, "bottleneck").grid for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert all(torch.equal(tensor, before[name]) for name, tensor in one_class.state_dict().items())
    assert all(p.grad is None for p in one_class.parameters())
    assert not IMAGE.requires_grad


def test_the_combined_map_is_the_largest_of_the_classes(resanet: ResANet) -> None:
    *classes, combined = grad_cams(resanet, IMAGE, BLASTOCYST_CLASSES, GEOMETRY, "decoder 1/8")
    names = ("Grad-CAM ICM", "Grad-CAM TE", "Grad-CAM ZP", "Grad-CAM combined")
    assert grad_cam_names(BLASTOCYST_CLASSES) == (*(m.name for m in classes), combined.name) == names
    for index, shown in enumerate(classes):
        np.testing.assert_array_equal(shown.grid, grad_cam(resanet, IMAGE, index, GEOMETRY, "decoder 1/8").grid)
    for place in np.ndindex(8, 12):
        assert combined.grid[place] == max(float(m.grid[place]) for m in classes)
    assert combined.on_image().shape == (97, 131)


def test_the_combined_map_of_known_maps() -> None:
    grids = np.array([[[0, 0.5], [1, 0.2]], [[0.3, 0.1], [0, 1]]], np.float32)
    maps = [AttentionMap(name, grid, (0, 1), "", GEOMETRY) for name, grid in zip("ab", grids, strict=True)]
    np.testing.assert_array_equal(combined_heat_map(maps).grid, np.array([[0.3, 0.5], [1, 1]], np.float32))
