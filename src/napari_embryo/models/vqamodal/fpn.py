"""Feature pyramid, the occlusion branch joined with it, and features of boxes."""

from collections.abc import Sequence
from itertools import pairwise
from math import log2

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import FeaturePyramidNetwork, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from napari_embryo.models.encoder import ENCODER_CHANNELS
from napari_embryo.models.vqamodal.targets import at_stride

WIDTH = 256
"""Number of channels of every level."""
STRIDES = (4, 8, 16, 32, 64)
"""Strides of the levels; the last one is used for proposals only."""
OCCLUSION_WIDTH = 64
OCCLUSION_WEIGHT = 0.01
"""The paper's beta, for its literal sum; as a mean, the loss has the same weight as the others."""
CANONICAL_SIDE, CANONICAL_LEVEL = 224, 2
"""A box of this side is assigned to this level (stride 16), as in Lin et al. 2017."""


class Pyramid(nn.Module):
    """Features of 256 channels at strides 4, 8, 16, 32 and 64 (Lin et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.network = FeaturePyramidNetwork(list(ENCODER_CHANNELS[1:]), WIDTH, LastLevelMaxPool())

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """Stages at strides 4 to 32 -> five levels."""
        return list(self.network({str(i): stage for i, stage in enumerate(stages)}).values())


class Occlusion(nn.Module):
    """Four convolutions predict where cells overlap; the features before the last one join the pyramid (paper, 4.1).

    Shared by all levels; see docs/decisions.md, "Occlusion branch starts neutral".
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (WIDTH, OCCLUSION_WIDTH, OCCLUSION_WIDTH, OCCLUSION_WIDTH)
        layers = [conv for pair in pairwise(widths) for conv in _conv(*pair)]
        self.features = nn.Sequential(*layers)
        self.map = nn.Conv2d(OCCLUSION_WIDTH, 1, 3, padding=1)
        self.join = nn.Conv2d(WIDTH + OCCLUSION_WIDTH, WIDTH, 1)
        with torch.no_grad():
            self.join.weight.copy_(torch.eye(WIDTH, WIDTH + OCCLUSION_WIDTH)[:, :, None, None])
        nn.init.zeros_(self.join.get_parameter("bias"))

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the joined levels and the logits (B, 1, h, w) of each."""
        found = [self.features(level) for level in levels]
        joined = [self.join(torch.cat((level, own), 1)) for level, own in zip(levels, found, strict=True)]
        return joined, [self.map(own) for own in found]


def _conv(inside: int, outside: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inside, outside, 3, padding=1), nn.ReLU()


def occlusion_loss(logits: Sequence[Tensor], overlap: Tensor, valid: Tensor, reduction: str) -> Tensor:
    """Binary cross-entropy (B,) against the overlap (B, 1, h, w), averaged by area to the size of each level.

    Parameters
    ----------
    logits
        One map (B, 1, h', w') per level.
    valid
        (B, 1, h, w), 0 on padding.
    reduction
        ``mean`` over the places of a level, then over the levels (docs/decisions.md, "Means instead of sums"); ``sum``:
        the paper's second equation with its weight of 0.01, over all levels.
    """
    terms = []
    for level, stride in zip(logits, STRIDES, strict=True):
        label, weight = at_stride(overlap, stride), at_stride(valid, stride)
        entropy = binary_cross_entropy_with_logits(level.float(), label, reduction="none") * weight
        size = weight.sum((1, 2, 3)).clamp_min(1e-6) if reduction == "mean" else 1 / OCCLUSION_WEIGHT
        terms.append(entropy.sum((1, 2, 3)) / size)
    each = torch.stack(terms)
    return each.mean(0) if reduction == "mean" else each.sum(0)


def pool(levels: Sequence[Tensor], boxes: Sequence[Tensor], side: int) -> Tensor:
    """Features (N, 256, side, side) of boxes (one (n, 4) per image) by RoIAlign, each on the level for its size.

    Aligned to half pixels, which torchvision's ``MultiScaleRoIAlign`` does not support.
    """
    index = torch.cat([box.new_full((len(box), 1), i) for i, box in enumerate(boxes)])
    rows = torch.cat((index, torch.cat(list(boxes))), 1)
    level_of = box_levels(rows[:, 1:], len(levels))
    places = [torch.nonzero(level_of == i)[:, 0] for i in range(len(levels))]
    parts = [
        roi_align(level, rows[at], side, 1 / stride, sampling_ratio=2, aligned=True)
        for level, stride, at in zip(levels, STRIDES, places, strict=False)
    ]
    return torch.cat(parts)[torch.argsort(torch.cat(places))]


def box_levels(boxes: Tensor, count: int) -> Tensor:
    """Level (N,) of each box, larger boxes on coarser levels."""
    side = (boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(1).sqrt()
    level = torch.floor(side.clamp_min(1e-6).log2() - log2(CANONICAL_SIDE) + CANONICAL_LEVEL + 1e-6)
    return level.clamp(0, count - 1).long()
