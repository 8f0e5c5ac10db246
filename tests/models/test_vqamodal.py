"""VQ amodal: the parts against torchvision and closed forms, every ablation, pictures of any kind, and learning."""

from collections.abc import Iterator, Sequence
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign, box_iou
from torchvision.ops.poolers import LevelMapper

from napari_embryo.families import ShapeCodeSettings, VQAmodalSettings
from napari_embryo.geometry import Geometry, normalize, plan
from napari_embryo.measure.average_precision import Matches, average_precision
from napari_embryo.models import shapecode, vqamodal
from napari_embryo.models.boxes import boxes_of, crop_masks, jitter
from napari_embryo.models.encoder import Encoder
from napari_embryo.models.shapecode import FrozenShapeCode, ShapeCode
from napari_embryo.models.vqamodal import VQAmodal, losses, mask_head, postprocess, roi_head, rpn, targets
from napari_embryo.models.vqamodal.fpn import Occlusion, box_levels, occlusion_loss, pool
from napari_embryo.models.vqamodal.rpn import ANCHOR_RATIOS, ANCHOR_SCALES, anchors_of
from napari_embryo.settings import Preprocessing
from napari_embryo.synthetic import draw_cleavage

ABLATIONS: dict[str, dict[str, Any]] = {
    "the paper's": {},
    "no branch": {"occlusion": "none"},
    "ASN": {"occlusion": "asn"},
    "Mask R-CNN": {"head": "fcn", "occlusion": "none"},
    "Mask R-CNN with a branch": {"head": "fcn"},
    "ASN as in KINS": {"head": "fcn", "occlusion": "asn", "translucent": False},
    "opaque, one of K": {"translucent": False, "code_loss": "ce"},
    "no refinement, literal sums": {"refine": False, "occlusion": "none", "reduction": "sum"},
    "another code": {"shape": {"side": 64, "grid": 2, "codes": 16, "dimension": 8}},
}
DETECTIONS = 4

pytestmark = pytest.mark.usefixtures("shallow")


