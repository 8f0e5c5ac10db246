"""Merge the cells found in mirrored and rotated views of one image (docs/decisions.md, "Views of cells")."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from napari_embryo.families.vqamodal import VQAmodalSettings
from napari_embryo.models.boxes import crop_areas, grown, paste
from napari_embryo.models.network import View
from napari_embryo.models.vqamodal.postprocess import overlaps_of, softened

LEAST_SCORE = 0.02
"""Lowest score of a cell in a view that is used."""
SAME = 0.5
"""Lowest IoU of the masks of one cell in two views."""
_ROOM = 0.1
"""Margin around the mean of a cell's boxes, as a share of its size: masks extend beyond it if boxes differ."""

Found = tuple[Tensor, Tensor, Tensor]
"""Boxes (n, 4), scores (n,) and mask logits (n, S, S)."""


def merge_views(views: Iterable[View], hw: tuple[int, int], settings: VQAmodalSettings) -> dict[str, Tensor]:
    """The cells that the views of a batch agree on, in the form of the network's own outputs."""
    seen = list(views)
    batch, most = seen[0].outputs["scores"].shape[:2]
    pictures = [
        merged(
            [turned_back(_of_picture(view.outputs, i), view.turns, view.mirrored, hw) for view in seen],
            hw,
            settings.mask_nms,
        )
        for i in range(batch)
    ]
    return _stacked(pictures, most)


def turned_back(found: Found, turns: int, mirrored: bool, hw: tuple[int, int]) -> Found:
    """Transform the cells of a view back to the original image.

    Parameters
    ----------
    found
        Cells in the view, which is the image, mirrored left-right or not and then rotated by quarter turns like
        ``numpy.rot90``.
    turns, mirrored
        The view.
    hw
        Height and width of the original image.
    """
    boxes, scores, logits = found
    height = hw[turns % 2]
    for i in range(turns):
        left, top, right, bottom = boxes.unbind(1)
        boxes = torch.stack((height - bottom, left, height - top, right), 1)
        height = hw[(turns - i - 1) % 2]
    squares = torch.rot90(logits, -turns, (1, 2))
    if not mirrored:
        return boxes, scores, squares
    left, top, right, bottom = boxes.unbind(1)
    return torch.stack((hw[1] - right, top, hw[1] - left, bottom), 1), scores, squares.flip(2)


def merged(views: Sequence[Found], hw: tuple[int, int], most: float) -> Found:
    """The cells that the views agree on, highest score first.

    Cells of two views are the same if their masks have an IoU of at least 0.5. The mask of a cell is the mean of its
    masks, weighted by their scores; its score is the mean over all views, with 0 for views that miss it.

    Parameters
    ----------
    views
        Results of :func:`turned_back`.
    hw
        Height and width of the image.
    most
        As for :func:`napari_embryo.models.vqamodal.postprocess.softened`.
    """
    counting = [_counting(view) for view in views]
    boxes, scores, logits = (torch.cat(parts) for parts in zip(*counting, strict=True))
    whose = torch.repeat_interleave(torch.tensor([len(view[1]) for view in counting]))
    if not len(scores):
        return boxes, scores, logits
    squares = torch.sigmoid(logits.float())
    groups = _groups(overlaps_of(squares, boxes, hw), scores, whose)
    cells = [_mean(squares[group], boxes[group], scores[group], hw) for group in groups]
    around, drawn = (torch.cat(parts) for parts in zip(*cells, strict=True))
    mean = torch.stack([scores[group].sum() / len(views) for group in groups])
    mean = softened(overlaps_of(drawn, around, hw), mean, most)
    order = torch.argsort(mean, descending=True, stable=True)
    return around[order], mean[order], torch.logit(drawn[order], eps=1e-4)


def _counting(found: Found) -> Found:
    at = found[1] >= LEAST_SCORE
    return found[0][at], found[1][at], found[2][at]


def _groups(overlaps: Tensor, scores: Tensor, whose: Tensor) -> list[list[int]]:
    """Group each cell with the best-overlapping one of every other view, highest scores first, each used once."""
    free = torch.ones(len(scores), dtype=torch.bool)
    groups: list[list[int]] = []
    for i in torch.argsort(scores, descending=True, stable=True).tolist():
        if not free[i]:
            continue
        near = torch.where(free & (whose != whose[i]), overlaps[i], torch.zeros(()))
        same = [i]
        for view in whose.unique().tolist():
            own = torch.where(whose == view, near, torch.zeros(()))
            if own.max() >= SAME:
                same.append(int(own.argmax()))
        free[same] = False
        groups.append(same)
    return groups


def _mean(squares: Tensor, boxes: Tensor, scores: Tensor, hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Box (1, 4) of one cell and its mask (1, S, S) within."""
    share = scores / scores.sum()
    box = grown((boxes * share[:, None]).sum(0, keepdim=True), _ROOM)
    mask = (paste(squares, boxes, hw) * share[:, None, None]).sum(0, keepdim=True)
    return box, crop_areas(mask, box, squares.shape[-1])


def _of_picture(outputs: Mapping[str, Tensor], i: int) -> Found:
    return outputs["boxes"][i], outputs["scores"][i], outputs["cell_logits"][i]


def _stacked(pictures: Sequence[Found], count: int) -> dict[str, Tensor]:
    """As the network tells them: ``boxes`` (B, count, 4), ``scores`` and ``cell_logits``, zeros behind the last."""
    named = zip(("boxes", "scores", "cell_logits"), zip(*pictures, strict=True), strict=True)
    return {name: torch.stack([_filled(each[:count], count) for each in of]) for name, of in named}


def _filled(values: Tensor, count: int) -> Tensor:
    return torch.cat((values, values.new_zeros(count - len(values), *values.shape[1:])))
