"""An annotated picture: what a source knows of it, read when it is needed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from napari_embryo.families import FRAGMENT_CLASSES
from napari_embryo.geometry import Box

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Truth:
    """What is drawn on one picture, in memory.

    Parameters
    ----------
    image
        (H, W) gray, any real dtype.
    masks
        (C, H, W) bool in the order of the classes asked for.
    known
        (C,) bool: False where the class was not drawn, which is not the same as empty.
    cells
        (N, H, W) bool: complete (amodal) silhouettes, also where hidden; N may be 0.
    visible
        (N, H, W) bool: the parts of the cells that are seen, where the source tells them.
    ratio
        Fragmentation ratio in [0, 1], where the source gives one.
    grade
        Image-level grade, where the source gives one: a weak label.
    """

    image: npt.NDArray[Any]
    masks: Bools
    known: Bools
    cells: Bools
    visible: Bools | None = None
    ratio: float | None = None
    grade: str | None = None

    def __post_init__(self) -> None:
        _check_shapes(self)

    @property
    def box(self) -> Box:
        """The smallest box around everything drawn; the whole picture where nothing is."""
        drawn = self.masks.any(axis=0) | self.cells.any(axis=0)
        if not drawn.any():
            return 0, 0, self.image.shape[0], self.image.shape[1]
        ys, xs = np.nonzero(drawn)
        return int(ys.min()), int(xs.min()), int(ys.max()) + 1, int(xs.max()) + 1


def _check_shapes(truth: Truth) -> None:
    hw = truth.image.shape
    if len(hw) != 2:
        raise ValueError(f"an image of shape {hw} came; needed is a single gray picture (height, width)")
    for what, drawn in (("masks", truth.masks), ("cells", truth.cells), ("visible", truth.visible)):
        if drawn is not None and (drawn.ndim != 3 or drawn.shape[1:] != hw):
            raise ValueError(f"{what} of shape {drawn.shape} do not fit the image of {hw[0]} x {hw[1]} pixels")
    if truth.known.shape != truth.masks.shape[:1]:
        raise ValueError(f"known of shape {truth.known.shape} for {len(truth.masks)} classes; one each is needed")
    if truth.visible is not None and len(truth.visible) != len(truth.cells):
        raise ValueError(f"{len(truth.visible)} visible parts for {len(truth.cells)} cells; one each is needed")


@dataclass(frozen=True, eq=False)
class Sample:
    """One annotated picture; light, picklable, its pixels are read when asked for.

    Parameters
    ----------
    name
        File stem.
    embryo
        What must stay on one side of a split: the patient where known, else the embryo.
    source
        The folder it came from, for tables by kind of image.
    load
        Reads it; a ``functools.partial`` of a module's function, so that another process can.
    """

    name: str
    embryo: str
    source: str
    load: Callable[[], Truth]

    def read(self) -> Truth:
        """Picture and drawing, read now.

        Raises
        ------
        ValueError
            When a file is not what it was taken for.
        FileNotFoundError
            When a file has gone.
        """
        return self.load()

    @classmethod
    def of(
        cls,
        name: str,
        image: npt.NDArray[Any],
        masks: Bools,
        known: Bools | None = None,
        embryo: str | None = None,
        source: str = "memory",
        *,
        cells: Bools | None = None,
        visible: Bools | None = None,
        ratio: float | None = None,
        grade: str | None = None,
    ) -> Self:
        """From arrays already in memory; every class is known and the embryo is the name where nothing is said."""
        known = np.ones(len(masks), bool) if known is None else np.asarray(known, bool)
        truth = Truth(image, masks, known, no_cells(image) if cells is None else cells, visible, ratio, grade)
        return cls(name, name if embryo is None else embryo, source, partial(_kept, truth))


def _kept(truth: Truth) -> Truth:
    return truth


def with_embryo(load: Callable[[], Truth], classes: tuple[str, ...]) -> Truth:
    """What ``load`` reads, its embryo made of its parts: the area of cells or fragments (our decision).

    Where cells are drawn or an embryo is, the embryo is known.
    """
    truth = load()
    fragment, embryo = (classes.index(name) for name in FRAGMENT_CLASSES)
    masks, known = truth.masks.copy(), truth.known.copy()
    masks[embryo] |= masks[fragment] | truth.cells.any(axis=0)
    known[embryo] |= len(truth.cells) > 0
    return replace(truth, masks=masks, known=known)


def fragmentation_ratio(truth: Truth, classes: Sequence[str]) -> float | None:
    """Share of the embryo's area that is fragments where both are drawn, else the ratio told; None where neither is."""
    if not set(FRAGMENT_CLASSES) <= set(classes):
        return truth.ratio
    fragment, embryo = (classes.index(name) for name in FRAGMENT_CLASSES)
    area = int(truth.masks[embryo].sum())
    is_drawn = area and truth.known[fragment] and truth.known[embryo]
    return int(truth.masks[fragment].sum()) / area if is_drawn else truth.ratio


def no_cells(image: npt.NDArray[Any]) -> Bools:
    """(0, H, W): a picture on which no cell is drawn."""
    return np.zeros((0, *image.shape), bool)


@dataclass(frozen=True)
class Skipped:
    """A file that is not used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Contents:
    """What a picture holds, without its pixels: for reports."""

    known: tuple[bool, ...]
    cells: int
    graded: bool
    ratio: float | None = None

    @classmethod
    def of(cls, truth: Truth, classes: Sequence[str] = ()) -> Self:
        graded = truth.grade is not None or truth.ratio is not None
        return cls(tuple(map(bool, truth.known)), len(truth.cells), graded, fragmentation_ratio(truth, classes))


@dataclass(frozen=True, eq=False)
class Found:
    """What lies in the folders; ``contents`` is what was seen when each sample was checked."""

    samples: tuple[Sample, ...]
    skipped: tuple[Skipped, ...] = ()
    contents: Mapping[Sample, Contents] = field(default_factory=dict)
