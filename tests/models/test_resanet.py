"""ResA-Net: the paper's sizes, any picture size, the same answer every time, and it learns."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.feature_extraction import create_feature_extractor

from napari_embryo import models
from napari_embryo.families import (
    BLASTOCYST_CLASSES,
    FAMILIES,
    RegDeepLabSettings,
    ResANetSettings,
    VQAmodalSettings,
)
from napari_embryo.geometry import normalize
from napari_embryo.models import binary_loss
from napari_embryo.models.encoder import Encoder
from napari_embryo.models.resanet import ResANet
from napari_embryo.settings import Preprocessing
from napari_embryo.synthetic import draw_blastocyst

CHANNELS = {"base": (16, 32, 64, 128), "wide": (32, 64, 128, 256)}
PUBLISHED = {"base": 25_386_603, "wide": 30_132_035}
"""Parameters of an independent implementation with two output channels."""
OPTIONS: dict[str, dict[str, Any]] = {
    "as is": {},
    "wide": {"width": "wide"},
    "no SA4": {"sa4": False},
    "single gates": {"dual_gate": False},
    "no ReLU in LA": {"la_relu": False},
    "softmax": {"head": "softmax", "classes": ("ZP",)},
    "one class": {"classes": ("ICM",)},
}

pytestmark = pytest.mark.usefixtures("shallow")


def build(**options: Any) -> ResANet:
    torch.manual_seed(0)
    return ResANet(ResANetSettings(**options))


def pictures(count: int, hw: tuple[int, int] = (64, 96), seed: int = 1) -> Tensor:
    return torch.randn(count, 1, *hw, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def net(shallow: None) -> ResANet:
    """A network whose statistics fit its weights, and whose non-local block does something."""
    net = build(dropout=0.5)
    nn.init.constant_(net.sa1.bn.weight, 0.5)
    with torch.no_grad():
        net.train()(pictures(4))
    return net.eval()


def step_back(net: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The gradient of the loss for every parameter."""
    net.zero_grad()
    outputs = net(images)
    b, c, h, w = outputs["logits"].shape
    masks = (torch.rand(b, c, h, w, generator=torch.Generator().manual_seed(2)) > 0.5).float()
    targets = {"masks": masks, "valid": torch.ones(b, 1, h, w), "known": torch.ones(b, c)}
    sum(binary_loss.loss(outputs, targets).values(), torch.zeros(())).backward()
    return {name: p.grad.clone() if p.grad is not None else torch.zeros(()) for name, p in net.named_parameters()}


def count_cbr(inside: int, outside: int, kernel: int = 1) -> int:
    return inside * outside * kernel**2 + 2 * outside


def count_gate(c: int, g: int) -> int:
    return c * c + (g * c + c) + (c + 1) + (c * c + c) + 2 * c


def count_dual(c: int, g: int) -> int:
    return 2 * count_gate(c, g) + (2 * c * c + c) + 2 * c