@pytest.fixture(autouse=True, scope="module")
def few_boxes() -> Iterator[None]:
    """Of a picture; they are most of the work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roi_head, "SAMPLED", 16)
        patch.setattr(rpn, "AFTER_NMS", 32)
        yield


def build(**options: Any) -> VQAmodal:
    torch.manual_seed(0)
    return vqamodal.build(VQAmodalSettings.model_validate({"detections": DETECTIONS, **options}))


def rectangle(hw: tuple[int, int], top: int, left: int, bottom: int, right: int) -> Tensor:
    mask = torch.zeros(hw, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def disk(hw: tuple[int, int], y: float, x: float, radius: float, stretch: float = 1.0) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(hw[0]) + 0.5, torch.arange(hw[1]) + 0.5, indexing="ij")
    return ((rows - y) / stretch) ** 2 + (columns - x) ** 2 <= radius**2


def batch_of(pictures: Sequence[Sequence[Tensor]], hw: tuple[int, int], seed: int = 1) -> dict[str, Tensor]:
    """The batch of the training: as many masks in every picture, those that there are not without a pixel."""
    most = max(len(cells) for cells in pictures)
    cells = torch.zeros(len(pictures), most, *hw, dtype=torch.bool)
    for i, own in enumerate(pictures):
        for j, mask in enumerate(own):
            cells[i, j] = mask
    image = torch.randn(len(pictures), 1, *hw, generator=torch.Generator().manual_seed(seed))
    return {"image": image, "cells": cells, "visible": cells.clone(), "valid": torch.ones(len(pictures), 1, *hw)}


HW = (64, 96)
USUAL = batch_of(
    [
        [disk(HW, 30, 35, 20), disk(HW, 36, 60, 18)],
        [disk(HW, 32, 48, 25)],
        [disk(HW, 20, 30, 12), disk(HW, 40, 50, 14), disk(HW, 30, 70, 16)],
    ],
    HW,
)


TWO = {name: values[:2] for name, values in USUAL.items()}


def picture(batch: dict[str, Tensor], i: int) -> dict[str, Tensor]:
    return {name: values[i : i + 1] for name, values in batch.items()}


def tell(net: VQAmodal, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        outputs: dict[str, Tensor] = net(batch["image"], batch)
    return outputs


def seen(net: VQAmodal, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        outputs: dict[str, Tensor] = net(images)
    return outputs


# Every ablation.


@pytest.mark.parametrize("options", ABLATIONS.values(), ids=ABLATIONS)
def test_every_ablation_learns_with_all_it_has_and_finds_cells(options: dict[str, Any]) -> None:
    net = build(**options).train()
    has = net.settings
    shape_before = None if net.shape is None else [b.clone() for b in net.shape.buffers()]
    outputs = net(TWO["image"], TWO)
    told = vqamodal.loss(outputs, TWO)
    expected = {"objectness", "anchor", "class", "box"}
    expected |= {"code"} if has.head == "vq" else set()
    expected |= {"mask"} if has.head == "fcn" or has.refine else set()
    expected |= {"none": set(), "branch": {"occlusion"}, "asn": {"occluded"}}[has.occlusion]
    assert told.keys() == expected <= vqamodal.counts(TWO).keys()
    assert all(values.shape == (2,) for values in outputs.values())
    assert all(torch.isfinite(values) for values in told.values())
    sum(told.values(), torch.zeros(())).backward()
    lacking = [name for name, p in net.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not lacking
    still = [name for name, p in net.named_parameters() if p.grad is not None and not p.grad.any()]
    assert not [name for name in still if not name.startswith(("encoder.", "pyramid.", "box.last"))], still
    if net.shape is not None and shape_before is not None:
        assert not net.shape.training
        assert not list(net.shape.parameters())
        assert all(torch.equal(a, b) for a, b in zip(net.shape.buffers(), shape_before, strict=True))
    answer = tell(net.eval(), TWO)
    side, grid = (28 if has.head == "fcn" else has.shape.side), has.shape.grid
    shapes = {"boxes": (4,), "scores": (), "cell_logits": (side, side)}
    if has.head == "vq":
        shapes |= {"initial_logits": (side, side), "codes": (grid, grid), "posterior": (grid, grid)}
    for name, each in shapes.items():
        assert answer[name].shape == (2, DETECTIONS, *each)
    maps = {"occlusion", "occlusion_probability"} if has.occlusion == "branch" else set()
    assert answer.keys() == {*shapes, *maps, *outputs}
    assert net.map_names() == (("occlusion",) if maps else ())
    if maps:
        assert answer["occlusion"].shape == (2, 1, 16, 24)
        torch.testing.assert_close(answer["occlusion_probability"], torch.sigmoid(answer["occlusion"]))
    if has.head == "vq" and not has.refine:
        assert torch.equal(answer["cell_logits"], answer["initial_logits"])


@pytest.fixture(scope="module")
def net(shallow: None) -> VQAmodal:
    """Its statistics fit its weights, so that pictures make a difference."""
    network = build()
    with torch.no_grad():
        network.train()(USUAL["image"], USUAL)
    return network.eval()


def test_the_same_pictures_give_the_same_answer_and_losses_twice(net: VQAmodal) -> None:
    first, second = tell(net, USUAL), tell(net, USUAL)
    assert all(torch.equal(first[name].nan_to_num(-1), second[name].nan_to_num(-1)) for name in first)


def test_a_picture_s_answer_does_not_depend_on_its_batch(net: VQAmodal) -> None:
    together, alone = tell(net, USUAL), tell(net, picture(USUAL, 1))
    for name, values in alone.items():
        torch.testing.assert_close(together[name][1:2], values, atol=1e-3, rtol=1e-3)


def test_what_it_finds_does_not_depend_on_being_told_the_truth(net: VQAmodal) -> None:
    told, untold = tell(net, USUAL), seen(net, USUAL["image"])
    assert all(torch.equal(told[name], values) for name, values in untold.items())


def test_learning_needs_the_truth(net: VQAmodal) -> None:
    try:
        with pytest.raises(ValueError, match="no targets were given"):
            net.train()(USUAL["image"])
    finally:
        net.eval()


def test_found_cells_come_highest_score_first_and_within_the_picture(net: VQAmodal) -> None:
    answer = seen(net, USUAL["image"])
    scores, boxes = answer["scores"], answer["boxes"]
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    assert scores.max() > net.settings.score_threshold
    assert ((boxes >= 0) & (boxes <= torch.tensor([96, 64, 96, 64]))).all()
    sizes = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    assert ((sizes > 0) == (scores > 0)).all()


def test_no_cell_reaches_an_unreachable_score(net: VQAmodal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net, "settings", net.settings.model_copy(update={"score_threshold": 1.0}))
    answer = seen(net, USUAL["image"])
    assert answer["cell_logits"].shape == (3, DETECTIONS, 32, 32)
    assert not answer["scores"].any()


# Pictures of every kind.

ODD = (65, 91)
HUGE, TINY = torch.ones(ODD, dtype=torch.bool), rectangle(ODD, 40, 50, 41, 51)
AT_THE_EDGE, ROUND = rectangle(ODD, 0, 60, 30, 91), disk(ODD, 33, 40, 22)
PICTURES: dict[str, list[list[Tensor]]] = {
    "none has a cell": [[], []],
    "huge, none, tiny, at the edge, twice the same": [[HUGE], [], [TINY], [AT_THE_EDGE], [ROUND, ROUND]],
}


@pytest.mark.parametrize("options", [{}, {"occlusion": "asn", "head": "fcn"}], ids=["paper", "ASN"])
def test_any_picture(options: dict[str, Any]) -> None:
    net = build(**options)
    for what, cells in PICTURES.items():
        batch = batch_of(cells, ODD)
        with_statistics(net.train(), learn=False)
        told = vqamodal.loss(net(batch["image"], batch), batch)
        assert all(torch.isfinite(values) for values in told.values()), what
        net.zero_grad()
        sum(told.values(), torch.zeros(())).backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters()), what
        outputs = tell(net.eval(), batch)
        assert all(torch.isfinite(values) for values in vqamodal.loss(outputs, batch).values()), what
        empty = torch.tensor([not own for own in cells])
        assert torch.equal(vqamodal.score(outputs, batch, ("cell",))["AP"].isnan(), empty), what


@pytest.mark.parametrize("hw", [(97, 131), (32, 47)])
def test_a_single_picture_of_any_size(net: VQAmodal, hw: tuple[int, int]) -> None:
    batch = batch_of([[disk(hw, 16, 20, 11)]], hw)
    outputs = tell(net, batch)
    assert outputs["occlusion"].shape == (1, 1, -(-hw[0] // 4), -(-hw[1] // 4))
    assert all(torch.isfinite(values) for values in vqamodal.loss(outputs, batch).values())
    assert (outputs["boxes"] <= torch.tensor([hw[1], hw[0], hw[1], hw[0]])).all()


def with_statistics(net: nn.Module, learn: bool) -> None:
    """Whether batch normalization takes those of the batch."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(learn)


