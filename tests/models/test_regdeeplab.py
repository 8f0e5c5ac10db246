"""RegDeepLab: torchvision's dilation, a re-typed DeepLabV3+, any picture size, and what the regression may touch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, batch_norm, conv2d, interpolate
from torchvision.models import resnet50
from torchvision.models.feature_extraction import create_feature_extractor

from napari_embryo import models
from napari_embryo.families import RegDeepLabSettings
from napari_embryo.geometry import normalize
from napari_embryo.models import checkpoint, fragmentation_loss
from napari_embryo.models.blocks import USUAL_RATIO, averages, shown
from napari_embryo.models.encoder import Encoder
from napari_embryo.models.regdeeplab import RegDeepLab, adopt
from napari_embryo.settings import GRADES, Preprocessing, TrainSettings
from napari_embryo.synthetic import draw_cleavage
from napari_embryo.train.engine import Learner

VANILLA: dict[str, Any] = {"gate": False, "regression": False, "inject": "none"}
OPTIONS: dict[str, dict[str, Any]] = {
    "no injection": {"inject": "none"},
    "injection by 1x1": {"inject": "1x1"},
    "injection by 3x3": {"inject": "3x3"},
    "no gate": {"gate": False, "inject": "1x1"},
    "no regression": {"regression": False, "inject": "none"},
    "DeepLabV3+": VANILLA,
    "output stride 8": {"output_stride": 8, "inject": "1x1"},
}
SIZES = [(97, 131), (64, 64), (32, 47)]

pytestmark = pytest.mark.usefixtures("shallow")


def build(**options: Any) -> RegDeepLab:
    torch.manual_seed(0)
    net = models.build(RegDeepLabSettings(**options))
    assert isinstance(net, RegDeepLab)
    return net


def pictures(count: int, hw: tuple[int, int] = (64, 96), seed: int = 1) -> Tensor:
    return torch.randn(count, 1, *hw, generator=torch.Generator().manual_seed(seed))


def settled(net: RegDeepLab) -> RegDeepLab:
    """Statistics that fit the weights; nothing starts at zero any more."""
    torch.manual_seed(5)
    if net.regression is not None:
        nn.init.normal_(net.regression.last.weight, std=0.02)
        nn.init.normal_(net.head.join.weight[:, 256:], std=0.02)
    with torch.no_grad():
        net.train()(pictures(4))
    return net.eval()


@pytest.fixture(scope="module")
def net(shallow: None) -> RegDeepLab:
    return settled(build(inject="1x1"))


def run(net: nn.Module, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        found: dict[str, Tensor] = net(images)
    return found


def half(hw: tuple[int, int], times: int) -> tuple[int, int]:
    """Each stride rounds up."""
    for _ in range(times):
        hw = (hw[0] + 1) // 2, (hw[1] + 1) // 2
    return hw


# The trunk.


def features(variant: str, stride: int, images: Tensor) -> tuple[Tensor, ...]:
    """Of one set of weights, whatever the stride."""
    torch.manual_seed(0)
    with torch.no_grad():
        found: tuple[Tensor, ...] = Encoder(variant, stride).eval()(images)
    return found


@pytest.mark.parametrize("hw", [(97, 131), (223, 301), (64, 96)])
@pytest.mark.parametrize(("stride", "halvings"), [(32, (1, 2, 3, 4, 5)), (16, (1, 2, 3, 4, 4)), (8, (1, 2, 3, 3, 3))])
def test_features_lie_on_the_grids_of_their_strides(
    stride: int, halvings: tuple[int, ...], hw: tuple[int, int]
) -> None:
    found = features("v1.5", stride, pictures(1, hw))
    assert [f.shape[1] for f in found] == [64, 256, 512, 1024, 2048]
    assert [tuple(f.shape[2:]) for f in found] == [half(hw, times) for times in halvings]


@pytest.mark.parametrize(("stride", "dilated"), [(16, [False, False, True]), (8, [False, True, True])])
@pytest.mark.usefixtures("deep")
def test_the_trunk_is_torchvision_s_with_dilation(stride: int, dilated: list[bool]) -> None:
    encoder = Encoder("v1.5", stride).eval()
    other = resnet50(weights=None, replace_stride_with_dilation=dilated).eval()
    other.load_state_dict(encoder.trunk.state_dict(), strict=False)
    nodes = {"relu": "c1", "layer1": "c2", "layer2": "c3", "layer3": "c4", "layer4": "c5"}
    with torch.no_grad():
        expected: Mapping[str, Tensor] = create_feature_extractor(other, nodes)(pictures(1).repeat(1, 3, 1, 1))
        found = encoder(pictures(1))
    for feature, reference in zip(found, expected.values(), strict=True):
        torch.testing.assert_close(feature, reference, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("hw", [(97, 131), (64, 96)])
@pytest.mark.parametrize("variant", ["v1", "v1.5"])
@pytest.mark.usefixtures("deep")
def test_dilation_computes_the_same_features_more_densely(variant: str, hw: tuple[int, int]) -> None:
    """The hole algorithm (Chen et al. 2018): every second (fourth) place is what the undilated trunk finds."""
    *_, c4, c5 = features(variant, 32, pictures(1, hw))
    for stride, step4, step5 in ((16, 1, 2), (8, 2, 4)):
        *_, dense4, dense5 = features(variant, stride, pictures(1, hw))
        torch.testing.assert_close(dense4[..., ::step4, ::step4], c4, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(dense5[..., ::step5, ::step5], c5, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("variant", "first"), [("v1", (2, 4)), ("v1.5", (1, 2))])
@pytest.mark.usefixtures("deep")
def test_a_dilated_stage_has_no_stride_left(variant: str, first: tuple[int, int]) -> None:
    """Where the first 3 x 3 convolution of a stage had the stride, it keeps the dilation before it."""
    trunk = Encoder(variant, 8).trunk
    for stage, own, usual in ((trunk.layer3, first[0], 2), (trunk.layer4, first[1], 4)):
        assert {c.stride for c in stage.modules() if isinstance(c, nn.Conv2d)} == {(1, 1)}
        assert [block.conv2.dilation[0] for block in stage] == [own] + [usual] * (len(stage) - 1)
    block = trunk.layer2[0]
    assert (block.conv1.stride[0], block.conv2.stride[0]) == ((2, 1) if variant == "v1" else (1, 2))


# The network.


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_option_runs_learns_and_comes_back_from_its_file(options: dict[str, Any], tmp_path: Path) -> None:
    net = build(**options)
    images = pictures(2, (33, 47))
    b, hw = 2, (33, 47)
    targets = {
        "masks": (pictures(b, hw, 3) > 0).expand(-1, 2, -1, -1),
        "valid": torch.ones(b, 1, *hw),
        "known": torch.ones(b, 2),
        **{name: torch.full((b,), float("nan")) for name in ("ratio", "low", "high")},
    }
    sum(fragmentation_loss.loss(net.train()(images), targets).values(), torch.zeros(())).backward()
    for part in ("encoder.trunk.conv1.weight", "head.join.weight"):
        gradient = net.get_parameter(part).grad
        assert gradient is not None
        assert gradient.any()
        assert torch.isfinite(gradient).all()
    expected = run(net.eval(), images)
    has = net.settings
    assert (has.regression, has.gate) == ("ratio" in expected, "AG" in expected)
    assert net.map_names() == (("AG",) if has.gate else ())
    assert expected["logits"].shape == (2, 2, 33, 47)
    sizes = {"none": None, "1x1": (2, 2), "3x3": (2, 256)}
    assert sizes[has.inject] == (tuple(expected["injection"].shape) if "injection" in expected else None)
    info = checkpoint.CheckpointInfo(model=has, preprocessing=Preprocessing())
    checkpoint.save(tmp_path / "net.safetensors", net, info)
    found = run(checkpoint.load(tmp_path / "net.safetensors").model, images)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("hw", [(223, 301), *SIZES])
def test_any_size(net: RegDeepLab, hw: tuple[int, int]) -> None:
    out = run(net, pictures(2, hw))
    shapes = {"logits": (2, 2, *hw), "ratio": (2, 1), "AG": (2, 1, *half(hw, 2)), "injection": (2, 2)}
    assert {name: tuple(t.shape) for name, t in out.items()} == shapes
    assert all(torch.isfinite(t).all() for t in out.values())
    assert 0 < out["AG"].min() < out["AG"].max() < 1


def test_the_same_picture_gives_the_same_answer_twice(net: RegDeepLab) -> None:
    first, second = run(net, pictures(2)), run(net, pictures(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_picture_s_answer_does_not_depend_on_its_batch(net: RegDeepLab) -> None:
    together, alone = run(net, pictures(3)), run(net, pictures(3)[1:2])
    for name, values in alone.items():
        torch.testing.assert_close(together[name][1:2], values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("inject", ["1x1", "3x3"])
@pytest.mark.parametrize("training", [False, True])
def test_memory_layout_does_not_matter(inject: str, training: bool) -> None:
    net = settled(build(inject=inject, dropout=0)).train(training)
    net.aspp.join[1].p = 0.0
    plain = run(net, pictures(2))
    packed = run(net.to(memory_format=torch.channels_last), pictures(2).contiguous(memory_format=torch.channels_last))
    for name, values in plain.items():
        torch.testing.assert_close(packed[name], values, atol=1e-3, rtol=1e-3)


def test_a_single_picture_can_be_learned_from() -> None:
    """The whole-picture branch has one value a channel, which batch normalization would refuse."""
    assert torch.isfinite(run(build().train(), pictures(1))["logits"]).all()


PUBLISHED = {"1x1": 33_040_979, "3x3": 38_347_603}
"""Parameters of an independent implementation: one output, and batch normalization in the whole-picture branch."""
SMP_PUBLISHED = 26_677_585
"""segmentation_models_pytorch's DeepLabV3+ with ResNet-50; as many separable convolutions, one placed otherwise."""


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("inject", "another_output"), [("1x1", 2304 + 1), ("3x3", 256 + 1)])
@pytest.mark.usefixtures("deep")
def test_as_many_parameters_as_the_design(inject: str, another_output: int) -> None:
    assert count(build(inject=inject)) == PUBLISHED[inject] - 256 + another_output


