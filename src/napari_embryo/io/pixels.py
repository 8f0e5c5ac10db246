"""Read gray values from files, one plane at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import finalize

import numpy as np
import numpy.typing as npt

from napari_embryo.io.errors import ImageError, complaint, decoding_errors, unreadable
from napari_embryo.io.headers import (
    ARRAY,
    TIFF,
    VIDEO,
    Header,
    check_is_file,
    read_header,
)
from napari_embryo.io.video import open_video

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

Array = npt.NDArray[Any]

_PLAIN_MODES = ("L", "LA", "RGB", "RGBA", "I;16", "I;16B", "I;16L", "I", "F")

LUMA = (19595, 38470, 7471)
"""ITU-R BT.601 weights (0.299, 0.587, 0.114) in 1 / 65536, those of every JPEG; equal samples give their own value."""


def to_gray(pixels: Array) -> Array:
    """Gray values of color samples in the last axis, with the ITU-R BT.601 weights and the same type.

    Parameters
    ----------
    pixels
        (..., Y, X, S) with S = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha; alpha is ignored.

    Returns
    -------
    ndarray
        (..., Y, X), the same dtype.
    """
    if pixels.shape[-1] < 3:
        first: Array = pixels[..., 0]
        return first
    if pixels.dtype in (np.uint8, np.uint16):
        return _weigh_integers(pixels)
    weighed = pixels[..., :3].astype(np.float64) @ (np.array(LUMA) / 65536)
    gray: Array = (weighed if pixels.dtype.kind == "f" else np.rint(weighed)).astype(pixels.dtype)
    return gray


def _weigh_integers(pixels: Array) -> Array:
    red, green, blue = (pixels[..., i].astype(np.uint32) * np.uint32(weight) for i, weight in enumerate(LUMA))
    gray: Array = ((red + green + blue + np.uint32(1 << 15)) >> np.uint32(16)).astype(pixels.dtype)
    return gray


# --- one picture of a file ------------------------------------------------------------------------------------------


@dataclass
class FileReader:
    """Reads the planes of one file by number; opens it when needed and can be sent between processes.

    Parameters
    ----------
    header
        Of the file.
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
        try:
            with self._lock:
                self._read = self._read or _opener(header)(header)
                plane = self._read(number)
        except decoding_errors() as error:
            raise unreadable(header.path, error) from error
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


def _opener(header: Header) -> Callable[[Header], Callable[[int], Array]]:
    suffix = header.path.suffix.lower()
    check_is_file(header.path)
    if suffix in TIFF:
        return _open_reordered_tiff if header.order else _open_tiff
    if suffix in ARRAY:
        return _open_array
    return open_video if suffix in VIDEO else _open_picture


def _open_picture(header: Header) -> Callable[[int], Array]:
    return lambda number: read_picture(header.path)


def read_picture(path: Path) -> Array:
    """A PNG, JPEG or BMP unchanged: gray, or gray and alpha, RGB, or RGB and alpha in the last axis."""
    from PIL import Image

    with Image.open(path) as image:
        return np.array(_in_plain_mode(image))


def _in_plain_mode(image: Any) -> Any:
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in _PLAIN_MODES else image.convert("RGB")


def _open_array(header: Header) -> Callable[[int], Array]:
    array = np.load(header.path, mmap_mode="r", allow_pickle=False)
    planes = array.reshape(-1, *header.shape[header.axes.index("Y") :])
    return lambda number: np.array(planes[number])


# --- TIFF -----------------------------------------------------------------------------------------------------------


def _open_reordered_tiff(header: Header) -> Callable[[int], Array]:
    from tifffile import TiffFile

    with TiffFile(header.path) as tiff:
        stored = tiff.series[0].asarray()
    stored_shape = [size for _, size in sorted(zip(header.order, header.shape, strict=True))]
    array = stored.reshape(stored_shape).transpose(header.order)
    planes = array.reshape(-1, *header.shape[header.axes.index("Y") :])
    return lambda number: np.array(planes[number])


def _open_tiff(header: Header) -> Callable[[int], Array]:
    from tifffile import TiffFile

    tiff = TiffFile(header.path)
    series = tiff.series[0]
    plane_shape = header.shape[header.axes.index("Y") :]
    if series.dataoffset is not None:
        tiff.close()
        start, dtype = series.dataoffset, np.dtype(series.dtype).newbyteorder(tiff.byteorder)
        return lambda number: _read_slice(header.path, start, dtype, plane_shape, number)

    def read(number: int) -> Array:
        return _read_page(tiff, series, number).reshape(plane_shape)

    finalize(read, tiff.close)
    return read


def _read_slice(path: Path, start: int, dtype: np.dtype[Any], shape: tuple[int, ...], number: int) -> Array:
    count = prod(shape)
    values = np.fromfile(path, dtype, count, offset=start + number * count * dtype.itemsize)
    return values.reshape(shape).astype(dtype.newbyteorder("="))