def test_losses_are_means_over_the_pictures_in_which_they_mean_something(net: VQAmodal) -> None:
    batch = batch_of([[disk(HW, 30, 40, 20)], [], [disk(HW, 30, 60, 18)]], HW)
    outputs = tell(net, batch)
    told, number = vqamodal.loss(outputs, batch), vqamodal.counts(batch)
    with_cells = {"anchor", "box", "code", "mask"}
    for name, value in told.items():
        each = outputs[f"loss_{name}"]
        assert number[name] == (2 if name in with_cells else 3)
        assert each.isnan().tolist() == [False, name in with_cells, False]
        assert value.item() == pytest.approx(float(np.nanmean(each.numpy())), rel=1e-5)
    parts = [picture(batch, i) for i in range(3)]
    added = dict.fromkeys(told, 0.0)
    for part in parts:
        own, share = vqamodal.loss(tell(net, part), part), vqamodal.counts(part)
        for name in added:
            added[name] += own[name].item() * share[name] / number[name] if share[name] else 0.0
    assert added == pytest.approx({name: value.item() for name, value in told.items()}, rel=1e-3, abs=1e-4)


def test_a_loss_that_is_no_number_is_not_hidden() -> None:
    batch = batch_of([[disk(HW, 30, 40, 20)], []], HW)
    outputs = {"loss_mask": torch.tensor([float("nan"), float("nan")])}
    assert vqamodal.loss(outputs, batch)["mask"].isnan()


# The occlusion branch.


def test_the_branch_starts_as_if_there_were_none(net: VQAmodal) -> None:
    plain = build(occlusion="none").eval()
    missing, unexpected = plain.load_state_dict(net.state_dict(), strict=False)
    assert not missing
    assert {name.partition(".")[0] for name in unexpected} == {"occlusion"}
    first, second = seen(plain, USUAL["image"]), seen(net, USUAL["image"])
    for name, values in first.items():
        torch.testing.assert_close(second[name], values, atol=1e-5, rtol=1e-5)


def test_the_branch_has_as_many_parameters_as_the_design() -> None:
    assert sum(p.numel() for p in Occlusion().parameters()) == pytest.approx(304_000, abs=500)


GRID = (12, 16)
LEFT, RIGHT = rectangle(GRID, 2, 2, 10, 9), rectangle(GRID, 2, 7, 10, 14)
BEHIND = rectangle(GRID, 2, 9, 10, 14)
"""What is seen of the right one behind the left one."""


def of(cells: Sequence[Tensor], visible: Sequence[Tensor] | None = None) -> targets.Cells:
    batch = {"cells": torch.stack([*cells])[None]}
    return targets.cells_of(batch if visible is None else {**batch, "visible": torch.stack([*visible])[None]})[0]


def test_occlusion_is_where_cells_overlap_or_where_one_is_hidden() -> None:
    both = rectangle(GRID, 2, 7, 10, 9)
    cells = of([LEFT, RIGHT], [LEFT, BEHIND])
    assert torch.equal(cells.overlap(translucent=True), both)
    assert torch.equal(cells.overlap(translucent=False), both)
    assert cells.occluded(translucent=True).tolist() == [True, True]
    assert cells.occluded(translucent=False).tolist() == [False, True]
    assert not of([LEFT, RIGHT]).overlap(translucent=False).any()
    assert not of([LEFT]).overlap(translucent=True).any()


