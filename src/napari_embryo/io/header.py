"""Metadata of a file: the value returned by all header readers."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

TIFF = (".tif", ".tiff")
PICTURE = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
ARRAY = (".npy",)
VIDEO = (".avi", ".mp4", ".m4v", ".mov", ".wmv", ".mpg", ".mpeg", ".mkv")
VENDOR = (".czi", ".nd2", ".lif")
ZARR = (".zarr",)
"""Folders that are one file to the user."""

SUFFIXES = (*TIFF, *PICTURE, *ARRAY, *VIDEO, *VENDOR, *ZARR)
"""Supported file suffixes, ignoring case."""

SINGLE = (*PICTURE, *TIFF, *ARRAY)
"""Suffixes of files that can hold a single picture, in order of preference."""

Role = Literal["picture", "labels", "result"]
"""An image, labels of this or another program, or another result of this program."""

RESULT_KEY = "weights_sha256"
"""Metadata that results of a network have, but no image of an embryo."""


@dataclass(frozen=True)
class Header:
    """Metadata of one file, or of one series of it.

    Parameters
    ----------
    path
        The file.
    shape
        Shape of the array in the file, as shown.
    axes
        One letter per dimension: T, F, Y, X; C (channels: each becomes an image), S (color or alpha samples: become
        gray), ``?`` (the file does not say).
    dtype
        Type of the resulting gray values.
    pixel_size_um, hours, focus_um
        As in `EmbryoImage`, if the file states them.
    names
        One per C, if the file states them.
    notes
        Messages for the user: what was assumed, what was ignored.
    order
        Order of the axes in the file, if it is not that of ``axes``; such a file is read as a whole.
    role
        What the file is.
    is_own
        Whether this program wrote it as OME-TIFF.
    orientation
        Orientation of the stored image, 1 (upright) to 8, as in EXIF; ``shape`` is that of the upright image.
    series
        Number of the series in the file.
    title
        Name of the series, if the file has several.
    other_files
        Further files that the series reads.
    part
        Where the series lies in a file that has folders.
    """

    path: Path
    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype[Any]
    pixel_size_um: tuple[float, float] | None = None
    hours: tuple[float, ...] | None = None
    focus_um: tuple[float, ...] | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    order: tuple[int, ...] = ()
    role: Role = "picture"
    is_own: bool = False
    orientation: int = 1
    series: int = 0
    title: str = ""
    other_files: tuple[Path, ...] = ()
    part: str = ""

    @property
    def sizes(self) -> dict[str, int]:
        return {axis: size for axis, size in zip(self.axes, self.shape, strict=True) if axis != "?"}

    @property
    def hw(self) -> tuple[int, int]:
        return self.sizes["Y"], self.sizes["X"]

    @property
    def leading(self) -> tuple[int, ...]:
        """The lengths of the axes before Y."""
        return self.shape[: self.axes.index("Y")]

    @property
    def is_picture(self) -> bool:
        """Whether it is a single plane, gray or in color."""
        return self.axes in ("YX", "YXS")

    @property
    def as_labels(self) -> "Header":
        """The same series as labels."""
        return replace(self, role="labels")

    def with_axes(self, axes: str) -> "Header":
        """The same file with other meanings of its axes; metadata of changed axes are dropped."""
        old = self.axes.removesuffix("S")
        kept = {axis for axis, other in zip(old, axes, strict=True) if axis == other}
        return replace(
            self,
            axes=axes + self.axes[len(old) :],
            hours=self.hours if "T" in kept else None,
            focus_um=self.focus_um if "F" in kept else None,
            names=self.names if "C" in kept else (),
        )


def is_image_file(path: Path) -> bool:
    """Whether there is a file, or a folder that is one file to the user, whose ending is supported."""
    suffix = path.suffix.lower()
    return suffix in SUFFIXES and (path.is_dir() if suffix in ZARR else path.is_file())