def count_channel(i: int, o: int) -> int:
    mlp = 2 * o * (o // 2) + o // 2 + (o // 2) * 2 * o + 2 * o
    return count_cbr(i, o, 3) + count_cbr(o, 2 * o, 3) + mlp + count_cbr(i, 2 * o) + count_cbr(2 * o, o, 3)


def count_resanet(d: tuple[int, int, int, int], classes: int) -> int:
    """By the widths and modules of the paper, on top of torchvision's ResNet-50 without its classifier."""
    trunk = 25_557_032 - (2048 * 1000 + 1000)
    laterals = sum(count_cbr(c, o) for c, o in zip((64, 256, 512, 1024), d, strict=True)) + count_cbr(2048, d[3])
    inner = d[3] // 2
    non_local = 3 * (2 * d[3] * inner + inner) + (inner * 2 * d[3] + 2 * d[3]) + 2 * 2 * d[3]
    gates = count_dual(d[2], d[3]) + count_dual(d[1], d[2]) + count_gate(d[0], d[1])
    channel = sum(count_channel(2 * o, o) for o in d)
    ups = sum(count_cbr(deep, fine) for fine, deep in pairwise(d))
    scale = (16 * 4 + 4) + (4 * 16 + 16) + count_cbr(16, 4, 3) + 4 * 4 + count_cbr(16, 4, 3)
    return trunk + laterals + non_local + gates + channel + ups + sum(4 * o + 4 for o in d) + scale + 5 * classes


@pytest.mark.parametrize("width", ["base", "wide"])
@pytest.mark.usefixtures("deep")
def test_as_many_parameters_as_the_design(width: Any) -> None:
    count = sum(p.numel() for p in build(width=width).parameters())
    assert count == count_resanet(CHANNELS[width], classes=3)
    assert count == pytest.approx(PUBLISHED[width], rel=1e-3)


def half(hw: tuple[int, int], times: int) -> tuple[int, int]:
    """Each stride rounds up."""
    for _ in range(times):
        hw = (hw[0] + 1) // 2, (hw[1] + 1) // 2
    return hw


@pytest.mark.parametrize("hw", [(224, 300), (223, 301), (97, 131), (64, 64), (33, 47), (32, 32)])
def test_any_size_gives_logits_and_maps_on_their_grids(net: ResANet, hw: tuple[int, int]) -> None:
    with torch.no_grad():
        out = net(pictures(1, hw))
    h16, w16 = half(hw, 4)
    shapes = {
        "logits": (1, 3, *hw),
        "SA1": (1, 1, h16 // 2, w16 // 2),
        "SA2": (1, 2, *half(hw, 3)),
        "SA3": (1, 2, *half(hw, 2)),
        "SA4": (1, 1, *half(hw, 1)),
        **{f"CA{i}": (1, 1, *half(hw, 5 - i)) for i in range(1, 5)},
        **{f"CA{i}_beta": (1, 512 // 2**i) for i in range(1, 5)},
        "LA": (1, 4, *hw),
        "LA_scale": (1, 4),
    }
    assert {name: tuple(tensor.shape) for name, tensor in out.items()} == shapes
    assert all(torch.isfinite(tensor).all() for tensor in out.values())


def test_the_grids_of_the_design_at_the_paper_s_size(net: ResANet) -> None:
    with torch.no_grad():
        out = net(pictures(1, (224, 300)))
    grids = {name: tuple(out[name].shape[2:]) for name in ("SA1", "SA2", "SA3", "SA4", "LA")}
    assert grids == {"SA1": (7, 9), "SA2": (28, 38), "SA3": (56, 75), "SA4": (112, 150), "LA": (224, 300)}


def test_maps_keep_their_documented_ranges(net: ResANet) -> None:
    with torch.no_grad():
        out = net(3 * pictures(2))
    torch.testing.assert_close(out["SA1"].mean((1, 2, 3)), torch.ones(2))
    ranges = {
        "SA1": (0, out["SA1"][0].numel()),
        **dict.fromkeys(("SA2", "SA3", "SA4", "LA_scale"), (0, 1)),
        **{f"CA{i}": (-1, 1) for i in range(1, 5)},
        **{f"CA{i}_beta": (0, 2) for i in range(1, 5)},
        "LA": (0.5, 1),
    }
    assert ranges.keys() == out.keys() - {"logits"}
    for name, (low, high) in ranges.items():
        assert low <= out[name].min(), name
        assert out[name].max() <= high, name


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_option_runs_and_learns(options: dict[str, Any]) -> None:
    net = build(**options)
    gradients = step_back(net.train(), pictures(2, (33, 47)))
    assert gradients["encoder.trunk.conv1.weight"].any()
    assert gradients["head.weight"].any()
    with torch.no_grad():
        out = net.eval()(pictures(1, (33, 47)))
    assert out["logits"].shape == (1, len(net.settings.classes), 33, 47)
    assert {FAMILIES["resanet"].maps[name].key for name in net.map_names()} <= out.keys()
    assert ("SA4" in out) == net.settings.sa4
    assert out["SA2"].shape[1] == out["SA3"].shape[1] == (2 if net.settings.dual_gate else 1)
    assert bool((out["LA"] >= 0.5).all()) or not net.settings.la_relu


def test_building_by_settings() -> None:
    assert isinstance(models.build(ResANetSettings(classes=("ZP",))), ResANet)


@pytest.mark.parametrize("classes", [BLASTOCYST_CLASSES, ("ICM", "TE")])
def test_softmax_is_for_one_class(classes: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="name one class or use head='sigmoid'"):
        ResANetSettings(head="softmax", classes=classes)


def test_the_softmax_head_gives_the_log_odds_of_two_channels() -> None:
    net = build(head="softmax", classes=("ZP",)).eval()
    two_channels: list[Tensor] = []
    net.head.register_forward_hook(lambda _module, _inputs, out: two_channels.append(out))
    with torch.no_grad():
        logits = net(pictures(1))["logits"]
    region = torch.softmax(two_channels[0], 1)[:, 1:]
    torch.testing.assert_close(torch.sigmoid(logits), region)
    torch.testing.assert_close(logits, torch.log(region / (1 - region)), atol=1e-4, rtol=1e-4)


CANCELED = (
    *(f"{module}.bias" for module in ("sa1.w", "sa1.g", "sa4.w.0")),
    *(f"{sa}.{part}.bias" for sa in ("sa2", "sa3") for part in ("first.w.0", "second.w.0", "join.0")),
)
"""Biases that the batch normalization behind them takes away again while it uses the batch's own mean."""
SHIFTS_ALL_KEYS = ("sa1.phi.bias",)
"""Adds the same to every key's score, and a softmax does not see that."""


@pytest.fixture(scope="module")
def learner(shallow: None) -> ResANet:
    net = build(dropout=0)
    nn.init.ones_(net.sa1.bn.weight)  # it starts at zero, so that the block is the identity
    with torch.no_grad():
        net.train()(pictures(2))
    return net


@pytest.mark.parametrize(("training", "without"), [(True, CANCELED + SHIFTS_ALL_KEYS), (False, SHIFTS_ALL_KEYS)])
def test_gradients_reach_every_parameter(learner: ResANet, training: bool, without: tuple[str, ...]) -> None:
    gradients = step_back(learner.train(training), pictures(2))
    assert gradients.keys() == dict(learner.named_parameters()).keys()
    assert [name for name, g in gradients.items() if not torch.isfinite(g).all()] == []
    assert [name for name, g in gradients.items() if not g.any() and name not in without] == []


def test_the_non_local_block_leaves_the_identity_after_one_step() -> None:
    net = build(dropout=0)
    assert step_back(net.train(), pictures(2))["sa1.bn.weight"].any()


def test_the_same_picture_gives_the_same_answer_twice(net: ResANet) -> None:
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    with torch.no_grad():
        first, second = net(pictures(2)), net(pictures(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())


def test_a_picture_s_answer_does_not_depend_on_its_batch(net: ResANet) -> None:
    images = pictures(3)
    with torch.no_grad():
        together, alone = net(images), net(images[1:2])
    for name in alone:
        torch.testing.assert_close(together[name][1:2], alone[name], atol=1e-5, rtol=1e-4)


def test_memory_layout_does_not_matter(net: ResANet) -> None:
    with torch.no_grad():
        plain = net(pictures(1))["logits"]
        other = net(pictures(1).contiguous(memory_format=torch.channels_last))["logits"]
    torch.testing.assert_close(plain, other, atol=1e-4, rtol=1e-4)


def torchvision_features(encoder: Encoder, trunk: nn.Module, images: Tensor) -> Mapping[str, Tensor]:
    trunk.load_state_dict(encoder.trunk.state_dict(), strict=False)
    nodes = {"relu": "c1", "layer1": "c2", "layer2": "c3", "layer3": "c4", "layer4": "c5"}
    found: Mapping[str, Tensor] = create_feature_extractor(trunk.eval(), nodes)(images.repeat(1, 3, 1, 1))
    return found


@pytest.mark.usefixtures("deep")
def test_the_encoder_is_torchvision_s_on_a_gray_picture() -> None:
    encoder = Encoder().eval()
    with torch.no_grad():
        expected = torchvision_features(encoder, resnet50(weights=None), pictures(1))
        found = encoder(pictures(1))
    for feature, reference in zip(found, expected.values(), strict=True):
        torch.testing.assert_close(feature, reference, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("deep")
def test_the_v1_encoder_strides_in_the_first_convolution() -> None:
    """He et al. 2016: "downsampling is performed by conv3_1, conv4_1, and conv5_1", in the bottleneck's 1 x 1."""
    strides = {
        variant: [
            tuple(conv.stride[0] for conv in (block.conv1, block.conv2, block.conv3))
            for block in (getattr(encoder.trunk, f"layer{i}")[0] for i in range(1, 5))
        ]
        for variant, encoder in (("v1", Encoder("v1")), ("v1.5", Encoder("v1.5")))
    }
    assert strides == {"v1": [(1, 1, 1), *[(2, 1, 1)] * 3], "v1.5": [(1, 1, 1), *[(1, 2, 1)] * 3]}


@pytest.mark.usefixtures("deep")
@pytest.mark.parametrize("family", [ResANetSettings, RegDeepLabSettings, VQAmodalSettings])
def test_every_family_can_have_the_v1_encoder(family: Any) -> None:
    trunk: Any = models.build(family(encoder="v1")).get_submodule("encoder.trunk")
    assert trunk.layer2[0].conv1.stride == (2, 2)


@pytest.mark.usefixtures("deep")
def test_imagenet_weights_load(imagenet_backbone: Path) -> None:
    encoder = Encoder()
    encoder.load(imagenet_backbone)
    stored = load_file(imagenet_backbone)
    loaded = encoder.trunk.state_dict()
    assert {name for name in loaded if not name.endswith("num_batches_tracked")} <= stored.keys()
    assert all(torch.equal(loaded[name], stored[name].float()) for name in loaded if name in stored)


def test_a_classifier_and_half_precision_are_no_obstacle(tmp_path: Path, net: ResANet) -> None:
    state = {name: t.half() if t.is_floating_point() else t for name, t in net.encoder.trunk.state_dict().items()}
    save_file({**state, "fc.weight": torch.zeros(10, 2048), "fc.bias": torch.zeros(10)}, tmp_path / "r50.safetensors")
    encoder = Encoder()
    encoder.load(tmp_path / "r50.safetensors")
    assert all(torch.equal(t, state[name].to(t.dtype)) for name, t in encoder.trunk.state_dict().items())
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"head.weight": torch.zeros(1)}, "1 unknown"),
        ({"conv1.weight": torch.zeros(64, 3, 7, 7)}, "tensors missing"),
        ({"conv1.weight": torch.zeros(64, 1, 7, 7)}, "size mismatch for conv1.weight"),
    ],
    ids=["another network", "half a network", "other shapes"],
)
def test_a_foreign_backbone_is_refused(tmp_path: Path, state: dict[str, Tensor], reason: str) -> None:
    file = tmp_path / "foreign.safetensors"
    save_file(state, file)
    with pytest.raises(ValueError, match=reason) as refusal:
        Encoder().load(file)
    assert "foreign.safetensors: not a ResNet-50 state dict" in str(refusal.value)
    assert "torchvision's resnet50" in str(refusal.value)


def dice(logits: Tensor, masks: Tensor) -> Tensor:
    found = logits > 0
    return 2 * (found & masks).sum((0, 2, 3)) / (found.sum((0, 2, 3)) + masks.sum((0, 2, 3)))


@pytest.mark.slow
def test_it_learns_two_embryos_by_heart() -> None:
    embryos = [draw_blastocyst(seed, shape=(64, 64)) for seed in range(2)]
    images = torch.from_numpy(np.stack([normalize(e.image, Preprocessing())[None] for e in embryos]))
    masks = torch.from_numpy(np.stack([np.stack([e.masks[name] for name in BLASTOCYST_CLASSES]) for e in embryos]))
    targets = {"masks": masks, "valid": torch.ones(2, 1, 64, 64), "known": torch.ones(2, 3)}
    net = build(dropout=0)
    decoder = [p for name, p in net.named_parameters() if not name.startswith("encoder.")]
    groups = [{"params": decoder, "lr": 2e-2}, {"params": net.encoder.parameters(), "lr": 2e-3}]
    adam = torch.optim.Adam(groups, fused=True)
    for step in range(1, 121):
        adam.zero_grad()
        sum(binary_loss.loss(net.train()(images), targets).values(), torch.zeros(())).backward()
        adam.step()
        if step % 10 == 0:
            with torch.no_grad():
                reached = dice(net.eval()(images)["logits"], masks)
            if reached.min() > 0.9:
                return
    pytest.fail(f"Dice {reached.tolist()} of {BLASTOCYST_CLASSES} after 120 steps")
