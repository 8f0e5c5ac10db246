"""Ground truth of a batch: cells, their boxes, and where cells overlap."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from napari_embryo.models.boxes import boxes_of

OCCLUDED = 0.05
"""Occluded share of its area from which a cell counts as occluded (KINS, Qi et al. 2019)."""


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of one image.

    Parameters
    ----------
    masks
        (N, h, w) bool, complete and not empty.
    visible
        (N, h, w) bool, the visible part of each; its mask if unknown.
    boxes
        (N, 4) float32, x1, y1, x2, y2 in pixels.
    """

    masks: Tensor
    visible: Tensor
    boxes: Tensor

    def __len__(self) -> int:
        return len(self.masks)

    def overlap(self, translucent: bool) -> Tensor:
        """(h, w) bool: where two complete cells lie, or otherwise where the visible part of a cell is missing."""
        return self.masks.sum(0) >= 2 if translucent else (self.masks & ~self.visible).any(0)

    def occluded(self, translucent: bool) -> Tensor:
        """(N,) bool: whether another cell covers or hides more than 5 % of it."""
        lost = self.masks & self.overlap(True) if translucent else self.masks & ~self.visible
        return lost.flatten(1).sum(1) > OCCLUDED * self.masks.flatten(1).sum(1)


def cells_of(targets: dict[str, Tensor]) -> list[Cells]:
    """The cells of every image, without the padding."""
    visible = targets.get("visible", targets["cells"])
    return [_cells(masks.bool(), seen.bool()) for masks, seen in zip(targets["cells"], visible, strict=True)]


def _cells(masks: Tensor, visible: Tensor) -> Cells:
    drawn = has_pixels(masks)
    return Cells(masks[drawn], visible[drawn], boxes_of(masks[drawn]))


def has_pixels(masks: Tensor) -> Tensor:
    """(..., h, w) -> (...) bool."""
    return masks.flatten(-2).any(-1)


def at_stride(map_: Tensor, stride: int) -> Tensor:
    """Area averages (B, 1, ceil(h / stride), ceil(w / stride)) of a map (B, 1, h, w) that is 0 outside."""
    right, below = (-map_.shape[-1] % stride, -map_.shape[-2] % stride)
    return avg_pool2d(pad(map_, (0, right, 0, below)), stride)


def per_picture(values: Tensor, picture: Tensor, count: int, *, mean: bool = True) -> Tensor:
    """Mean or sum (count,) of the values (N,) of each image; NaN for an image without any."""
    total = values.new_zeros(count).index_add(0, picture, values)
    number = torch.bincount(picture, minlength=count)
    each = total / number.clamp_min(1) if mean else total
    return each.masked_fill(number == 0, float("nan"))
