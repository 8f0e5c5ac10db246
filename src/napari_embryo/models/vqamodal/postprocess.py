"""From a network's boxes and logits to silhouettes and their scores."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from napari_embryo.geometry import Geometry
from napari_embryo.image import Cells
from napari_embryo.measure.average_precision import SURE, Matches, average_precision
from napari_embryo.models.boxes import paste
from napari_embryo.models.vqamodal.targets import cells_of

NMS_STRIDE = 2
"""Masks are compared at half the input's size, which changes the IoU of cells by at most 0.01."""


def rescored(boxes: Tensor, logits: Tensor, scores: Tensor, hw: tuple[int, int], most: float) -> Tensor:
    """Scores (n,), lowered for cells that overlap one with a higher score; see :func:`softened`.

    Takes boxes (n, 4) and the logits (n, S, S) in them.
    """
    return softened(overlaps_of(torch.sigmoid(logits.float()), boxes, hw), scores, most)


def overlaps_of(squares: Tensor, boxes: Tensor, hw: tuple[int, int]) -> Tensor:
    """IoU (n, n) of the masks given by probabilities (n, S, S) in boxes (n, 4), at half the input's size."""
    small = -(-hw[0] // NMS_STRIDE), -(-hw[1] // NMS_STRIDE)
    masks = paste(squares, boxes / NMS_STRIDE, small) >= 0.5
    return ious(masks, masks)


def softened(overlaps: Tensor, scores: Tensor, most: float) -> Tensor:
    """Linear Soft-NMS (Bodla et al. 2017) on overlaps (n, n) of masks.

    The highest score is kept; every other one that overlaps it by an IoU above ``most`` is multiplied by 1 - IoU; then
    the next highest, and so on. A cell found twice is thus shown once, while real cells on top of each other are not
    deleted, as they would be by a hard limit (docs/decisions.md, "Non-maximum suppression").
    """
    table, left = overlaps.double().cpu().numpy(), scores.double().cpu().numpy().copy()
    waiting = np.ones(len(left), bool)
    for _ in range(len(left)):
        best = int(np.argmax(np.where(waiting, left, -1.0)))
        waiting[best] = False
        lower = waiting & (table[best] > most)
        left[lower] *= 1 - table[best][lower]
    return torch.from_numpy(left).to(scores)


def ious(masks: Tensor, others: Tensor) -> Tensor:
    """IoU (n, m) of each mask (n, h, w) with each other one (m, h, w); 0 where both are empty."""
    flat, other = masks.flatten(1).float(), others.flatten(1).float()
    # pixel counts exceed the range of half precision
    with torch.autocast(masks.device.type, enabled=False):
        both = flat @ other.T
    either = flat.sum(1)[:, None] + other.sum(1) - both
    return both / either.clamp_min(1)


@torch.no_grad()
def score(outputs: dict[str, Tensor], targets: dict[str, Tensor], classes: Sequence[str]) -> dict[str, Tensor]:
    """``best IoU`` and ``AP`` (B,) at the network's size; NaN for an image without cells.

    ``best IoU``: mean over the true cells of the best IoU with a cell found with a score of at least 0.5. ``AP``:
    average precision of the image, mean over IoU 0.50, 0.55 .. 0.95, with COCO's 101 recalls.
    """
    del classes
    hw = targets["cells"].shape[-2], targets["cells"].shape[-1]
    each = []
    for i, cells in enumerate(cells_of(targets)):
        found = outputs["scores"][i] > 0
        masks = paste(torch.sigmoid(outputs["cell_logits"][i][found].float()), outputs["boxes"][i][found], hw) >= 0.5
        each.append(_scores(ious(masks, cells.masks), outputs["scores"][i][found]))
    best, precision = zip(*each, strict=True)
    device = outputs["scores"].device
    return {"best IoU": torch.tensor(best, device=device), "AP": torch.tensor(precision, device=device)}


def _scores(overlaps: Tensor, scores: Tensor) -> tuple[float, float]:
    if overlaps.shape[1] == 0:
        return float("nan"), float("nan")
    sure = overlaps[scores >= SURE]
    best = float(sure.amax(0).mean()) if len(sure) else 0.0
    matches = Matches.of(overlaps.double().cpu().numpy(), scores.double().cpu().numpy())
    return best, float(average_precision([matches]).mean())


def to_cells(
    outputs: dict[str, Tensor],
    geometry: Geometry,
    classes: Sequence[str],
    threshold: float,
    *,
    least_score: float = SURE,
) -> Cells:
    """The cells of one image, each pasted at its exact box at the image's size; they may overlap.

    Parameters
    ----------
    outputs
        ``boxes`` (D, 4), ``scores`` (D,) and ``cell_logits`` (D, S, S).
    classes
        Not used: "cell 1" is the cell with the highest score.
    threshold
        Probability from which a pixel belongs to a cell.
    least_score
        Cells with a lower score, and empty ones, are left out.
    """
    sure = outputs["scores"] >= least_score
    boxes = in_image(outputs["boxes"][sure].float(), geometry)
    pasted = paste(torch.sigmoid(outputs["cell_logits"][sure].float()), boxes, geometry.image_hw).cpu().numpy()
    masks = pasted >= threshold
    there = masks.any((1, 2))
    scores = outputs["scores"][sure].float().cpu().numpy()
    return Cells(masks[there], pasted[there], scores[there])


def in_image(boxes: Tensor, geometry: Geometry) -> Tensor:
    """Boxes (n, 4) of the network's input in the image's pixels; edges are half a pixel away from centers."""
    corners = boxes.cpu().double().reshape(-1, 2).flip(1).numpy()
    moved = geometry.to_image(corners - 0.5) + 0.5
    return torch.from_numpy(moved).flip(1).reshape(-1, 4).to(boxes)
