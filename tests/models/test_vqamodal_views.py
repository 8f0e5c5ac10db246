"""Cells of mirrored and turned views: back where they lie, and the same ones taken together."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from napari_embryo.families import VQAmodalSettings
from napari_embryo.models.boxes import boxes_of, crop_areas, paste
from napari_embryo.models.network import View
from napari_embryo.models.vqamodal import views
from napari_embryo.predict import VIEWS, viewed

HW = (60, 90)
SIDE = 32


def disc(y: float, x: float, radius: float = 12.0) -> Tensor:
    ys, xs = torch.meshgrid(torch.arange(HW[0]), torch.arange(HW[1]), indexing="ij")
    return ((ys - y) ** 2 + (xs - x) ** 2 <= radius**2).float()


def seen_as(masks: Tensor, scores: list[float]) -> views.Found:
    """As a network tells the cells of a picture (n, h, w)."""
    boxes = boxes_of(masks)
    return boxes, torch.tensor(scores), torch.logit(crop_areas(masks, boxes, SIDE), eps=1e-4)


def drawn(found: views.Found, hw: tuple[int, int] = HW) -> Tensor:
    return paste(torch.sigmoid(found[2]), found[0], hw) >= 0.5


def ious(masks: Tensor, others: Tensor) -> list[float]:
    return [float((a & b).sum() / (a | b).sum()) for a, b in zip(masks.bool(), others.bool(), strict=True)]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(VIEWS), st.floats(14, 44), st.floats(14, 74), st.integers(0, 2**31))
def test_what_a_view_shows_is_put_back_in_its_place(view: tuple[int, bool], y: float, x: float, seed: int) -> None:
    """A lopsided thing, so that no turn looks like another; the view itself is made by NumPy."""
    mask = disc(y, x).bool() & ~(torch.rand(HW, generator=torch.Generator().manual_seed(seed)) < 0.02)
    mask[: round(y), round(x) :] = False
    turned = viewed(mask[None].float(), *view)
    plain = mask.numpy()[:, ::-1] if view[1] else mask.numpy()
    np.testing.assert_array_equal(turned[0].numpy() > 0, np.rot90(plain, view[0]))
    in_view = seen_as(turned, [0.9])
    back = views.turned_back(in_view, *view, HW)
    itself = seen_as(mask[None].float(), [0.9])
    torch.testing.assert_close(back[0], itself[0])
    torch.testing.assert_close(back[2], itself[2], atol=1e-3, rtol=1e-3)


def test_one_view_alone_is_what_it_was() -> None:
    masks = torch.stack((disc(25, 25), disc(30, 60)))
    boxes, scores, logits = views.merged([seen_as(masks, [0.9, 0.6])], HW, 0.5)
    assert scores.tolist() == pytest.approx([0.9, 0.6])
    assert min(ious(drawn((boxes, scores, logits)), masks)) > 0.97


def test_the_same_cell_of_several_views_is_one_between_them() -> None:
    """Its score is the mean, a view that does not see it counting 0; its outline lies in the middle."""
    left, right = disc(30, 40), disc(30, 46)
    cells = views.merged(
        [seen_as(left[None], [0.9]), seen_as(right[None], [0.9]), seen_as(left[None][:0], [])], HW, 0.5
    )
    assert cells[1].tolist() == pytest.approx([0.6])
    middle = torch.argwhere(drawn(cells)[0]).float().mean(0)
    assert middle.tolist() == pytest.approx([30, 43], abs=0.7)


def test_cells_that_lie_over_each_other_stay_two() -> None:
    """Each is found once in every view, in any order."""
    both = torch.stack((disc(30, 40), disc(30, 52)))
    cells = views.merged([seen_as(both, [0.9, 0.8]), seen_as(both.flip(0), [0.9, 0.8])], HW, 0.5)
    assert cells[1].tolist() == pytest.approx([0.85, 0.85])
    assert sorted(ious(drawn(cells), both) + ious(drawn(cells), both.flip(0)))[2] > 0.95


def test_two_of_one_view_are_never_one_cell() -> None:
    """The better-fitting one of a view joins; the other stays beside it, with the score of a repeated one."""
    one, near = disc(30, 40), disc(30, 43)
    cells = views.merged([seen_as(torch.stack((one, near)), [0.9, 0.8]), seen_as(one[None], [0.7])], HW, 0.5)
    assert len(cells[1]) == 2
    assert float(cells[1][0]) == pytest.approx(0.8)
    assert float(cells[1][1]) < 0.4 * 0.5


NAMES = ("boxes", "scores", "cell_logits")


def _filled(values: torch.Tensor, count: int) -> torch.Tensor:
    """With zeros at the end, as the network has it."""
    return torch.cat((values, values.new_zeros(count - len(values), *values.shape[1:])))


@pytest.mark.parametrize("count", [1, 4])
def test_no_cell_and_the_fixed_number_of_places(count: int) -> None:
    nothing = seen_as(torch.zeros(0, *HW), [])
    assert len(views.merged([nothing, nothing], HW, 0.5)[1]) == 0
    one = views.merged([seen_as(disc(30, 40)[None], [0.9])], HW, 0.5)
    outputs = {name: torch.stack([_filled(each[i], count) for each in (nothing, one)]) for i, name in enumerate(NAMES)}
    outputs = views.merge_views([View(outputs, 0, mirrored=False)], HW, VQAmodalSettings())
    assert outputs["boxes"].shape == (2, count, 4)
    assert outputs["cell_logits"].shape == (2, count, SIDE, SIDE)
    assert outputs["scores"][0].tolist() == [0.0] * count
    assert outputs["scores"][1].tolist() == pytest.approx([0.9] + [0.0] * (count - 1))
