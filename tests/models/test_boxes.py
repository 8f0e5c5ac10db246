"""Masks cut out by boxes and pasted back: torchvision's own functions, closed forms, and the way there and back."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import box_iou, masks_to_boxes

from napari_embryo.models.boxes import boxes_of, crop_areas, crop_masks, jitter, paste

HW = (90, 120)


def ellipse(center: tuple[float, float], axes: tuple[float, float], hw: tuple[int, int] = HW) -> Tensor:
    """(h, w) bool; center and half axes as (x, y)."""
    y, x = torch.meshgrid(torch.arange(hw[0]) + 0.5, torch.arange(hw[1]) + 0.5, indexing="ij")
    inside: Tensor = ((x - center[0]) / axes[0]) ** 2 + ((y - center[1]) / axes[1]) ** 2 <= 1
    return inside


def iou(one: Tensor, other: Tensor) -> float:
    return float((one & other).sum() / (one | other).sum())


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


ellipses = st.builds(
    ellipse,
    st.tuples(st.floats(30, 90), st.floats(30, 60)),
    st.tuples(st.floats(14, 28), st.floats(14, 28)),
)


@given(mask=ellipses, side=st.sampled_from([28, 32]), seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_there_and_back(mask: Tensor, side: int, seed: int) -> None:
    box = boxes_of(mask[None]) + torch.rand(1, 4, generator=seeded(seed)) * torch.tensor([-3.0, -3, 3, 3])
    back = paste(crop_areas(mask[None], box, side), box, HW)[0] >= 0.5
    assert iou(back, mask) > 0.96


@pytest.mark.parametrize(
    ("crop", "side", "least"), [(crop_areas, 28, 0.99), (crop_areas, 56, 0.995), (crop_masks, 28, 0.96)]
)
def test_what_the_way_there_and_back_costs(crop: Callable[..., Tensor], side: int, least: float) -> None:
    """Measured were .9944 at 28 pixels and .9980 at 56 for cells of a 500-pixel picture."""
    axes = [(50 + 7 * i, 90 - 5 * i) for i in range(8)]
    masks = torch.stack([ellipse((200.3 + i, 180.7), axes[i], (360, 500)) for i in range(8)])
    boxes = jitter(boxes_of(masks), seeded(0), 0.9) + torch.tensor([-9.0, -9, 9, 9])
    back = paste(crop(masks, boxes, side), boxes, (360, 500)) >= 0.5
    assert np.mean([iou(*pair) for pair in zip(back, masks, strict=True)]) > least


@given(
    left=st.integers(-12, 100),
    top=st.integers(-12, 80),
    wide=st.integers(1, 4),
    tall=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=40, deadline=None)
def test_pastes_as_torchvision(left: int, top: int, wide: int, tall: int, seed: int) -> None:
    """Exactly, where its whole-pixel box, which counts its last pixel, is the same box; it refuses one outside."""
    side = 14
    square = torch.rand(1, side, side, generator=seeded(seed))
    box = torch.tensor([[left, top, left + wide * side, top + tall * side]]).float()
    # their box grows by 2 of its pixels about the middle, is cut toward zero, and counts its last pixel
    middle, half = (box[:, :2] + box[:, 2:] - 1) / 2, (box[:, 2:] - box[:, :2] - side / (side + 2)) / 2
    nearly = torch.cat((middle - half, middle + half), 1)
    grown = torch.cat((middle - half * (side + 2) / side, middle + half * (side + 2) / side), 1)
    theirs = nearly + 0.01 * torch.where(grown > -0.5, 1.0, -1.0)
    expected = paste_masks_in_image(square[:, None], theirs, HW)[:, 0]
    torch.testing.assert_close(paste(square, box, HW), expected, atol=1e-5, rtol=0)


@given(
    corner=st.tuples(st.floats(-40, 110), st.floats(-40, 80)),
    size=st.tuples(st.floats(0.5, 150), st.floats(0.5, 150)),
    side=st.sampled_from([1, 4, 28, 32]),
)
@settings(max_examples=40, deadline=None)
def test_pastes_as_grid_sample(corner: tuple[float, float], size: tuple[float, float], side: int) -> None:
    square = torch.rand(1, side, side, generator=seeded(side))
    box = torch.tensor([[*corner, corner[0] + size[0], corner[1] + size[1]]])
    x = ((torch.arange(HW[1]) + 0.5).double() - corner[0]) / size[0] * 2 - 1
    y = ((torch.arange(HW[0]) + 0.5).double() - corner[1]) / size[1] * 2 - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)
    expected = grid_sample(square[None].double(), grid[None], align_corners=False)[0].float()
    torch.testing.assert_close(paste(square, box, HW), expected, atol=2e-3, rtol=0)


def test_pixels_are_from_edge_to_edge() -> None:
    """A square of ones on whole pixels: a half at each edge's line, where it fades."""
    pasted = paste(torch.ones(1, 4, 4), torch.tensor([[2.0, 1.0, 6.0, 5.0]]), (8, 9))[0]
    expected = torch.zeros(8, 9)
    expected[1:5, 2:6] = 1
    torch.testing.assert_close(pasted, expected)


