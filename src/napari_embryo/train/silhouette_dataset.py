"""What a shape code learns from: single cells, cut out by shaken boxes, as a detector will propose them."""

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
"""Kept around a cell, as a share of its sides: a shaken box reaches no further."""
_HIDDEN = (0.1, 0.5)
"""The least and the largest share of a cell that is hidden."""
COMPLETED, COMPLETED_IOU = 0.5, 0.7
"""How much of ``hide`` sees a cell in a box grown from what is seen, shaken so far, as shapecode.complete reads it."""

_AT_ONCE = 256

Bools = npt.NDArray[np.bool_]


def of_cells(samples: Sequence[Sample]) -> list[Sample]:
    """One sample per cell: ``cells`` are its silhouette and then those that overlap it, ``image`` shows the first.

    Every picture is read once; what is kept of a cell is a bit per pixel around it.

    Parameters
    ----------
    samples
        Pictures with cells; a picture without any has no such sample.

    Returns
    -------
    list of Sample
        Named ``PICTURE cell 1`` and so on, of the picture's embryo and source.
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
    """(K, h, w): a cell and those that overlap it, in the first one's neighborhood."""
    rows, columns = (_stretch(cells[number].any(axis=axis)) for axis in (1, 0))
    near = cells[:, rows, columns]
    own = near[number]
    others = [mask for i, mask in enumerate(near) if i != number and (mask & own).any()]
    return np.stack([own, *others])


def _stretch(line: Bools) -> slice:
    """Where a line is marked, with room on both sides."""
    marked = np.flatnonzero(line)
    room = 1 + int(_ROOM * (marked[-1] + 1 - marked[0]))
    return slice(max(0, int(marked[0]) - room), int(marked[-1]) + 1 + room)


def _unpacked(bits: npt.NDArray[np.uint8], shape: tuple[int, int, int]) -> Truth:
    cells = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)
    return Truth(cells[0].astype(np.uint8) * 255, cells[:1], np.ones(1, bool), cells)


class Silhouettes(TrainingSet):
    """Cells as squares of 0 and 1; item ``i`` of epoch ``e`` is the same in every run, process and order.

    Parameters
    ----------
    samples
        From :func:`of_cells`.
    side
        Pixels of the square.
    augmentation
        ``flips``, quarter turns where ``rotation`` allows them, ``hide``; None: as the cell lies. The box is shaken in
        any case (IoU 0.5 or more with the cell's own), as those that are proposed in use; where parts are hidden, it
        is also often one grown from the part that is seen, as :func:`napari_embryo.models.shapecode.complete` has it.
    seed
        Of the boxes and the augmentation.
    """

    def __init__(
        self, samples: Sequence[Sample], side: int, augmentation: Augmentation | None = None, seed: int = 0
    ) -> None:
        super().__init__(samples, Preprocessing(height=side, width=side, fit="stretch"), augmentation, seed)
        self.side = side

    def item(self, epoch: int, index: int) -> dict[str, Tensor]:
        """``image`` (1, side, side) float, what is seen; ``masks`` the whole cell; ``valid``; ``known`` (1,)."""
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
        """What is left of the first cell where a part is hidden."""
        seen: Bools = cells[0]
        return seen & ~_cover(cells, rng) if self._hides(rng, 1.0) else seen

    def _hides(self, rng: np.random.Generator, share: float) -> bool:
        return self.augmentation is not None and rng.random() < share * self.augmentation.hide

    def _cut(self, whole: Bools, seen: Bools, rng: np.random.Generator) -> Tensor:
        """What is seen, and the whole (2, side, side), in a box of the whole, or as a user's mask is completed."""
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
    """(h, w): what hides a part of the first cell: another cell half the time, where one hides enough."""
    cell, others = cells[0], cells[1:]
    least, most = _HIDDEN
    fitting = [other for other in others if least <= (other & cell).sum() / cell.sum() <= most]
    if fitting and rng.random() < 0.5:
        chosen: Bools = fitting[rng.integers(len(fitting))]
        return chosen
    return _half_plane(cell, float(rng.uniform(least, most)), float(rng.uniform(0, 2 * np.pi)))


def _half_plane(cell: Bools, share: float, angle: float) -> Bools:
    """Beyond a straight line that cuts off this share of a cell."""
    ys, xs = np.indices(cell.shape)
    height = ys * np.sin(angle) + xs * np.cos(angle)
    beyond: Bools = height > np.quantile(height[cell], 1 - share)
    return beyond


@torch.no_grad()
def draw_back(model: Any, samples: Sequence[Sample]) -> "tuple[pd.DataFrame, float, float]":
    """How exactly a shape code draws silhouettes that lie in shaken boxes.

    Parameters
    ----------
    model
        A :class:`~napari_embryo.models.shapecode.ShapeCode`, on any device.
    samples
        Pictures with cells.

    Returns
    -------
    tuple
        One row per cell (``image``, ``embryo``, ``source``, ``iou``); the share of the codes that they take, and the
        perplexity of these.

    Raises
    ------
    ValueError
        When no cell is drawn.
    """
    import pandas as pd

    cells = of_cells(samples)
    if not cells:
        raise ValueError(f"no cell is drawn on the {len(samples)} pictures that came; give pictures of outlined cells")
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
