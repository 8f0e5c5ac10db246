"""Read gray values of one file plane by plane."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo.io.errors import complaint, decoding
from napari_embryo.io.header import ARRAY, TIFF, VIDEO, ZARR, Header
from napari_embryo.io.headers import check_is_file, read_header
from napari_embryo.io.leica import open_lif
from napari_embryo.io.nikon import open_nd2
from napari_embryo.io.pictures import open_picture
from napari_embryo.io.tiff_pixels import open_tiff
from napari_embryo.io.video import open_video
from napari_embryo.io.zarr_read import open_zarr
from napari_embryo.io.zeiss import open_czi

Array = npt.NDArray[Any]


@dataclass
class FileReader:
    """Reads the planes of one file by number; opens it when needed and can be sent between processes.

    Parameters
    ----------
    header
        Header of the file.
    """

    header: Header

    def __post_init__(self) -> None:
        self._lock = Lock()
        self._read: Callable[[int], Array] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"header": self.header}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.header = state["header"]
        self.__post_init__()

    def plane(self, number: int) -> Array:
        """(Y, X) or (Y, X, S), as in the file; ``number`` counts planes in the order of the leading axes."""
        header = self.header
        with decoding(header.path), self._lock:
            self._read = self._read or _opener(header.path)(header)
            plane = self._read(number)
            if plane.shape != header.shape[header.axes.index("Y") :]:
                raise ValueError(f"an image of shape {plane.shape} where {header.shape} is stated")
        return check_pixels(header.path, plane.astype(header.dtype, copy=False))


def check_pixels(path: Path, plane: Array) -> Array:
    """Refuse pixels that are not numbers."""
    if plane.dtype.kind == "f" and not np.isfinite(plane).all():
        n_bad = plane.size - int(np.isfinite(plane).sum())
        raise complaint(
            path,
            f"{n_bad} of {plane.size} values are NaN or infinite",
            "every pixel needs a finite value",
            "Replace them, for instance with numpy.nan_to_num, and save it again",
        )
    return plane


def read_plane(path: Path) -> Array:
    """The only plane of a file, (Y, X) or (Y, X, S).

    Raises
    ------
    ImageError
        If it cannot be read; the message names the file.
    """
    return FileReader(read_header(path)).plane(0)


def _opener(path: Path) -> Callable[[Header], Callable[[int], Array]]:
    suffix = path.suffix.lower()
    check_is_file(path)
    for suffixes, opener in _OPENERS:
        if suffix in suffixes:
            return opener
    return open_picture


def _open_array(header: Header) -> Callable[[int], Array]:
    array = np.load(header.path, mmap_mode="r", allow_pickle=False)
    planes = array.reshape(-1, *header.shape[header.axes.index("Y") :])
    return lambda number: np.array(planes[number])


_OPENERS: tuple[tuple[tuple[str, ...], Callable[[Header], Callable[[int], Array]]], ...] = (
    (TIFF, open_tiff),
    (ARRAY, _open_array),
    (VIDEO, open_video),
    ((".czi",), open_czi),
    ((".nd2",), open_nd2),
    ((".lif",), open_lif),
    (ZARR, open_zarr),
)
