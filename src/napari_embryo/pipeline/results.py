"""What comes of one picture, and of one image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from napari_embryo.explain import AttentionMap
from napari_embryo.image import EmbryoImage, Segmentation

Row = dict[str, str | int | float | None]
Index = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class PlaneResult:
    """What was found in one picture of an image; ``index`` is its place along the leading axes."""

    index: Index
    plane: npt.NDArray[Any]
    segmentation: Segmentation
    maps: tuple[AttentionMap, ...]
    rows: list[Row]


@dataclass(frozen=True)
class PlaneFailure:
    """A picture that could not be done, and why; the others are."""

    index: Index
    reason: str


@dataclass(frozen=True, eq=False)
class ImageResult:
    """One image is done: the rows of its table and the files that were written, or why it could not be done."""

    image: EmbryoImage
    rows: list[Row]
    reason: str | None = None
    files: tuple[Path, ...] = ()


def picture_said(image: EmbryoImage, index: Index, total: int) -> str:
    """A picture of an image of so many, in words."""
    return (
        f"{image.name} {', '.join(f'{a} {i}' for a, i in zip(image.axes, index, strict=False))}"
        if total > 1
        else image.name
    )
