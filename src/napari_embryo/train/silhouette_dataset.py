"""Training data of a shape code: single cells, cropped by jittered boxes such as a detector proposes."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_embryo.augment import TrainingSet
from napari_embryo.data import Sample, Truth
from napari_embryo.models.boxes import boxes_of, crop_masks, grown, jitter
from napari_embryo.models.shapecode import GROW, codes_in_use, score
from napari_embryo.settings import Augmentation, Preprocessing

if TYPE_CHECKING:
    import pandas as pd

_ROOM = 0.5
"""Margin kept around a cell, as a fraction of its sides; a jittered box reaches no further."""
_HIDDEN = (0.1, 0.5)
"""Smallest and largest fraction of a cell that is hidden."""
COMPLETED, COMPLETED_IOU = 0.5, 0.7
"""Fraction of ``hide`` that uses a box grown from the visible part, and its jitter, as in shapecode.complete."""

_AT_ONCE = 256

Bools = npt.NDArray[np.bool_]


def of_cells(samples: Sequence[Sample]) -> list[Sample]:
    """One sample per cell: ``cells`` holds its silhouette, then those overlapping it; ``image`` shows the first.

    Every image is read once; one bit per pixel is kept around each cell.

    Parameters
    ----------
    samples
        Images with cells; an image without any yields no sample.

    Returns
    -------
    list of Sample
        Named ``IMAGE cell 1`` and so on, with the embryo and source of the image.
    """
    return [cell for sample in samples for cell in _cells_of(sample)]


def _cells_of(sample: Sample) -> Iterator[Sample]:
    cells = sample.read().cells
    for number, cell in enumerate(cells):
        if cell.any():
            kept = _around(cells, number)
            load = partial(_unpacked, np.packbits(kept), kept.shape)
            yield Sample(f"{sample.name} cell {number + 1}", sample.embryo, sample.source, load)


def _around(cells: Bools, number: int) -> Bools:
    """(K, h, w): a cell and those overlapping it, cropped around the first."""
    rows, columns = (_stretch(cells[number].any(axis=axis)) for axis in (1, 0))
    near = cells[:, rows, columns]
    own = near[number]
    others = [mask for i, mask in enumerate(near) if i != number and (mask & own).any()]
    return np.stack([own, *others])


def _stretch(line: Bools) -> slice:
    """Range of the marked rows or columns, with a margin on both sides."""
    marked = np.flatnonzero(line)
    room = 1 + int(_ROOM * (marked[-1] + 1 - marked[0]))
    return slice(max(0, int(marked[0]) - room), int(marked[-1]) + 1 + room)


def _unpacked(bits: npt.NDArray[np.uint8], shape: tuple[int, int, int]) -> Truth:
    cells = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)
    return Truth(cells[0].astype(np.uint8) * 255, cells[:1], np.ones(1, bool), cells)


class Silhouettes(TrainingSet):
    """Cells as binary squares; item ``i`` of epoch ``e`` is the same in every run, process and order.

    Parameters
    ----------
    samples
        From :func:`of_cells`.
    side
        Side of the square in pixels.
    augmentation
        ``flips``, quarter turns if ``rotation`` allows them, and ``hide``; None leaves cells unchanged. The box is
        always jittered (IoU of at least 0.5 with the cell's own), like a detector's proposals; if parts are hidden, it
        is often one grown from the visible part, as in :func:`napari_embryo.models.shapecode.complete`.
    seed
        Random seed of the boxes and the augmentation.
    """

    def __init__(
        self, samples: Sequence[Sample], side: int, augmentation: Augmentation | None = None, seed: int = 0
    ) -> None:
        super().__init__(samples, Preprocessing(height=side, width=side, fit="stretch"), augmentation, seed)
        self.side = side

    def item(self, epoch: int, index: int) -> dict[str, Tensor]:
        """``image`` (1, side, side) float, the visible part; ``masks`` the whole cell; ``valid``; ``known`` (1,)."""
        rng = np.random.default_rng((self.seed, epoch, index))
        cells = self.read(index).cells
        squares = self._cut(cells[0], self._seen(cells, rng), rng)
        if self.augmentation is not None:
            squares = _turned(squares, self.augmentation, rng)
        seen, whole = squares[:1], squares[1:]
        return {
            "image": seen,
            "masks": whole.bool(),
            "valid": torch.ones_like(whole, dtype=torch.bool),
            "known": torch.ones(1, dtype=torch.bool),
        }

    def _seen(self, cells: Bools, rng: np.random.Generator) -> Bools:
        """The visible part of the first cell."""
        seen: Bools = cells[0]
        return seen & ~_cover(cells, rng) if self._hides(rng, 1.0) else seen

    def _hides(self, rng: np.random.Generator, share: float) -> bool:
        return self.augmentation is not None and rng.random() < share * self.augmentation.hide

    def _cut(self, whole: Bools, seen: Bools, rng: np.random.Generator) -> Tensor:
        """(2, side, side): the visible part and the whole cell, in a box of the whole or in one as for completing."""
        masks = torch.from_numpy(np.stack((seen, whole)))
        chance = torch.Generator().manual_seed(int(rng.integers(2**62)))
        if self._hides(rng, COMPLETED):
            box = jitter(grown(boxes_of(masks[:1]), GROW), chance, COMPLETED_IOU)
        else:
            box = jitter(boxes_of(masks[1:]), chance)
        return crop_masks(masks, box.expand(2, 4), self.side)


def _turned(squares: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    turns, left_right, up_down = int(rng.integers(4)), rng.random() < 0.5, rng.random() < 0.5
    mirrored = [axis for axis, wanted in ((-1, left_right), (-2, up_down)) if wanted and how.flips]
    turned = torch.rot90(squares, turns, (-2, -1)) if how.rotation >= 90 else squares
    return turned.flip(mirrored).contiguous()


def _cover(cells: Bools, rng: np.random.Generator) -> Bools:
    """(h, w): what hides part of the first cell; half the time another cell, if one hides enough."""
    cell, others = cells[0], cells[1:]
    least, most = _HIDDEN
    fitting = [other for other in others if least <= (other & cell).sum() / cell.sum() <= most]
    if fitting and rng.random() < 0.5:
        chosen: Bools = fitting[rng.integers(len(fitting))]
        return chosen
    return _half_plane(cell, float(rng.uniform(least, most)), float(rng.uniform(0, 2 * np.pi)))


def _half_plane(cell: Bools, share: float, angle: float) -> Bools:
    """The side of a straight line that cuts off this fraction of a cell."""
    ys, xs = np.indices(cell.shape)
    height = ys * np.sin(angle) + xs * np.cos(angle)
    beyond: Bools = height > np.quantile(height[cell], 1 - share)
    return beyond


@torch.no_grad()
def draw_back(model: Any, samples: Sequence[Sample]) -> "tuple[pd.DataFrame, float, float]":
    """How accurately a shape code reconstructs silhouettes in jittered boxes.

    Parameters
    ----------
    model
        A :class:`~napari_embryo.models.shapecode.ShapeCode`, on any device.
    samples
        Images with cells.

    Returns
    -------
    tuple
        One row per cell (``image``, ``embryo``, ``source``, ``iou``); the fraction of the codes in use, and their
        perplexity.

    Raises
    ------
    ValueError
        If no cell is annotated.
    """
    import pandas as pd

    cells = of_cells(samples)
    if not cells:
        raise ValueError(f"none of the {len(samples)} images has an outlined cell; give images of outlined cells")
    items = Silhouettes(cells, model.settings.side)
    device = model.codebook.codes.device
    ious, indices = [], []
    for first in range(0, len(cells), _AT_ONCE):
        each = [items[i] for i in range(first, min(first + _AT_ONCE, len(cells)))]
        batch = {name: torch.stack([item[name] for item in each]).to(device) for name in ("image", "masks", "valid")}
        outputs = model.eval()(batch["image"])
        ious.append(score(outputs, batch, ("cell",))["IoU"].cpu())
        indices.append(outputs["indices"].cpu())
    rows = [{"image": cell.name, "embryo": cell.embryo, "source": cell.source} for cell in cells]
    share, perplexity = codes_in_use(torch.cat(indices), model.settings.codes)
    return pd.DataFrame(rows).assign(iou=torch.cat(ious).numpy()), share, perplexity
