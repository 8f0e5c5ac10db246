"""Crop masks to boxes, paste them back, and measure and jitter boxes, all in the same coordinates.

A box is (x1, y1, x2, y2) in pixels, given by edges, not centers: pixel i covers [i, i + 1), so the box of a whole image
is (0, 0, width, height). Nothing is rounded to whole pixels (docs/decisions.md, "Aligned boxes and exact pasting").
"""

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.ops import roi_align

CANDIDATES = 32
"""Attempts per jittered box. At an IoU of 0.5 a fifth of the strongest jitters overlap enough, so that one box in a
thousand of these is left unchanged."""


def crop_areas(masks: Tensor, boxes: Tensor, side: int, which: Tensor | None = None) -> Tensor:
    """Crop every mask to its box and resize it to a square: the share of each pixel of the square covered by the mask.

    This is what a mask head learns, as in Mask R-CNN: cropped and pasted back, a cell keeps an IoU of 99.4 % at 28
    pixels, or 97 % if the square is thresholded at 0.5.

    Parameters
    ----------
    masks
        (N, h, w), bool or in [0, 1]; empty outside of the image.
    boxes
        (N, 4), float; they may extend beyond the image.
    side
        Side of the square in pixels.
    which
        (N,) int64 if ``masks`` are (G, h, w): the mask of each box, for many boxes that share few masks.

    Returns
    -------
    Tensor
        (N, side, side) float32 in [0, 1].

    Raises
    ------
    ValueError
        If ``which`` is not given and there are not as many masks as boxes.
    """
    if which is None and len(masks) != len(boxes):
        raise ValueError(
            f"{len(masks)} masks and {len(boxes)} boxes were given; give every box a mask, or say which mask is whose"
        )
    if not len(boxes):
        return boxes.new_zeros((0, side, side), dtype=torch.float32)
    index = torch.arange(len(boxes), device=boxes.device) if which is None else which
    # the empty border keeps roi_align from repeating the outermost pixels beyond the edge of the image
    framed = pad(masks.float(), (1, 1, 1, 1))[:, None]
    rows = torch.cat((index[:, None].float(), boxes.float() + 1), 1)
    areas: Tensor = roi_align(framed, rows, (side, side), sampling_ratio=-1, aligned=True)
    return areas[:, 0].clamp(0, 1)


def crop_masks(masks: Tensor, boxes: Tensor, side: int, which: Tensor | None = None) -> Tensor:
    """Like :func:`crop_areas`, but (N, side, side) float32 in {0, 1}: 1 where at least half of a pixel is mask.

    This is the input of the shape code.
    """
    return (crop_areas(masks, boxes, side, which) >= 0.5).float()


def paste(probabilities: Tensor, boxes: Tensor, hw: tuple[int, int]) -> Tensor:
    """Paste squares at their boxes into empty images by bilinear interpolation; the inverse of :func:`crop_areas`.

    Equivalent to ``grid_sample`` of pixel centers without aligned corners and with zeros outside, but with one weight
    per row and column, so that no grid of a large image is held in memory.

    Parameters
    ----------
    probabilities
        (N, S, S) in [0, 1].
    boxes
        (N, 4); one without an area gives an empty image.
    hw
        Height and width of the image.

    Returns
    -------
    Tensor
        (N, h, w) float32. Beyond its box a square fades to 0 within half of one of its pixels.
    """
    if len(probabilities) != len(boxes):
        raise ValueError(f"{len(probabilities)} squares and {len(boxes)} boxes were given; every square needs its box")
    with torch.autocast(probabilities.device.type, enabled=False):
        squares, edges = probabilities.float(), boxes.float()
        rows = _weights(edges[:, 1], edges[:, 3], squares.shape[1], hw[0])
        columns = _weights(edges[:, 0], edges[:, 2], squares.shape[2], hw[1])
        return rows @ squares @ columns.transpose(1, 2)


def _weights(low: Tensor, high: Tensor, size: int, pixels: int) -> Tensor:
    """Weight of each of the square's ``size`` lines for every pixel: (N, pixels, size)."""
    length = high - low
    centers = torch.arange(pixels, device=low.device) + 0.5
    place = (centers - low[:, None]) / length.clamp_min(1e-6)[:, None] * size - 0.5
    away = (place[:, :, None] - torch.arange(size, device=low.device)).abs()
    return (1 - away).clamp_min(0) * (length > 0)[:, None, None]


def boxes_of(masks: Tensor) -> Tensor:
    """The smallest box (N, 4) float32 around each mask (N, h, w); zeros for an empty mask."""
    drawn = masks.bool()
    columns, rows = drawn.any(1), drawn.any(2)
    (left, right), (top, bottom) = _ends(columns), _ends(rows)
    return torch.stack((left, top, right, bottom), 1).float()


def _ends(lines: Tensor) -> tuple[Tensor, Tensor]:
    """Start and end of the marked part of each line (N, n)."""
    at = torch.arange(lines.shape[1], device=lines.device)
    first = torch.where(lines, at, lines.shape[1]).amin(1)
    end = torch.where(lines, at + 1, 0).amax(1)
    return torch.where(end > 0, first, 0), end


def grown(boxes: Tensor, share: float) -> Tensor:
    """Boxes (N, 4) enlarged by ``share`` of their size on each side."""
    more = share * (boxes[:, 2:] - boxes[:, :2])
    return torch.cat((boxes[:, :2] - more, boxes[:, 2:] + more), 1)


def jitter(boxes: Tensor, generator: torch.Generator, least_iou: float = 0.5) -> Tensor:
    """Jitter boxes (N, 4) like a detector's proposals: every edge is moved, at most as far as ``least_iou`` allows.

    Edges move by up to ``1 - least_iou`` of the box's size, times a random strength for each box (docs/decisions.md,
    "Jittered boxes"). They may extend beyond the image. The same state of the generator gives the same boxes.
    """
    if not 0 < least_iou <= 1:
        raise ValueError(f"least_iou = {least_iou} was given; it must be above 0 and at most 1")
    given = boxes.float()
    shape, device = (CANDIDATES, *given.shape), generator.device
    strength = torch.rand((len(given), 1), generator=generator, device=device)
    noise = strength * (2 * torch.rand(shape, generator=generator, device=device) - 1)
    sizes = (given[:, 2:] - given[:, :2]).repeat(1, 2)
    tried = given + (1 - least_iou) * noise.to(given.device) * sizes
    fits = _paired_iou(tried, given) >= least_iou
    first = tried[fits.float().argmax(0), torch.arange(len(given), device=given.device)]
    return torch.where(fits.any(0)[:, None], first, given)


def _paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU (...) of each box (..., 4) with its counterpart; NaN if both have no area."""
    low, high = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    both = (high - low).clamp_min(0).prod(-1)
    return both / (_area(boxes) + _area(others) - both)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)