def _read_page(tiff: "TiffFile", series: "TiffPageSeries", number: int) -> Array:
    page = series[number]
    if page is None:
        raise ValueError(f"page {number + 1} is missing")
    try:
        return page.asarray()
    except (ValueError, KeyError) as error:
        # tifffile decodes LZW, JPEG and others only with the package imagecodecs; Pillow brings these itself.
        if "imagecodecs" not in str(error) or page.parent is not tiff:
            raise
        return _read_page_with_pillow(Path(tiff.filehandle.path), page.index)


def _read_page_with_pillow(path: Path, number: int) -> Array:
    from PIL import Image

    with Image.open(path) as image:
        image.seek(number)
        return np.array(_in_plain_mode(image))


# --- many pictures as one array -------------------------------------------------------------------------------------

Load = Callable[[tuple[int, ...]], Array]


@dataclass(frozen=True, eq=False)
class LazyPlanes:
    """Planes that are read when indexed; the source of dask chunks.

    Parameters
    ----------
    load
        Index into the leading axes -> one plane. It can be sent between processes.
    leading
        Lengths of the leading axes.
    plane_shape
        Shape of a plane.
    dtype
        Of the values.
    """

    load: Load
    leading: tuple[int, ...]
    plane_shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.leading + self.plane_shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: Any) -> Array:
        whole = (*_as_tuple(index), *(slice(None) for _ in self.shape))[: self.ndim]
        n_leading = len(self.leading)
        ranges = [_range(part, size) for part, size in zip(whole, self.leading, strict=False)]
        planes = np.stack([self.load(where) for where in product(*ranges)])
        # Dask fuses slices into this call, so an index may be a number instead of a slice.
        picked = tuple(slice(None) if isinstance(part, slice) else 0 for part in whole[:n_leading])
        return planes.reshape(*map(len, ranges), *self.plane_shape)[(*picked, *whole[n_leading:])]

    def as_dask(self) -> Any:
        """A dask array with one plane per chunk."""
        import dask.array

        return dask.array.from_array(
            self,
            chunks=(*(1 for _ in self.leading), *self.plane_shape),
            name=f"embryo-{uuid4().hex}",
            asarray=False,
            meta=np.empty((0,) * self.ndim, self.dtype),
        )


def _as_tuple(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _range(part: Any, size: int) -> range:
    return range(size)[part] if isinstance(part, slice) else range(size)[part:][:1]


@dataclass(frozen=True, eq=False)
class LoadFromFile:
    """Planes of one file, with axes in any order.

    Parameters
    ----------
    reader
        Of the file.
    axes
        The file's leading axes, such as "TCF".
    sizes
        Their lengths.
    wanted
        The order of the index, such as "TF".
    channel
        Which C.
    color
        True: the samples as they are; False: gray.
    """

    reader: FileReader
    axes: str
    sizes: tuple[int, ...]
    wanted: str
    channel: int
    color: bool

    def __call__(self, index: tuple[int, ...]) -> Array:
        where = dict(zip(self.wanted, index, strict=True)) | {"C": self.channel}
        number = np.ravel_multi_index([where[axis] for axis in self.axes], self.sizes) if self.axes else 0
        plane = self.reader.plane(int(number))
        return plane if self.color or plane.ndim == 2 else to_gray(plane)


@dataclass(frozen=True, eq=False)
class LoadFromFiles:
    """One plane per file, or an empty plane if there is no file.

    Parameters
    ----------
    files
        By frame and focal plane.
    header
        Of the first file: every other file must have its size and type.
    color
        True: three samples; False: gray.
    """

    files: tuple[tuple[Path | None, ...], ...]
    header: Header
    color: bool

    def __call__(self, index: tuple[int, ...]) -> Array:
        path = self._path(index)
        if path is None:
            return np.zeros((*self.header.hw, 3) if self.color else self.header.hw, self.header.dtype)
        plane = read_plane(path)
        gray = to_gray(plane) if plane.ndim == 3 else plane
        _check_fits(path, gray, self.header)
        return _as_rgb(plane) if self.color else gray

    def _path(self, index: tuple[int, ...]) -> Path | None:
        if len(index) == 2:
            return self.files[index[0]][index[1]]
        return self.files[0][index[0]] if len(self.files) == 1 else self.files[index[0]][0]


def read_plane(path: Path) -> Array:
    """The only plane of a file, (Y, X) or (Y, X, S).

    Raises
    ------
    ImageError
        Naming the file, where it cannot be read.
    """
    return FileReader(read_header(path)).plane(0)


def _as_rgb(plane: Array) -> Array:
    return (
        plane[..., :3]
        if plane.ndim == 3 and plane.shape[-1] > 2
        else np.stack([plane.reshape(plane.shape[:2])] * 3, -1)
    )


def _check_fits(path: Path, gray: Array, first: Header) -> None:
    if gray.shape != first.hw or gray.dtype != first.dtype:
        raise ImageError(
            f"{path}: the file has {gray.shape[1]} x {gray.shape[0]} pixels of {gray.dtype}, but {first.path.name}, "
            f"the first of the stack, has {first.hw[1]} x {first.hw[0]} of {first.dtype}; one stack needs one size and "
            "type. Move the file elsewhere or open the files separately."
        )
