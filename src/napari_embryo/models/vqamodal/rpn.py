"""Region proposal network over the pyramid (Ren et al. 2015; torchvision's head and coder)."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, remove_small_boxes

from napari_embryo.models.vqamodal.fpn import STRIDES, WIDTH
from napari_embryo.models.vqamodal.targets import Cells

ANCHOR_SCALES = (1.0, sqrt(2))
"""Scales of anchors within a level (docs/decisions.md, "Anchors")."""
ANCHOR_RATIOS = (0.5, 1.0, 2.0)
"""Height over width: round cells, and cells that are squeezed or cut off by the image border."""
SAMPLED, POSITIVE = 256, 0.5
"""Anchors per image used in training, and the largest share of those on cells."""
BEFORE_NMS, AFTER_NMS = 500, 200
"""Proposals per level before, and per image after removing duplicates; low, since images show few cells."""
LEAST_NMS = 0.7
BETA = 1 / 9
"""Transition of the smooth L1 loss of boxes to linear."""


@dataclass(frozen=True, eq=False)
class Proposed:
    """For every image (B) and anchor (A): logits (B, A), shifts (B, A, 4), anchors (A, 4), and the boxes kept."""

    objectness: Tensor
    shifts: Tensor
    anchors: Tensor
    boxes: list[Tensor]


class Proposals(nn.Module):
    """Levels -> boxes that may contain a cell.

    Boxes that overlap by more than ``nms`` are merged; this is above the usual 0.7 if the detector itself keeps more,
    because it would otherwise never see overlapping cells. Anchors of the finest level have a side of ``smallest``
    relative to the input's side; those of every coarser level are twice as large.
    """

    def __init__(self, nms: float, smallest: float) -> None:
        super().__init__()
        self.head = RPNHead(WIDTH, len(ANCHOR_SCALES) * len(ANCHOR_RATIOS))
        self.nms, self.smallest = max(LEAST_NMS, nms), smallest
        self.coder = BoxCoder((1.0, 1.0, 1.0, 1.0))

    def forward(self, levels: Sequence[Tensor], hw: tuple[int, int]) -> Proposed:
        """See :class:`Proposed`."""
        scores, shifts = self.head(list(levels))
        sizes = [(level.shape[-2], level.shape[-1]) for level in levels]
        side, device = self.smallest * sqrt(hw[0] * hw[1]), levels[0].device
        each = enumerate(zip(sizes, STRIDES, strict=True))
        anchors = [anchors_of(size, stride, side * 2**i).to(device) for i, (size, stride) in each]
        objectness = [_flat(score, 1)[..., 0] for score in scores]
        moves = torch.cat([_flat(shift, 4) for shift in shifts], 1)
        boxes = self._boxes(objectness, moves.detach(), torch.cat(anchors), hw)
        return Proposed(torch.cat(objectness, 1), moves, torch.cat(anchors), boxes)

    @torch.no_grad()
    def _boxes(
        self, objectness: Sequence[Tensor], shifts: Tensor, anchors: Tensor, hw: tuple[int, int]
    ) -> list[Tensor]:
        starts = torch.tensor([0, *(level.shape[1] for level in objectness)]).cumsum(0).tolist()
        best = [level.topk(min(BEFORE_NMS, level.shape[1]), 1) for level in objectness]
        where = torch.cat([top.indices + start for top, start in zip(best, starts, strict=False)], 1)
        level = torch.cat([top.indices.new_full((top.indices.shape[1],), i) for i, top in enumerate(best)])
        scores = torch.cat([top.values for top in best], 1)
        return [
            self._kept(self.coder.decode_single(shifts[i, at], anchors[at]), scores[i], level, hw)
            for i, at in enumerate(where)
        ]

    def _kept(self, boxes: Tensor, scores: Tensor, level: Tensor, hw: tuple[int, int]) -> Tensor:
        boxes = clip_boxes_to_image(boxes, hw)
        large = remove_small_boxes(boxes, 1.0)
        kept = batched_nms(boxes[large], scores[large], level[large], self.nms)
        return boxes[large][kept[:AFTER_NMS]]

    def losses(
        self, proposed: Proposed, cells: Sequence[Cells], chance: Sequence[torch.Generator | None]
    ) -> dict[str, Tensor]:
        """``loss_objectness`` and ``loss_anchor`` (B,), the latter NaN for an image without cells."""
        each = [
            self._losses(logits, shifts, proposed.anchors, own, luck)
            for logits, shifts, own, luck in zip(proposed.objectness, proposed.shifts, cells, chance, strict=True)
        ]
        objectness, anchor = (torch.stack(values) for values in zip(*each, strict=True))
        return {"loss_objectness": objectness, "loss_anchor": anchor}

    def _losses(
        self, logits: Tensor, shifts: Tensor, anchors: Tensor, cells: Cells, luck: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        match = matched(cells.boxes, anchors, 0.7, 0.3, best_too=True)
        positive, negative = sampled(match, SAMPLED, POSITIVE, luck)
        chosen = torch.cat((positive, negative))
        objectness = binary_cross_entropy_with_logits(logits[chosen], (match[chosen] >= 0).float())
        if not len(cells):
            return objectness, shifts.new_tensor(float("nan"))
        wanted = self.coder.encode_single(cells.boxes[match[positive]], anchors[positive])
        anchor = smooth_l1_loss(shifts[positive], wanted, beta=BETA, reduction="sum") / len(chosen)
        return objectness, anchor


def _flat(values: Tensor, each: int) -> Tensor:
    """(B, A * each, h, w) -> (B, h * w * A, each) float32."""
    return values.permute(0, 2, 3, 1).reshape(len(values), -1, each).float()


def anchors_of(size: tuple[int, int], stride: int, side: float) -> Tensor:
    """Boxes (h * w * 6, 4) around every place of a level, row by row; the smaller ones have the area ``side`` ** 2."""
    sides = side * torch.tensor(ANCHOR_SCALES)[:, None, None]
    ratios = torch.tensor(ANCHOR_RATIOS)
    half = (sides / 2 * torch.stack((1 / ratios.sqrt(), ratios.sqrt()), 1)).flatten(0, 1)
    rows, columns = (torch.arange(n) * stride for n in size)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    middle = torch.stack((x, y), -1).reshape(-1, 1, 2).float()
    return torch.cat((middle - half, middle + half), -1).reshape(-1, 4)


def matched(boxes: Tensor, others: Tensor, high: float, low: float, *, best_too: bool = False) -> Tensor:
    """The one of ``boxes`` that each of ``others`` lies on (the highest IoU); -1 for none, -2 for neither.

    With ``best_too``, the others with the highest IoU with a box also lie on it, however low it is.
    """
    if not len(boxes):
        return torch.full((len(others),), Matcher.BELOW_LOW_THRESHOLD, dtype=torch.long, device=others.device)
    match: Tensor = Matcher(high, low, best_too)(box_iou(boxes, others))
    return match


def sampled(match: Tensor, count: int, share: float, luck: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Random indices on cells, at most their share of ``count``, filled up with random ones on none."""
    positive = _some(torch.nonzero(match >= 0)[:, 0], int(count * share), luck)
    negative = _some(torch.nonzero(match == -1)[:, 0], count - len(positive), luck)
    return positive, negative


def _some(places: Tensor, count: int, luck: torch.Generator | None) -> Tensor:
    order = torch.randperm(len(places), generator=luck)[:count]
    return places[order.to(places.device)]