@pytest.mark.parametrize(("lost", "expected"), [(5, False), (6, True)])
def test_a_cell_is_occluded_from_a_twentieth(lost: int, expected: bool) -> None:
    whole = rectangle((10, 10), 0, 0, 10, 10)
    visible = whole.clone()
    visible[0, :lost] = False
    assert of([whole], [visible]).occluded(translucent=False).tolist() == [expected]


def test_padded_masks_are_no_cells() -> None:
    cells = of([torch.zeros_like(LEFT), LEFT, torch.zeros_like(LEFT)])
    assert len(cells) == 1
    assert cells.boxes.tolist() == [[2, 2, 9, 10]]


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([4, 8, 16]), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_labels_of_a_level_keep_the_area(height: int, width: int, stride: int, seed: int) -> None:
    label = (torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(seed)) > 0.5).float()
    small = targets.at_stride(label, stride)
    assert small.shape[2:] == (-(-height // stride), -(-width // stride))
    assert small.sum().item() * stride**2 == pytest.approx(label.sum().item(), abs=1e-3)
    assert small[0, 0, 0, 0].item() == pytest.approx(label[0, 0, :stride, :stride].sum().item() / stride**2)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_occlusion_loss_at_even_odds(reduction: str) -> None:
    """At a logit of 0 every place costs log 2: the literal sum gives 277, 4.3 and so on."""
    hw = (200, 200)
    levels = [torch.zeros(2, 1, -(-hw[0] // s), -(-hw[1] // s)) for s in (4, 8, 16, 32, 64)]
    valid = torch.ones(2, 1, *hw)
    value = occlusion_loss(levels, torch.rand(2, 1, *hw).round(), valid, reduction)
    areas = [(hw[0] / s) ** 2 for s in (4, 8, 16, 32, 64)]
    expected = log(2) if reduction == "mean" else 0.01 * log(2) * sum(areas)
    torch.testing.assert_close(value, torch.full((2,), expected), rtol=1e-4, atol=1e-5)


def test_padding_has_no_occlusion_loss() -> None:
    levels = [torch.randn(1, 1, -(-64 // s), -(-64 // s)) for s in (4, 8, 16, 32, 64)]
    valid = rectangle((64, 64), 0, 0, 32, 64)[None, None].float()
    label = torch.zeros(1, 1, 64, 64)
    before = occlusion_loss(levels, label, valid, "mean")
    levels[0][:, :, 8:], levels[1][:, :, 4:] = 99.0, 99.0
    assert torch.equal(occlusion_loss(levels, label, valid, "mean"), before)


# Boxes and levels against torchvision.

ROIS = torch.tensor([[3.0, 5.0, 40.0, 60.0], [10.5, 0.25, 250.0, 240.0], [0, 0, 12, 9], [100, 30, 228, 158]])


def levels_of(hw: tuple[int, int]) -> list[Tensor]:
    return [torch.randn(2, 256, -(-hw[0] // s), -(-hw[1] // s)) for s in (4, 8, 16, 32)]


def test_boxes_are_looked_at_on_torchvision_s_levels() -> None:
    sides = torch.linspace(1, 900, 400)
    boxes = torch.stack((torch.zeros(400), torch.zeros(400), sides, sides * 1.3), 1)
    assert torch.equal(box_levels(boxes, 4), LevelMapper(2, 5)([boxes]))


def test_features_of_boxes_are_torchvision_s_but_for_the_half_pixel() -> None:
    """Aligned, a box sees what the other convention shows of it half a feature's pixel further up and left."""
    torch.manual_seed(0)
    levels = levels_of((256, 256))
    shift = 0.5 * torch.tensor([4, 8, 16, 32])[box_levels(ROIS, 4)][:, None]
    boxes = [ROIS[:3], ROIS[3:]]
    moved = [ROIS[:3] + shift[:3], ROIS[3:] + shift[3:]]
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    expected = theirs({str(i): level for i, level in enumerate(levels)}, boxes, [(256, 256)] * 2)
    torch.testing.assert_close(pool(levels, moved, 7), expected, atol=1e-5, rtol=1e-4)


def test_anchors_are_torchvision_s() -> None:
    """At sides that are whole pixels; torchvision rounds the others, and tells its ratios before its sizes."""
    sides = [(32.0 * 2**i, 32.0 * 2**i * ANCHOR_SCALES[1]) for i in range(5)]
    theirs = AnchorGenerator(tuple(sides), (ANCHOR_RATIOS,) * 5)
    grids = [[80, 80], [40, 40], [20, 20], [10, 10], [5, 5]]
    steps = [[torch.tensor(s), torch.tensor(s)] for s in (4, 8, 16, 32, 64)]
    for i, expected in enumerate(theirs.grid_anchors(grids, steps)):
        by_size = expected.float().view(-1, 3, 2, 4).transpose(1, 2).reshape(-1, 4)
        own = anchors_of((grids[i][0], grids[i][1]), 4 << i, sides[i][0])
        torch.testing.assert_close(own, by_size, atol=0.5, rtol=0)
        torch.testing.assert_close(own[1::6], by_size[1::6], atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", [256, 320])
def test_nearly_every_blastomere_has_an_anchor_that_fits(side: int) -> None:
    """Of drawn ones; by 0.7, from which an anchor learns that it lies on a cell."""
    smallest = side * VQAmodalSettings().smallest_anchor
    levels = [anchors_of((-(-side // s), -(-side // s)), s, smallest * 2**i) for i, s in enumerate((4, 8, 16, 32, 64))]
    pictures = (draw_cleavage(seed, shape=(side, side)).cells for seed in range(12))
    cells = torch.cat([boxes_of(torch.from_numpy(cells)) for cells in pictures])
    best = box_iou(cells, torch.cat(levels)).amax(1)
    assert float((best >= 0.7).float().mean()) > 0.8


def test_anchors_grow_with_the_input() -> None:
    levels = [torch.zeros(1, 256, *hw) for hw in ((8, 8), (4, 4), (2, 2), (1, 1), (1, 1))]
    sizes = []
    for hw in ((32, 32), (64, 64)):
        anchors = rpn.Proposals(0.8, 0.1)(levels, hw).anchors
        sizes.append(anchors[:, 2:] - anchors[:, :2])
    torch.testing.assert_close(sizes[1], 2 * sizes[0])
    assert float(sizes[0][1].prod().sqrt()) == pytest.approx(0.1 * 32)


# The shape code.


@pytest.mark.parametrize("codes", [64, 128])
@pytest.mark.parametrize("kind", ["bce", "ce"])
def test_codes_start_at_even_odds(codes: int, kind: str) -> None:
    """As independent sigmoids at 1 / K: log K of the true code, and about 1 of all the others together."""
    shape = ShapeCodeSettings(codes=codes)
    head = mask_head.CodeClassifier(VQAmodalSettings.model_validate({"shape": shape, "code_loss": kind}))
    nn.init.zeros_(head.last.weight)
    code = head(torch.randn(5, 256, 16, 16))
    true = torch.randint(codes, (5, 4, 4))
    expected = log(codes) + ((codes - 1) * -log(1 - 1 / codes) if kind == "bce" else 0)
    for reduction, times in (("mean", 1), ("sum", 16)):
        value = mask_head.code_loss(code, true, kind, reduction)
        torch.testing.assert_close(value, torch.full((5,), times * expected), rtol=1e-5, atol=0)
    if kind == "bce":
        assert expected == pytest.approx(log(codes) + 1, abs=0.01)


def test_literal_sums_add_up_what_the_means_are_of(net: VQAmodal, monkeypatch: pytest.MonkeyPatch) -> None:
    means = tell(net, USUAL)
    monkeypatch.setattr(net, "settings", net.settings.model_copy(update={"reduction": "sum"}))
    sums = tell(net, USUAL)
    for name in ("objectness", "anchor", "class", "box"):
        torch.testing.assert_close(sums[f"loss_{name}"], means[f"loss_{name}"])
    boxes = sums["loss_mask"] / means["loss_mask"] / 32**2
    torch.testing.assert_close(boxes, boxes.round(), atol=1e-2, rtol=0)
    assert (boxes > 0.9).all()
    torch.testing.assert_close(sums["loss_code"] / means["loss_code"] / 4**2, boxes, atol=1e-2, rtol=0)


def one_hot_logits(indices: Tensor, codes: int) -> Tensor:
    return 20 * nn.functional.one_hot(indices, codes).movedim(-1, 1).float()


def frozen(learned: ShapeCode | None = None) -> FrozenShapeCode:
    torch.manual_seed(0)
    shape = FrozenShapeCode(ShapeCodeSettings())
    if learned is not None:
        shape.load_state_dict(learned.state_dict())
    return shape


def test_decoding_is_the_shape_code_s_own_place_by_place() -> None:
    shape = frozen()
    indices = torch.randint(128, (7, 4, 4), generator=torch.Generator().manual_seed(3))
    expected = shape.decode(shape.embed(indices))
    torch.testing.assert_close(mask_head.decode(one_hot_logits(indices, 128), shape), expected)


def test_the_gradient_goes_through_the_decoder_to_the_codes() -> None:
    """As if the mixture of codes were decoded, while one code is: straight through."""
    shape = frozen()
    code = torch.randn(2, 128, 4, 4).requires_grad_()
    mixed = code.detach().clone().requires_grad_()
    weight = torch.randn(2, 1, 32, 32)
    (mask_head.decode(code, shape) * weight).sum().backward()
    hard = torch.einsum(
        "nkij,kd->ndij", nn.functional.one_hot(mixed.argmax(1), 128).movedim(-1, 1).float(), shape.codebook.codes
    ).requires_grad_()
    (shape.decode(hard) * weight).sum().backward()
    soft = torch.einsum("nkij,kd->ndij", torch.softmax(mixed, 1), shape.codebook.codes)
    soft.backward(hard.grad)
    assert mixed.grad is not None
    assert code.grad is not None
    torch.testing.assert_close(code.grad, mixed.grad, atol=1e-6, rtol=1e-4)


def test_codes_are_the_same_in_mixed_precision() -> None:
    shape = frozen()
    crops = torch.stack([disk((32, 32), 15, 14 + i / 4, 6 + i / 2) for i in range(20)])[:, None].float()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = mask_head.encode(crops, shape)
    assert torch.equal(mixed, shape.encode(crops))


@pytest.fixture(scope="module")
def learned() -> ShapeCode:
    """A shape code of drawn cells in shaken boxes."""
    torch.manual_seed(0)
    code, chance = ShapeCode(ShapeCodeSettings()).train(), torch.Generator().manual_seed(0)
    cells = torch.cat([torch.from_numpy(draw_cleavage(s, shape=(96, 96), style="microscope").cells) for s in range(12)])
    optimizer, boxes = torch.optim.Adam(code.parameters(), 2e-3), boxes_of(cells)
    for _ in range(80):
        at = torch.randint(len(cells), (32,), generator=chance)
        squares = crop_masks(cells, jitter(boxes[at], chance), 32, at)[:, None]
        targets = {"masks": squares, "valid": torch.ones_like(squares)}
        optimizer.zero_grad()
        sum(shapecode.loss(code(squares), targets).values(), torch.zeros(())).backward()
        optimizer.step()
    return code.eval()


def test_true_boxes_and_true_codes_reach_what_the_shape_code_can_do(learned: ShapeCode) -> None:
    """Nothing is lost on the way from the codes to the picture."""
    shape = frozen(learned)
    embryo = draw_cleavage(77, shape=(150, 180), style="microscope", n_cells=6)
    cells = torch.from_numpy(embryo.cells)
    boxes = boxes_of(cells)
    squares = crop_masks(cells, boxes, 32)
    logits = mask_head.decode(one_hot_logits(mask_head.encode(squares[:, None], shape), 128), shape)[:, 0]
    in_squares = postprocess.ious(logits >= 0, squares > 0).diagonal().mean().item()
    outputs = {"boxes": boxes, "scores": torch.linspace(1, 0.6, 6), "cell_logits": logits}
    result = vqamodal.to_cells(outputs, plan((150, 180), (150, 180)), ("cell",), 0.5)
    in_picture = np.mean([iou(a, b) for a, b in zip(result.masks, embryo.cells, strict=True)])
    assert in_squares > 0.85
    assert in_picture > in_squares - 0.015


# Repeated cells.


@pytest.mark.parametrize(
    ("overlaps", "scores", "expected"),
    [
        ([[1.0, 0.9], [0.9, 1.0]], [0.8, 0.6], [0.8, 0.06]),
        ([[1.0, 0.5], [0.5, 1.0]], [0.8, 0.6], [0.8, 0.6]),
        # the third overlaps only the second, whose score is hardly one any more: 0.1 of 0.7, behind the third's 0.5
        ([[1.0, 0.9, 0.2], [0.9, 1.0, 0.8], [0.2, 0.8, 1.0]], [0.9, 0.7, 0.5], [0.9, 0.07 * 0.2, 0.5]),
        ([[1.0, 0.6, 0.6], [0.6, 1.0, 0.6], [0.6, 0.6, 1.0]], [0.9, 0.8, 0.7], [0.9, 0.32, 0.7 * 0.4 * 0.4]),
        ([[1.0, 0.9], [0.9, 1.0]], [0.3, 0.9], [0.03, 0.9]),
        ([], [], []),
    ],
    ids=[
        "the better one stays",
        "at most is not more",
        "in order of what is left",
        "once for each",
        "any order",
        "none",
    ],
)
def test_repeated_cells_lose_their_score(
    overlaps: list[list[float]], scores: list[float], expected: list[float]
) -> None:
    """By hand, after Bodla et al. 2017: s times 1 - IoU where the IoU is more than 0.5."""
    table = torch.tensor(overlaps, dtype=torch.float64).reshape(len(overlaps), len(overlaps))
    assert postprocess.softened(table, torch.tensor(scores), 0.5).tolist() == pytest.approx(expected, abs=1e-6)


@given(st.integers(0, 80), st.floats(0.1, 0.95))
@settings(max_examples=40, deadline=None)
def test_shifted_squares_are_one_cell_by_their_iou(shift: int, most: float) -> None:
    """Of two squares of side 80 that is (80 - d) / (80 + d)."""
    iou_of_both = (80 - shift) / (80 + shift)
    if abs(iou_of_both - most) < 0.03:
        return
    boxes = torch.tensor([[10.0, 10, 90, 90], [10.0 + shift, 10, 90 + shift, 90]])
    scores = torch.tensor([0.9, 0.8])
    left = postprocess.rescored(boxes, torch.full((2, 28, 28), 9.0), scores, (100, 200), most)
    assert left[0] == scores[0]
    assert float(left[1]) == pytest.approx(0.8 * (1 - iou_of_both if iou_of_both > most else 1), abs=0.02)


def test_overlap_is_counted_exactly_in_mixed_precision() -> None:
    masks = torch.stack([rectangle((100, 100), 0, 0, 100, i) for i in (99, 100)])
    with torch.autocast("cpu", torch.bfloat16):
        assert postprocess.ious(masks, masks)[0, 1].item() == pytest.approx(0.99, abs=1e-6)


# Scores.


def iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def coco(found_masks: npt.NDArray[np.bool_], scores: Sequence[float], true: npt.NDArray[np.bool_]) -> float:
    mask = pytest.importorskip("pycocotools.mask")
    new, evaluator = (pytest.importorskip(f"pycocotools.{name}") for name in ("coco", "cocoeval"))

    def rows(masks: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
        codes = [mask.encode(np.asfortranarray(m.astype(np.uint8))) for m in masks]
        usual = {"image_id": 1, "category_id": 1, "iscrowd": 0}
        return [
            usual | {"id": i + 1, "segmentation": c, "area": int(m.sum())}
            for i, (c, m) in enumerate(zip(codes, masks, strict=True))
        ]

    gt, dt = new.COCO(), new.COCO()
    shared = {
        "images": [{"id": 1, "height": true.shape[1], "width": true.shape[2]}],
        "categories": [{"id": 1, "name": "cell"}],
    }
    gt.dataset = shared | {"annotations": rows(true)}
    dt.dataset = shared | {
        "annotations": [r | {"score": s, "bbox": [0, 0, 1, 1]} for r, s in zip(rows(found_masks), scores, strict=True)]
    }
    gt.createIndex()
    dt.createIndex()
    evaluation = evaluator.COCOeval(gt, dt, "segm")
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.params.maxDets = [100]
    evaluation.evaluate()
    evaluation.accumulate()
    return float(evaluation.eval["precision"].mean())


@pytest.mark.parametrize("seed", range(8))
def test_average_precision_is_coco_s(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(seed)
    hw = (60, 80)
    places = [(*rng.uniform(15, 45, 2), rng.uniform(8, 18)) for _ in range(5)]
    true = np.stack([disk(hw, *p).numpy() for p in places])
    off = [disk(hw, y + rng.normal(0, 2), x + rng.normal(0, 2), r * rng.uniform(0.8, 1.2)) for y, x, r in places * 2]
    guesses, scores = np.stack([m.numpy() for m in off])[:8], rng.permutation(np.linspace(0.1, 1, 8))
    overlaps = postprocess.ious(torch.from_numpy(guesses), torch.from_numpy(true))
    expected = coco(guesses, scores.tolist(), true)
    found = Matches.of(overlaps.double().numpy(), scores)
    assert average_precision([found]).mean() == pytest.approx(expected, abs=1e-6)
    assert 0 < expected < 1


def test_score_of_a_batch() -> None:
    """The first picture's cells are found, one of them unsurely; the second has none; of the third nothing is found."""
    hw = (40, 60)
    a, b = rectangle(hw, 4, 4, 20, 20), rectangle(hw, 10, 30, 34, 50)
    batch = batch_of([[a, b], [], [a]], hw)
    boxes = torch.zeros(3, 4, 4)
    boxes[0, :2] = boxes_of(torch.stack((a, b)))
    boxes[1, 0] = boxes[0, 0]
    scores = torch.zeros(3, 4)
    scores[0, :2], scores[1, 0] = torch.tensor([0.9, 0.4]), 0.9
    outputs = {"boxes": boxes, "scores": scores, "cell_logits": torch.full((3, 4, 28, 28), 9.0)}
    answer = vqamodal.score(outputs, batch, ("cell",))
    assert answer["best IoU"].nan_to_num(-1).tolist() == pytest.approx([0.5, -1, 0], abs=1e-6)
    assert answer["AP"].nan_to_num(-1).tolist() == pytest.approx([1, -1, 0], abs=1e-6)
    assert vqamodal.counts(batch) == dict.fromkeys(losses.EVERYWHERE, 3.0) | dict.fromkeys(losses.WITH_CELLS, 2.0)


# Back to the picture.


def laid_in(mask: Tensor, geometry: Geometry) -> dict[str, Tensor]:
    """What a network that is right about everything says, as fine as its masks are."""
    net_mask = torch.from_numpy(geometry.mask_to_net(mask.numpy()))[None]
    boxes = boxes_of(net_mask)
    corners = torch.from_numpy(geometry.to_image(boxes.reshape(-1, 2).flip(1).numpy() - 0.5) + 0.5)
    squares = crop_masks(mask[None], corners.flip(1).reshape(-1, 4).float(), 64)
    return {"boxes": boxes, "scores": torch.ones(1), "cell_logits": 8 * (2 * squares - 1)}


@given(
    hw=st.tuples(st.integers(60, 260), st.integers(60, 260)),
    net_hw=st.sampled_from([(97, 131), (160, 160), (288, 320)]),
    place=st.tuples(st.floats(0.25, 0.75), st.floats(0.25, 0.75), st.floats(0.2, 0.4), st.floats(0.6, 1.4)),
    fit=st.sampled_from(["letterbox", "stretch"]),
)
@settings(max_examples=40, deadline=None)
def test_perfect_masks_come_back(
    hw: tuple[int, int], net_hw: tuple[int, int], place: tuple[float, float, float, float], fit: Any
) -> None:
    y, x, radius, stretch = place
    smallest = 2 * radius * min(1, stretch) * min(hw) * min(net_hw[0] / hw[0], net_hw[1] / hw[1])
    assume(smallest > 24)  # the box of a smaller one lies too coarsely on the network's pixels
    mask = disk(hw, y * hw[0], x * hw[1], radius * min(hw), stretch)
    geometry = plan(hw, net_hw, fit)
    result = vqamodal.to_cells(laid_in(mask, geometry), geometry, ("cell",), 0.5)
    assert result.classes == ("cell 1",)
    assert iou(result.masks[0], mask.numpy()) >= 0.97


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
@pytest.mark.parametrize("box", [None, (10, 20, 90, 110)])
def test_the_network_s_whole_view_is_the_part_it_was_shown(fit: Any, box: Any) -> None:
    geometry = plan((100, 140), (97, 131), fit, box)
    rows, columns = geometry.inner
    view = torch.tensor([[columns.start, rows.start, columns.stop, rows.stop]], dtype=torch.float32)
    top, left, bottom, right = geometry.box
    expected = torch.tensor([[left, top, right, bottom]], dtype=torch.float32)
    torch.testing.assert_close(postprocess.in_image(view, geometry), expected, atol=1e-4, rtol=0)


def test_cells_overlap_and_unsure_or_empty_ones_are_left_out() -> None:
    hw = (40, 60)
    boxes = torch.tensor([[5.0, 5, 35, 35], [0, 0, 0, 0], [20, 5, 50, 35], [1, 1, 9, 9]])
    logits = torch.full((4, 28, 28), 9.0)
    outputs = {"boxes": boxes, "scores": torch.tensor([0.9, 0.8, 0.7, 0.2]), "cell_logits": logits}
    result = vqamodal.to_cells(outputs, plan(hw, hw), ("cell",), 0.5)
    assert result.classes == ("cell 1", "cell 2")
    assert result.scores is not None
    assert result.scores.tolist() == pytest.approx([0.9, 0.7])
    assert result.masks.sum((1, 2)).tolist() == [900, 900]
    assert result.masks.all(0).sum() == 15 * 30
    assert result.probabilities.dtype == np.float32
    every = vqamodal.to_cells(outputs, plan(hw, hw), ("cell",), 0.5, least_score=0.0)
    assert len(every.classes) == 3
    none = vqamodal.to_cells(outputs, plan(hw, hw), ("cell",), 0.5, least_score=0.95)
    assert none.classes == ()
    assert none.masks.shape == none.probabilities.shape == (0, *hw)


# Learning.


def test_the_trunk_is_the_encoder_of_the_other_families(net: VQAmodal) -> None:
    assert isinstance(net.encoder, Encoder)


@pytest.mark.slow
@pytest.mark.usefixtures("deep")
def test_it_learns_drawn_embryos_by_heart(
    learned: ShapeCode, imagenet_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roi_head, "SAMPLED", 8)
    hw = (128, 128)
    embryos = [draw_cleavage(seed, 4, 0.0, hw, "microscope") for seed in (1, 2)]
    batch = batch_of([[torch.from_numpy(cell) for cell in e.cells] for e in embryos], hw)
    batch["image"] = torch.from_numpy(np.stack([normalize(e.image, Preprocessing())[None] for e in embryos]))
    net = build()
    assert net.shape is not None
    net.shape.load_state_dict(learned.state_dict())
    net.encoder.load(imagenet_backbone)
    rest = [p for name, p in net.named_parameters() if not name.startswith("encoder.")]
    groups: list[dict[str, Any]] = [{"params": list(net.encoder.parameters()), "lr": 1e-4}, {"params": rest}]
    optimizer = torch.optim.Adam(groups, 3e-4, fused=True)
    for step in range(1, 61):
        optimizer.zero_grad()
        with_statistics(net.train(), learn=False)
        sum(vqamodal.loss(net(batch["image"], batch), batch).values(), torch.zeros(())).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        if step % 5 == 0:
            best = vqamodal.score(tell(net.eval(), batch), batch, ("cell",))["best IoU"].mean().item()
            if best > 0.8:
                return
    pytest.fail(f"best IoU {best:.2f} after {step} steps")