@pytest.mark.usefixtures("deep")
def test_without_its_additions_it_is_deeplab_v3_plus() -> None:
    net = build(**VANILLA)
    assert count(net) == SMP_PUBLISHED - 256 + 256 + 1
    assert {name for name, _ in net.named_children()} == {"encoder", "aspp", "low", "decoder", "head"}
    assert run(net.eval(), pictures(1)).keys() == {"logits"}


def retyped(state: Mapping[str, Tensor], stages: Mapping[str, Tensor], hw: tuple[int, int]) -> dict[str, Tensor]:
    """AttnRegDeepLab, written anew, at output stride 16, from a state dict and the trunk's features."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return batch_norm(x, mean, var, weight, bias).relu()

    def separable(x: Tensor, name: str, rate: int) -> Tensor:
        deep = conv2d(x, state[f"{name}.0.weight"], padding=rate, dilation=rate, groups=x.shape[1])
        return norm(conv2d(deep, state[f"{name}.1.weight"]), f"{name}.2")

    def plain(x: Tensor, name: str) -> Tensor:
        return conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def up(x: Tensor, like: Tensor) -> Tensor:
        return interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)

    low, f3, deep = (stages[name] for name in ("c2", "c4", "c5"))
    told = {}
    whole = plain(adaptive_avg_pool2d(deep, 1), "aspp.whole.0").relu().expand(-1, -1, *deep.shape[2:])
    branches = [norm(conv2d(deep, state["aspp.near.0.weight"]), "aspp.near.1")]
    branches += [separable(deep, f"aspp.far.{i}", rate) for i, rate in enumerate((6, 12, 18))]
    context = norm(conv2d(torch.cat([*branches, whole], 1), state["aspp.join.0.0.weight"]), "aspp.join.0.1")
    if "gate.psi.weight" in state:
        both = plain(low, "gate.theta") + up(plain(context, "gate.phi"), low)
        told["AG"] = torch.sigmoid(plain(both.relu(), "gate.psi"))
        low = told["AG"] * low
    skip = norm(conv2d(low, state["low.0.weight"]), "low.1")
    d = torch.cat((up(context, skip), skip), 1)
    d = separable(separable(d, "decoder.0", 1), "decoder.1", 1)
    if "regression.last.weight" in state:
        vector = torch.cat((f3.mean((2, 3)), deep.mean((2, 3))), 1)
        vector = (vector @ state["regression.vector.0.weight"].T + state["regression.vector.0.bias"]).relu()
        told["ratio"] = vector @ state["regression.last.weight"].T + state["regression.last.bias"]
        d = torch.cat((d, vector[:, :, None, None].expand(-1, -1, *d.shape[2:])), 1)
    logits = plain(d, "head.join")
    return {"logits": interpolate(logits, hw, mode="bilinear", align_corners=False), **told}


@pytest.mark.parametrize("hw", [(97, 131), (64, 96)])
@pytest.mark.parametrize("options", [VANILLA, {"inject": "1x1"}], ids=["DeepLabV3+", "AttnRegDeepLab"])
@pytest.mark.usefixtures("deep")
def test_it_is_the_network_of_the_design(options: dict[str, Any], hw: tuple[int, int]) -> None:
    net, images = settled(build(**options)), pictures(2, hw)
    trunk = resnet50(weights=None, replace_stride_with_dilation=[False, False, True]).eval()
    trunk.load_state_dict(net.encoder.trunk.state_dict(), strict=False)
    extract = create_feature_extractor(trunk, {"layer1": "c2", "layer3": "c4", "layer4": "c5"})
    with torch.no_grad():
        expected = retyped(net.state_dict(), extract(images.repeat(1, 3, 1, 1)), hw)
    found = run(net, images)
    assert found.keys() - {"injection"} == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, atol=2e-4, rtol=1e-3)


def test_only_its_own_classes_and_what_is_regressed_is_injected() -> None:
    with pytest.raises(ValidationError, match="this family has fragment and embryo"):
        RegDeepLabSettings(classes=("embryo", "fragment"))
    with pytest.raises(ValidationError, match="needs the regression head"):
        RegDeepLabSettings(regression=False, inject="1x1")


def test_the_masks_start_at_what_is_usual() -> None:
    """Without what the features say: the bias of whichever convolution is last."""
    for inject in ("none", "3x3"):
        net = build(inject=inject).eval()
        nn.init.zeros_(net.head.join.weight)
        logits = run(net, pictures(1))["logits"]
        torch.testing.assert_close(logits[0].mean((1, 2)), torch.tensor([-3.0, -1.0]))


def test_grad_cam_finds_its_layers(net: RegDeepLab) -> None:
    assert tuple(net.cam_layers()) == ("encoder 1/16", "ASPP", "decoder 1/4", "last")
    assert next(iter(build(output_stride=8).cam_layers())) == "encoder 1/8"


# Injection.


def test_injection_starts_as_if_there_were_none() -> None:
    plain, injecting = settled(build(inject="none")), build(inject="1x1").eval()
    adopt(injecting, plain.state_dict())
    images = pictures(2)
    expected, found = run(plain, images), run(injecting, images)
    assert not found["injection"].any()
    assert torch.equal(found["logits"], expected["logits"])
    assert torch.equal(found["ratio"], expected["ratio"])


def test_injection_by_1x1_moves_the_masks_threshold(net: RegDeepLab) -> None:
    images = pictures(3)
    out = run(net, images)
    state = net.state_dict()
    without = build(inject="1x1").eval()
    zeroed = state["head.join.weight"].clone()
    zeroed[:, 256:] = 0
    without.load_state_dict(state | {"head.join.weight": zeroed})
    plain = run(without, images)
    assert out["injection"].abs().min() > 1e-3
    embryo, moved = plain["logits"][:, 1], out["logits"][:, 1]
    assert not torch.equal(embryo > embryo.median(), moved > embryo.median())
    shift = (out["logits"] - plain["logits"]).mean((2, 3))
    torch.testing.assert_close(shift, out["injection"], atol=1e-4, rtol=1e-4)
    assert torch.equal(out["ratio"], plain["ratio"])


def test_injection_by_3x3_changes_the_masks() -> None:
    net = settled(build(inject="3x3"))
    before = run(net, pictures(2))
    with torch.no_grad():
        net.head.join.weight[:, 256:] = 0
    after = run(net, pictures(2))
    assert before["injection"].abs().max() > 1e-3
    assert not after["injection"].any()
    assert not torch.equal(before["logits"] > -1, after["logits"] > -1)


def test_a_network_adopts_a_smaller_one_and_no_other() -> None:
    plain = settled(build(regression=False, inject="none"))
    grown = build(inject="1x1").eval()
    grown.regression.start_at(0.2)
    adopt(grown, plain.state_dict())
    out = run(grown, pictures(2))
    assert torch.equal(out["logits"], run(plain, pictures(2))["logits"])
    torch.testing.assert_close(torch.sigmoid(out["ratio"]), torch.full((2, 1), 0.2))
    with pytest.raises(ValueError, match="only a regression head and 1x1 injection"):
        adopt(build(inject="3x3"), plain.state_dict())


# Regression.


@pytest.mark.parametrize(
    ("ratio", "expected"), [(None, USUAL_RATIO), (0.2, 0.2), (0.5, 0.5), (0.0, 0.01), (1.0, 0.99), (0.004, 0.01)]
)
def test_regression_starts_at_the_ratio_given(ratio: float | None, expected: float) -> None:
    net = build().eval()
    assert net.regression is not None
    if ratio is not None:
        net.regression.start_at(ratio)
    torch.testing.assert_close(torch.sigmoid(run(net, 5 * pictures(3))["ratio"]), torch.full((3, 1), expected))


def test_shown_is_the_share_of_picture_in_every_place() -> None:
    images = torch.zeros(2, 1, 64, 96)
    images[0, :, 10:50, :] = 0.3
    images[1, :, :, 33:] = -2.0
    expected = (images != 0).double().unflatten(2, (4, 16)).unflatten(4, (6, 16)).mean((3, 5))
    torch.testing.assert_close(shown(images, torch.zeros(1, dtype=torch.float64).expand(2, 1, 4, 6)), expected)


@pytest.mark.parametrize("hw", [(97, 131), (223, 301)])
def test_shown_at_odd_sizes(hw: tuple[int, int]) -> None:
    images = pictures(1, hw)
    images[:, :, : hw[0] // 3] = 0
    grid = half(hw, 4)
    weight = shown(images, torch.zeros(1, 9, *grid))[0, 0]
    assert weight.shape == grid
    assert not weight[: hw[0] // 3 // 16].any()
    assert bool((weight[-(hw[0] // 2 // 16) :] == 1).all())
    assert weight.mean().item() == pytest.approx(2 / 3, abs=0.03)


def test_averages_leave_the_padding_out() -> None:
    """The features of a picture, letterboxed: whatever the network computed upon the padding."""
    stages = tuple(torch.randn(2, c, 5, 7, generator=torch.Generator().manual_seed(c)) for c in (3, 4))
    expected = torch.cat([stage.mean((2, 3)) for stage in stages], 1)
    torch.testing.assert_close(averages(stages, torch.ones(2, 1, 5, 7)), expected)
    for fill in (0.0, 9.0):
        padded = tuple(nn.functional.pad(stage, (2, 1, 3, 0), value=fill) for stage in stages)
        weight = nn.functional.pad(torch.ones(2, 1, 5, 7), (2, 1, 3, 0))
        torch.testing.assert_close(averages(padded, weight), expected)


def test_a_blank_picture_has_an_answer(net: RegDeepLab) -> None:
    out = run(net, torch.zeros(1, 1, 64, 64))
    assert all(torch.isfinite(values).all() for values in out.values())


# Learning.


def drawn(count: int, side: int, **options: Any) -> dict[str, Tensor]:
    embryos = [draw_cleavage(seed, shape=(side, side), style="microscope", **options) for seed in range(count)]
    images = np.stack([normalize(e.image, Preprocessing())[None] for e in embryos])
    masks = np.stack([np.stack((e.fragments, e.masks["embryo"])) for e in embryos])
    return {
        "image": torch.from_numpy(images),
        "masks": torch.from_numpy(masks),
        "valid": torch.ones(count, 1, side, side, dtype=torch.bool),
        "known": torch.ones(count, 2, dtype=torch.bool),
        **{name: torch.full((count,), float("nan")) for name in ("ratio", "low", "high")},
    }


def graded(batch: dict[str, Tensor], grade: str) -> dict[str, Tensor]:
    low, high = (torch.full((len(batch["image"]),), end) for end in GRADES[grade])
    none = torch.zeros_like(batch["known"])
    return batch | {"masks": torch.zeros_like(batch["masks"]), "known": none, "low": low, "high": high}


def learner(net: RegDeepLab, **options: Any) -> Learner:
    usual = {"device": "cpu", "precision": "float32", "schedule": "constant", "regression_rate": 1.0}
    return Learner(net, TrainSettings.model_validate(usual | options), 4)


@pytest.mark.parametrize("inject", ["none", "1x1"])
def test_the_regression_alone_learns_and_no_mask_moves(inject: str) -> None:
    """Exp. D on the network of Exp. A, whose injection is not there or zero."""
    net, batch = settled(build(inject=inject)), drawn(4, 64)
    with torch.no_grad():
        net.head.join.weight[:, 256:] = 0
    learning = learner(net, parts="regression", learning_rate=1e-3)
    before, state = run(net.eval(), batch["image"]), {k: v.clone() for k, v in net.state_dict().items()}
    for seed in range(3):
        learning.learn(batch, seed)
    after = run(net.eval(), batch["image"])
    changed = {name for name, values in net.state_dict().items() if not torch.equal(values, state[name])}
    assert {name.partition(".")[0] for name in changed} == {"regression"}
    assert {name for name, p in net.named_parameters() if p.grad is not None} == changed
    assert torch.equal(after["logits"], before["logits"])
    assert not torch.equal(after["ratio"], before["ratio"])


def test_what_is_injected_moves_the_masks_even_if_the_regression_alone_learns() -> None:
    """So the network of Exp. A must have no injection, or one of zero."""
    net, batch = settled(build(inject="1x1")), drawn(4, 64)
    learning = learner(net, parts="regression", learning_rate=1e-3)
    before = run(net.eval(), batch["image"])
    learning.learn(batch, 0)
    assert not torch.equal(run(net.eval(), batch["image"])["logits"], before["logits"])


@pytest.mark.parametrize("grade", ["B", "C"])
def test_grades_alone_move_the_ratio_into_their_interval(grade: str) -> None:
    net, batch = build(dropout=0), graded(drawn(4, 64), grade)
    learning = learner(net, parts="regression", learning_rate=2e-4)
    low, high = GRADES[grade]
    assert torch.sigmoid(run(net.eval(), batch["image"])["ratio"]).max() < low
    for seed in range(60):
        assert learning.learn(batch, seed).keys() == {"range"}
        if learning.judge(batch)[0]["range"] == 0:
            break
    ratio = torch.sigmoid(run(net.eval(), batch["image"])["ratio"])
    assert low <= ratio.min()
    assert ratio.max() <= high


@pytest.mark.slow
def test_it_learns_drawn_embryos_by_heart() -> None:
    batch, net = drawn(2, 64, fragmentation=0.25), build(dropout=0)
    rates = {"learning_rate": 2e-3, "encoder_rate": 1.0, "regression_rate": 0.1}
    learning = learner(net, optimizer="adam", weight_decay=0, **rates)
    for step in range(1, 101):
        learning.learn(batch, step)
        if step >= 20 and step % 10 == 0:
            _, scores = learning.judge(batch)
            if all(values.min() > 0.85 for values in scores.values()):
                return
    pytest.fail(f"{scores} after {step} steps")
