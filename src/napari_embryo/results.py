"""What comes of one picture, and of one image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo.geometry import Geometry
from napari_embryo.image import EmbryoImage, Finding

Row = dict[str, str | int | float | None]
Index = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """What one module did to one picture, on the module's own grid.

    Parameters
    ----------
    name
        Of the module.
    grid
        (h, w) float32 over the network's input, padding included.
    window
        Range to display it in: fixed for the module, never the map's own extremes, so that a flat map looks flat.
    meaning
        One line for a reader.
    geometry
        The way back to the image.
    """

    name: str
    grid: npt.NDArray[np.float32]
    window: tuple[float, float]
    meaning: str
    geometry: Geometry

    def on_image(self) -> npt.NDArray[np.float32]:
        """(H, W) float32 in the image's pixels; 0 where the network was not shown the image."""
        return self.geometry.grid_to_image(self.grid, outside=0.0)


@dataclass(frozen=True, eq=False)
class PlaneResult:
    """What was found in one picture of an image; ``index`` is its place along the leading axes."""

    index: Index
    plane: npt.NDArray[Any]
    finding: Finding
    maps: tuple[AttentionMap, ...]
    rows: list[Row]


@dataclass(frozen=True, eq=False)
class ImageResult:
    """One image is done: the rows of its table, or why it could not be done."""

    image: EmbryoImage
    rows: list[Row]
    reason: str | None = None


def picture_said(image: EmbryoImage, index: Index, total: int) -> str:
    """A picture of an image of so many, in words."""
    return (
        f"{image.name} {', '.join(f'{a} {i}' for a, i in zip(image.axes, index, strict=False))}"
        if total > 1
        else image.name
    )
