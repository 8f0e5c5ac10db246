"""Many planes as one array, each read when needed."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from napari_embryo.io.colors import to_gray
from napari_embryo.io.errors import ImageError
from napari_embryo.io.header import Header
from napari_embryo.io.pixels import FileReader, read_plane

Array = npt.NDArray[Any]

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
        Type of the values.
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
