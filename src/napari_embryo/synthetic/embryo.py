"""The result of a drawing: pixels and the exact ground truth."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Picture = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating]
Style = Literal["microscope", "incubator"]
"""microscope: one embryo fills the frame; incubator: an embryo in the bright-rimmed well of a time-lapse incubator."""

STYLES: tuple[Style, ...] = ("microscope", "incubator")

FIELD_UM: Mapping[Style, float] = MappingProxyType({"microscope": 190.0, "incubator": 275.0})
"""Length in micrometers of the shorter side of an image."""


@dataclass(frozen=True, eq=False)
class SyntheticEmbryo:
    """A drawn embryo and its ground truth; every mask is exact, drawn from the same curves as the pixels.

    Parameters
    ----------
    image
        (H, W) uint8.
    masks
        Name -> (H, W) bool. Always ``ZP``; a blastocyst also has ``ICM`` and ``TE``. They are disjoint, unlike masks of
        human experts, which overlap by a few pixels.
    pixel_size_um
        Height and width of a pixel in micrometers.
    seed
        Random seed of the drawing.
    cells
        (N, H, W) bool, the complete silhouette of each blastomere, including parts hidden by other cells.
    fragments
        (H, W) bool, anucleate fragments; some lie on cells.
    hours
        Hours after insemination, if it belongs to a time-lapse.
    """

    image: npt.NDArray[np.uint8]
    masks: Mapping[str, Mask]
    pixel_size_um: tuple[float, float]
    seed: int
    cells: Mask = field(default_factory=lambda: np.zeros((0, 0, 0), bool))
    fragments: Mask = field(default_factory=lambda: np.zeros((0, 0), bool))
    hours: float | None = None

    @property
    def fragmentation_ratio(self) -> float:
        """Area of the fragments over the area of cells and fragments together; 0 if there is neither."""
        embryo = self.fragments.sum() if len(self.cells) == 0 else (self.cells.any(axis=0) | self.fragments).sum()
        return float(self.fragments.sum() / embryo) if embryo else 0.0

    def stack(self, classes: tuple[str, ...]) -> Mask:
        """The named masks as a (C, H, W) bool array; a name that was not drawn gives an empty mask."""
        empty = np.zeros(self.image.shape, bool)
        return np.stack([self.masks.get(name, empty) for name in classes])


def pixel_size(style: Style, shape: tuple[int, int]) -> tuple[float, float]:
    """Height and width of a pixel in micrometers for an image of this style and (height, width)."""
    side = FIELD_UM[style] / min(shape)
    return side, side


def check_request(style: str, shape: tuple[int, int]) -> None:
    """Check that such an image can be drawn."""
    if style not in STYLES:
        raise ValueError(f"style {style!r} is not known; use one of {', '.join(STYLES)}")
    if len(shape) != 2 or min(shape) < 64:
        raise ValueError(
            f"shape {shape} is too small to draw an embryo in; give (height, width), 64 pixels or more each"
        )
