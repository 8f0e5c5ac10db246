"""Cells that were found in mirrored and turned views of one picture, brought together (our decision)."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from napari_embryo.families.vqamodal import VQAmodalSettings
from napari_embryo.models.boxes import crop_areas, grown, paste
from napari_embryo.models.network import View
from napari_embryo.models.vqamodal.postprocess import overlaps_of, softened

LEAST_SCORE = 0.02
"""Of a cell in a view that counts."""
SAME = 0.5
"""Least IoU of masks of one cell in two views."""
_ROOM = 0.1
"""Around the mean of the boxes of a cell, as a share of its size: masks reach beyond it where boxes differ."""

Found = tuple[Tensor, Tensor, Tensor]
"""Boxes (n, 4), scores (n,) and mask logits (n, S, S)."""


def merge_views(views: Iterable[View], hw: tuple[int, int], settings: VQAmodalSettings) -> dict[str, Tensor]:
    """The cells of every picture of a batch that its views agree on, as the network itself tells them."""
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
    """Cells of a view, where they lie in the picture itself.

    Parameters
    ----------
    found
        In the view, which is the picture, mirrored left-right or not and then turned by so many quarters, as
        ``numpy.rot90`` turns.
    turns, mirrored
        The view.
    hw
        Height and width of the picture itself.
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

    A cell is the same in two views where its masks overlap by an IoU of 0.5 or more. Its mask is the mean of theirs,
    weighted by their scores; its score the mean over all views, those that do not see it counting 0.

    Parameters
    ----------
    views
        Of :func:`turned_back`.
    hw
        Height and width of the picture.
    most
        Of :func:`napari_embryo.models.vqamodal.postprocess.softened`.
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
    """Each cell with the one of every other view that overlaps it most, the surest cells first; none twice."""
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
    """One cell's box (1, 4) and its mask (1, S, S) within."""
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
