"""The values passed between modules: the image of an embryo and what was found in it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

AXES = ("YX", "TYX", "FYX", "TFYX")
"""Axes supported everywhere: T time, F focal plane, Y, X."""

EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class EmbryoImage:
    """A gray image, a time-lapse, a focal stack, or both.

    Parameters
    ----------
    data
        NumPy or dask array, one dimension per axis; gray values of any real dtype.
    axes
        One of ``AXES``.
    name
        Name of the image; the stem of the file names of all results.
    pixel_size_um
        Height and width of a pixel in micrometers, if known.
    hours
        Hours after insemination (or since the start), one per T, if known.
    focus_um
        Height of each focal plane in micrometers, one per F, if known.
    metadata
        Further information from the reader: source, the original RGB, well, date, missing runs.
    """

    data: Any
    axes: str
    name: str
    pixel_size_um: tuple[float, float] | None = None
    hours: tuple[float, ...] | None = None
    focus_um: tuple[float, ...] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.axes not in AXES:
            raise ValueError(f"{self.name}: axes {self.axes!r} are not supported; use one of {', '.join(AXES)}")
        if len(self.axes) != self.data.ndim:
            raise ValueError(
                f"{self.name}: an array of shape {tuple(self.data.shape)} does not have the axes {self.axes!r}"
            )
        _check_per_axis(self, "T", self.hours, "hours")
        _check_per_axis(self, "F", self.focus_um, "focus_um")
        if self.pixel_size_um is not None and not all(isfinite(s) and s > 0 for s in self.pixel_size_um):
            raise ValueError(f"{self.name}: pixel size {self.pixel_size_um} um must be positive")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    @property
    def sizes(self) -> dict[str, int]:
        """Axis letter -> length."""
        return dict(zip(self.axes, self.shape, strict=True))

    @property
    def n_planes(self) -> int:
        """Number of two-dimensional planes."""
        return int(np.prod(self.shape[:-2], dtype=int))

    def planes(self) -> Iterator[tuple[tuple[int, ...], npt.NDArray[Any]]]:
        """Every plane with its index into the leading axes, read one at a time."""
        for index in np.ndindex(self.shape[:-2]):
            yield index, np.asarray(self.data[index])

    def with_data(self, data: Any, **changes: Any) -> "EmbryoImage":
        """The same image with other pixels."""
        return replace(self, data=data, **changes)


def _check_per_axis(image: EmbryoImage, axis: str, values: tuple[float, ...] | None, what: str) -> None:
    if values is not None and len(values) != image.sizes.get(axis, 0):
        raise ValueError(
            f"{image.name}: {len(values)} {what} for {image.sizes.get(axis, 0)} entries along {axis}; "
            "one each is needed"
        )


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of an embryo found in one plane, at the plane's own size.

    Parameters
    ----------
    classes
        Names of the parts; ``masks[i]`` and ``probabilities[i]`` belong to ``classes[i]``.
    masks
        (C, H, W) bool; masks of different classes may overlap.
    probabilities
        (C, H, W) float32 in [0, 1].
    numbers
        Scalar results (ratios).
    on_top
        Classes that are parts of others, such as fragments of the embryo, and are always visible in labels.
    """

    classes: tuple[str, ...]
    masks: npt.NDArray[np.bool_]
    probabilities: npt.NDArray[np.float32]
    numbers: Mapping[str, float] = field(default_factory=dict)
    on_top: tuple[str, ...] = ()

    def labels(self) -> npt.NDArray[np.uint8]:
        """(H, W) uint8: 0 background, i + 1 for ``classes[i]``; where masks overlap, the more probable class.

        A class ``on_top`` covers the others.
        """
        lifted = np.array([name in self.on_top for name in self.classes], np.float32).reshape(-1, 1, 1)
        return _labels(self.masks, self.probabilities + lifted)


@dataclass(frozen=True, eq=False)
class Cells:
    """The single cells found in one plane, at the plane's own size.

    Parameters
    ----------
    masks
        (N, H, W) bool; complete silhouettes, which overlap. There may be none.
    probabilities
        (N, H, W) float32 in [0, 1].
    scores
        (N,) float32 in [0, 1], the confidence of the network in each.
    """

    masks: npt.NDArray[np.bool_]
    probabilities: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the cells: "cell 1", "cell 2", ..."""
        return cell_names(len(self.masks))

    def labels(self) -> npt.NDArray[np.uint8]:
        """(H, W) uint8: 0 background, i + 1 for cell i + 1; where cells overlap, the more probable one."""
        return _labels(self.masks, self.probabilities)


Finding = Parts | Cells
"""What a network found in one plane."""


def _labels(masks: npt.NDArray[np.bool_], ranks: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """(C, H, W) masks -> (H, W): 0 background, i + 1 where mask i has the highest rank."""
    labels = np.zeros(masks.shape[1:], np.uint8)
    highest = np.full(labels.shape, -1.0, np.float32)
    for label, (mask, rank) in enumerate(zip(masks, ranks, strict=True), start=1):
        wins = mask & (rank > highest)
        labels[wins] = label
        highest[wins] = rank[wins]
    return labels


def as_parts(finding: Finding) -> Parts:
    """Narrow a finding to parts of an embryo.

    Raises
    ------
    TypeError
        If single cells were found.
    """
    if not isinstance(finding, Parts):
        raise TypeError("parts of an embryo are needed, but single cells were found")
    return finding


def as_cells(finding: Finding) -> Cells:
    """Narrow a finding to single cells.

    Raises
    ------
    TypeError
        If parts of an embryo were found.
    """
    if not isinstance(finding, Cells):
        raise TypeError(f"single cells are needed, but {', '.join(finding.classes)} were found")
    return finding


def cell_names(count: int) -> tuple[str, ...]:
    """The names of ``count`` cells, from "cell 1" up."""
    return tuple(f"cell {number}" for number in range(1, count + 1))


@dataclass(frozen=True, eq=False)
class Progress:
    """One step of long work, yielded by every generator of the program.

    ``item`` is what this step produced, so that a consumer can use it at once and memory stays flat.
    """

    done: int
    total: int
    message: str
    item: Any = None