@pytest.mark.parametrize(
    ("corner", "expected"),
    [((3, 2), torch.eye(4)), ((3.2, 2.2), torch.eye(4)), ((4, 2), torch.eye(5)[:4, 1:]), ((-9, -9), torch.zeros(4, 4))],
)
def test_crops_the_very_pixels(corner: tuple[float, float], expected: Tensor) -> None:
    masks = torch.zeros(1, 10, 12, dtype=torch.bool)
    masks[0, 2:6, 3:7] = torch.eye(4).bool()
    box = torch.tensor([[*corner, corner[0] + 4, corner[1] + 4]])
    assert torch.equal(crop_masks(masks, box, 4)[0], expected)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
@pytest.mark.parametrize("edge", range(4))
def test_nothing_is_beyond_the_picture(edge: int, dtype: torch.dtype) -> None:
    """A full picture in a box that reaches out by half of its size: half of the square is mask."""
    box = torch.tensor([[0.0, 0, 32, 32]])
    box[0, edge] += -32 if edge < 2 else 32
    square = crop_masks(torch.ones(1, 32, 32).to(dtype), box, 16)[0]
    expected = torch.zeros(16, 16)
    expected[((slice(None), slice(8, 16)), (slice(8, 16),), (slice(None), slice(8)), (slice(8),))[edge]] = 1
    assert torch.equal(square, expected)


@given(
    edges=st.tuples(st.integers(0, 40), st.integers(0, 30)),
    cells=st.integers(1, 5),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=30, deadline=None)
def test_crops_by_area(edges: tuple[int, int], cells: int, seed: int) -> None:
    """Where a square's pixel is a block of whole pixels, the majority of the block (ties aside)."""
    side, block = 8, 2 * cells + 1
    masks = torch.rand(1, 8 * 11 + 40, 8 * 11 + 45, generator=seeded(seed)) < 0.5
    x, y = edges
    box = torch.tensor([[x, y, x + side * block, y + side * block]]).float()
    blocks = masks[0, y : y + side * block, x : x + side * block].reshape(side, block, side, block)
    assert torch.equal(crop_masks(masks, box, side)[0], (blocks.float().mean((1, 3)) >= 0.5).float())


def test_many_boxes_share_few_masks() -> None:
    masks = torch.stack([ellipse((40, 40), (20, 25)), ellipse((70, 50), (30, 25))])
    which = torch.tensor([1, 0, 1])
    boxes = jitter(boxes_of(masks)[which], seeded(3))
    assert torch.equal(crop_masks(masks, boxes, 32, which), crop_masks(masks[which], boxes, 32))


@given(st.lists(st.integers(0, 2**12 - 1), min_size=1, max_size=5))
def test_boxes_are_torchvisions_and_a_pixel(bits: list[int]) -> None:
    """torchvision's boxes end at the last pixel, ours at its far edge; an empty mask has a box of zeros."""
    masks = torch.tensor([[(b >> i) & 1 for i in range(12)] for b in bits]).reshape(-1, 3, 4).bool()
    expected = torch.zeros(len(masks), 4)
    drawn = masks.flatten(1).any(1)
    if drawn.any():
        expected[drawn] = masks_to_boxes(masks[drawn]) + torch.tensor([0.0, 0, 1, 1])
    assert torch.equal(boxes_of(masks), expected)


@pytest.mark.parametrize("least", [0.3, 0.5, 0.8, 1.0])
def test_shaken_boxes_overlap(least: float) -> None:
    boxes = torch.tensor([[10.0, 20, 50, 90], [-5, 0, 5, 300]]).repeat(500, 1)
    shaken = jitter(boxes, seeded(0), least)
    overlap = box_iou(shaken, boxes).diagonal()
    assert overlap.min() >= least - 1e-6
    middle = (1 + least) / 2
    assert least == 1 or 0.1 < (overlap < middle).float().mean() < 0.9
    assert torch.equal(shaken, jitter(boxes, seeded(0), least))


def test_what_has_no_area() -> None:
    nothing = torch.zeros(2, 4)
    assert torch.equal(jitter(nothing, seeded(0)), nothing)
    assert not paste(torch.ones(2, 8, 8), nothing + 3.5, HW).any()
    assert crop_masks(torch.zeros(0, 5, 6).bool(), torch.zeros(0, 4), 32).shape == (0, 32, 32)
    assert paste(torch.zeros(0, 8, 8), torch.zeros(0, 4), HW).shape == (0, *HW)
    assert boxes_of(torch.zeros(0, 5, 6).bool()).shape == (0, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: crop_masks(torch.zeros(2, 9, 9), torch.zeros(3, 4), 32), "2 masks and 3 boxes"),
        (lambda: paste(torch.zeros(2, 9, 9), torch.zeros(3, 4), HW), "2 squares and 3 boxes"),
        (lambda: jitter(torch.zeros(3, 4), seeded(0), 0), "least_iou = 0"),
    ],
)
def test_refusals(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
