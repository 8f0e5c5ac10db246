"""Boxes and scores of cells (second stage of Faster R-CNN), and the occlusion classification of KINS."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import clip_boxes_to_image, nms, remove_small_boxes

from napari_embryo.families import VQAmodalSettings
from napari_embryo.models.blocks import resize_to
from napari_embryo.models.vqamodal.fpn import WIDTH
from napari_embryo.models.vqamodal.rpn import BETA, matched, sampled
from napari_embryo.models.vqamodal.targets import Cells, per_picture

SIDE = 7
"""Side of the features of a box."""
VECTOR = 1024
SAMPLED, POSITIVE = 64, 0.25
"""Boxes per image used in training, and the largest share of those on cells: at most 16 masks per image."""
SPARE = 3
"""How many more boxes get a mask than cells are kept: masks are needed to recognize duplicates."""
OCCLUDED_WEIGHT = 8.0
"""Weight of occluded cells in the released settings of KINS."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """Training boxes of every image (one (n, 4) each), and the cell each lies on, -1 for none."""

    boxes: list[Tensor]
    cell: list[Tensor]

    @property
    def on_cells(self) -> Tensor:
        """(N,) bool over all images."""
        return torch.cat(self.cell) >= 0

    @property
    def picture(self) -> Tensor:
        """(N,) int64: the cell of each box."""
        return picture_of(self.boxes)

    def positive(self) -> "Chosen":
        """The boxes that lie on a cell."""
        on = [cell >= 0 for cell in self.cell]
        boxes = [box[at] for box, at in zip(self.boxes, on, strict=True)]
        return Chosen(boxes, [cell[at] for cell, at in zip(self.cell, on, strict=True)])


def picture_of(boxes: Sequence[Tensor]) -> Tensor:
    """(N,) int64: the image of each box, for a list of boxes by image."""
    return torch.cat([torch.full((len(own),), i, device=own.device) for i, own in enumerate(boxes)])


def choose(proposed: Sequence[Tensor], cells: Sequence[Cells], chance: Sequence[torch.Generator | None]) -> Chosen:
    """Training proposals, including the true boxes, so that every image with a cell has a box on it."""
    boxes, cell = [], []
    for given, own, luck in zip(proposed, cells, chance, strict=True):
        every = torch.cat((given, own.boxes))
        match = matched(own.boxes, every, 0.5, 0.5)
        at = torch.cat(sampled(match, SAMPLED, POSITIVE, luck))
        boxes.append(every[at])
        cell.append(match[at])
    return Chosen(boxes, cell)


class BoxHead(nn.Module):
    """Features of boxes -> scores (cell or background) and refined boxes.

    With ``deep``, four convolutions come first, the first of which ASN joins with its own.
    """

    def __init__(self, deep: bool) -> None:
        super().__init__()
        self.first = _convolution(WIDTH) if deep else nn.Identity()
        self.body = _deep() if deep else TwoMLPHead(WIDTH * SIDE**2, VECTOR)
        self.last = FastRCNNPredictor(VECTOR, 2)
        self.coder = BoxCoder((10.0, 10.0, 5.0, 5.0))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 256, 7, 7) -> logits (N, 2) of background and cell, and shifts (N, 4) of the box of a cell."""
        logits, shifts = self.last(self.body(self.first(features)))
        return logits.float(), shifts.float()[:, 4:]

    def losses(self, told: tuple[Tensor, Tensor], chosen: Chosen, cells: Sequence[Cells]) -> dict[str, Tensor]:
        """``loss_class`` and ``loss_box`` (B,), the latter NaN for an image without cells."""
        logits, shifts = told
        count, on, picture = len(cells), chosen.on_cells, chosen.picture
        number = torch.bincount(picture, minlength=count)
        classes = per_picture(cross_entropy(logits, on.long(), reduction="none"), picture, count)
        positive = chosen.positive()
        true = torch.cat([own.boxes[cell] for own, cell in zip(cells, positive.cell, strict=True)])
        wanted = self.coder.encode_single(true, torch.cat(positive.boxes))
        each = smooth_l1_loss(shifts[on], wanted, beta=BETA, reduction="none").sum(1)
        boxes = per_picture(each, picture[on], count, mean=False) / number.clamp_min(1)
        # an image without cells may have no proposals either
        return {"loss_class": classes.masked_fill(number == 0, 0.0), "loss_box": boxes}

    @torch.no_grad()
    def found(
        self, told: tuple[Tensor, Tensor], boxes: Sequence[Tensor], hw: tuple[int, int], settings: VQAmodalSettings
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes (n, 4) and scores (n,) of every image, highest first, without duplicates."""
        logits, shifts = told
        sizes = [len(own) for own in boxes]
        scores = torch.softmax(logits, 1)[:, 1].split(sizes)
        better = self.coder.decode_single(shifts, torch.cat(list(boxes))).split(sizes)
        kept = [_kept(box, score, hw, settings) for box, score in zip(better, scores, strict=True)]
        return [box for box, _ in kept], [score for _, score in kept]


def _kept(boxes: Tensor, scores: Tensor, hw: tuple[int, int], settings: VQAmodalSettings) -> tuple[Tensor, Tensor]:
    boxes = clip_boxes_to_image(boxes, hw)
    at = torch.nonzero(scores >= settings.score_threshold)[:, 0]
    at = at[remove_small_boxes(boxes[at], 1.0)]
    at = at[nms(boxes[at], scores[at], settings.box_nms)[: SPARE * settings.detections]]
    return boxes[at], scores[at]


def _convolution(inside: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, WIDTH, 3, padding=1), nn.ReLU())


def _deep() -> nn.Sequential:
    convolutions = (_convolution(WIDTH) for _ in range(3))
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(WIDTH * SIDE**2, VECTOR), nn.ReLU())


class ASN(nn.Module):
    """The amodal segmentation network of KINS (Qi et al. 2019): occlusion classification and multi-level coding.

    A branch parallel to the box head classifies the cell. The first features of both, at 7 x 7, join the features of
    the mask head. The second mask head, for the visible part, is left out (docs/decisions.md, "ASN without visible
    masks").
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = _convolution(WIDTH)
        self.body = _deep()
        self.last = nn.Linear(VECTOR, 2)
        up = nn.ConvTranspose2d(WIDTH, WIDTH, 2, 2)
        self.both = nn.Sequential(_convolution(2 * WIDTH), up, nn.ReLU(), _convolution(WIDTH))
        self.join = nn.Sequential(_convolution(2 * WIDTH), _convolution(WIDTH))

    def forward(self, features: Tensor, box_head: BoxHead, mask_features: Tensor) -> Tensor:
        """(N, 256, 7, 7) and the mask head's (N, 256, s, s) -> (N, 256, s, s)."""
        both = self.both(torch.cat((box_head.first(features), self.first(features)), 1))
        joined: Tensor = self.join(torch.cat((resize_to(both, mask_features), mask_features), 1))
        return joined

    def loss(self, features: Tensor, occluded: Tensor, picture: Tensor, count: int) -> Tensor:
        """Cross-entropy (B,) of the occlusion classification, from features (N, 256, 7, 7) of boxes on cells."""
        logits = self.last(self.body(self.first(features))).float()
        weight = torch.where(occluded, OCCLUDED_WEIGHT, 1.0)
        entropy = cross_entropy(logits, occluded.long(), reduction="none") * weight
        return per_picture(entropy, picture, count) / per_picture(weight, picture, count)
