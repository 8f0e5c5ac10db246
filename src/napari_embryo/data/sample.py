"""An annotated picture and what its source says about it, read when it is needed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from napari_embryo.data.labels import with_suggestion
from napari_embryo.families import FRAGMENT_CLASSES
from napari_embryo.geometry import Box

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Remark:
    """Something that a reader changed or left out, to be listed in the report.

    Parameters
    ----------
    kind
        What happened; the report has one line for each kind.
    what
        To what it happened, such as a label.
    """

    kind: str
    what: str


UNUSED = "labels that are no class here were not used"


def unused_labels(written: Iterable[str], classes: Iterable[str]) -> tuple[Remark, ...]:
    """Remarks on labels that a reader does not know, as they are written in the file."""
    asked = tuple(classes)
    return tuple(Remark(UNUSED, with_suggestion(label, asked)) for label in dict.fromkeys(written))


@dataclass(frozen=True, eq=False)
class Truth:
    """The annotations of one image, in memory.

    Parameters
    ----------
    image
        (H, W) gray, any real dtype.
    masks
        (C, H, W) bool, in the order of the requested classes.
    known
        (C,) bool: False where the class was not annotated, which is not the same as absent.
    cells
        (N, H, W) bool: complete (amodal) silhouettes, including hidden parts; N may be 0.
    visible
        (N, H, W) bool: the visible parts of the cells, if the source gives them.
    ratio
        Fragmentation ratio in [0, 1], if the source gives one.
    grade
        Image-level grade, if the source gives one: a weak label.
    is_blank
        The picture has an annotation, but nothing is drawn in it. This may mean that nobody has drawn yet.
    is_empty
        The picture is known to show no embryo: every class is known and none is there.
    remarks
        What the reader changed or left out.
    """

    image: npt.NDArray[Any]
    masks: Bools
    known: Bools
    cells: Bools
    visible: Bools | None = None
    ratio: float | None = None
    grade: str | None = None
    is_blank: bool = False
    is_empty: bool = False
    remarks: tuple[Remark, ...] = ()

    def __post_init__(self) -> None:
        _check_shapes(self)

    @property
    def box(self) -> Box:
        """The smallest box around all annotations; the whole image if there are none."""
        drawn = self.masks.any(axis=0) | self.cells.any(axis=0)
        if not drawn.any():
            return 0, 0, self.image.shape[0], self.image.shape[1]
        ys, xs = np.nonzero(drawn)
        return int(ys.min()), int(xs.min()), int(ys.max()) + 1, int(xs.max()) + 1


def _check_shapes(truth: Truth) -> None:
    hw = truth.image.shape
    if len(hw) != 2:
        raise ValueError(f"the image has the shape {hw}, but a single gray image (height, width) is needed")
    for what, drawn in (("masks", truth.masks), ("cells", truth.cells), ("visible", truth.visible)):
        if drawn is not None and (drawn.ndim != 3 or drawn.shape[1:] != hw):
            raise ValueError(f"{what} of shape {drawn.shape} do not fit the image of {hw[0]} x {hw[1]} pixels")
    if truth.known.shape != truth.masks.shape[:1]:
        raise ValueError(
            f"known has the shape {truth.known.shape}, but one value is needed for each of {len(truth.masks)} classes"
        )
    if truth.visible is not None and len(truth.visible) != len(truth.cells):
        raise ValueError(f"{len(truth.visible)} visible parts for {len(truth.cells)} cells; each cell needs one")


@dataclass(frozen=True, eq=False)
class Sample:
    """One annotated picture; it is light and picklable, and its pixels are read on request.

    Parameters
    ----------
    name
        File stem.
    embryo
        What must stay on one side of a split: the patient if known, otherwise the embryo.
    source
        The folder it was found in, for tables by source.
    load
        Reads it; a ``functools.partial`` of a module's function, so that another process can call it.
    """

    name: str
    embryo: str
    source: str
    load: Callable[[], Truth]

    def read(self) -> Truth:
        """Read the picture and what is drawn on it.

        Raises
        ------
        ValueError
            If a file is not of the expected kind.
        FileNotFoundError
            If a file no longer exists.
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
        """Make a sample of arrays; by default every class is known and the embryo has the name of the picture."""
        known = np.ones(len(masks), bool) if known is None else np.asarray(known, bool)
        truth = Truth(image, masks, known, no_cells(image) if cells is None else cells, visible, ratio, grade)
        return cls(name, name if embryo is None else embryo, source, partial(_kept, truth))


def _kept(truth: Truth) -> Truth:
    return truth


def with_embryo(truth: Truth, classes: Sequence[str]) -> Truth:
    """The same drawing with the embryo made of its parts: the area of all cells and fragments.

    The embryo is known where it is drawn itself or where cells are drawn; fragments alone do not tell it.
    """
    fragment, embryo = (classes.index(name) for name in FRAGMENT_CLASSES)
    masks, known = truth.masks.copy(), truth.known.copy()
    known[embryo] |= len(truth.cells) > 0
    if known[embryo]:
        masks[embryo] |= masks[fragment] | truth.cells.any(axis=0)
    return replace(truth, masks=masks, known=known)


def fragmentation_ratio(truth: Truth, classes: Sequence[str]) -> float | None:
    """Share of fragments in the embryo's area if both are annotated, otherwise the given ratio, or None."""
    if not set(FRAGMENT_CLASSES) <= set(classes):
        return truth.ratio
    fragment, embryo = (classes.index(name) for name in FRAGMENT_CLASSES)
    area = int(truth.masks[embryo].sum())
    is_drawn = area and truth.known[fragment] and truth.known[embryo]
    return int(truth.masks[fragment].sum()) / area if is_drawn else truth.ratio


def no_cells(image: npt.NDArray[Any]) -> Bools:
    """(0, H, W): the cells of a picture on which none is drawn."""
    return np.zeros((0, *image.shape), bool)


@dataclass(frozen=True)
class Skipped:
    """A file that is not used, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class Contents:
    """What a picture holds, without its pixels: for reports."""

    known: tuple[bool, ...]
    cells: int
    graded: bool
    ratio: float | None = None
    empty: bool = False
    remarks: tuple[Remark, ...] = ()

    @classmethod
    def of(cls, truth: Truth, classes: Sequence[str] = ()) -> Self:
        graded = truth.grade is not None or truth.ratio is not None
        ratio = fragmentation_ratio(truth, classes)
        return cls(tuple(map(bool, truth.known)), len(truth.cells), graded, ratio, truth.is_empty, truth.remarks)


def empty_truth(image: npt.NDArray[Any], classes: Sequence[str]) -> Truth:
    """A picture that is known to show no embryo: nothing of any class is there."""
    masks = np.zeros((len(classes), *image.shape), bool)
    return Truth(image, masks, np.ones(len(classes), bool), no_cells(image), is_empty=True)


@dataclass(frozen=True, eq=False)
class Found:
    """What the folders hold.

    Parameters
    ----------
    samples
        The usable pictures.
    skipped
        The other ones.
    contents
        What each sample was seen to hold when it was checked.
    notes
        What a user should know about how the folders were read, one line for each kind of remark.
    """

    samples: tuple[Sample, ...]
    skipped: tuple[Skipped, ...] = ()
    contents: Mapping[Sample, Contents] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
