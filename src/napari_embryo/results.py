"""Results of one plane and of one image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo.geometry import Geometry
from napari_embryo.image import EmbryoImage, Finding

Row = dict[str, str | int | float | None]
Index = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """Output of one attention module for one plane, on the module's grid.

    Parameters
    ----------
    name
        Name of the module.
    grid
        (h, w) float32 over the network's input, padding included.
    window
        Display range: fixed for the module, never the map's own extremes, so that a flat map looks flat.
    meaning
        One-line explanation.
    geometry
        Mapping back to the image.
    """

    name: str
    grid: npt.NDArray[np.float32]
    window: tuple[float, float]
    meaning: str
    geometry: Geometry

    def on_image(self) -> npt.NDArray[np.float32]:
        """(H, W) float32 at the image's resolution; 0 where the network did not see the image."""
        return self.geometry.grid_to_image(self.grid, outside=0.0)


@dataclass(frozen=True, eq=False)
class PlaneResult:
    """What was found in one plane of an image; ``index`` is its position along the leading axes."""

    index: Index
    plane: npt.NDArray[Any]
    finding: Finding
    maps: tuple[AttentionMap, ...]
    rows: list[Row]


@dataclass(frozen=True, eq=False)
class ImageResult:
    """Result of one image: the rows of its table and the files written, or why it could not be processed."""

    image: EmbryoImage
    rows: list[Row]
    reason: str | None = None
    files: tuple[Path, ...] = ()


def picture_said(image: EmbryoImage, index: Index, total: int) -> str:
    """Name of a plane of an image."""
    return (
        f"{image.name} {', '.join(f'{a} {i}' for a, i in zip(image.axes, index, strict=False))}"
        if total > 1
        else image.name
    )
