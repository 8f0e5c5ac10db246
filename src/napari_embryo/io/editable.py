"""Labels of many pictures that are read when they are looked at, and kept where they were painted on."""

from collections.abc import Callable
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

Array = npt.NDArray[Any]
Index = tuple[int, ...]


class EditablePlanes(NDArrayOperatorsMixin):
    """An array of pictures for a Labels layer: only painted pictures stay in memory.

    What NumPy does with a whole array reads the whole; indexing reads the pictures that are asked for.

    Parameters
    ----------
    load
        Index into the leading axes -> one picture.
    leading
        Lengths of the leading axes.
    plane_shape
        Shape of a picture.
    dtype
        Of the labels.
    """

    def __init__(
        self, load: Callable[[Index], Array], leading: Index, plane_shape: Index, dtype: np.dtype[Any]
    ) -> None:
        self._load = load
        self._leading = leading
        self._painted: dict[Index, Array] = {}
        self._last: tuple[Index, Array] | None = None
        self.shape = (*leading, *plane_shape)
        self.dtype = np.dtype(dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.asarray(self[...], dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        arrays = (np.asarray(each) if isinstance(each, EditablePlanes) else each for each in inputs)
        return getattr(ufunc, method)(*arrays, **keywords)

    def __getattr__(self, name: str) -> Any:
        # What only a NumPy array has, such as max or astype, is asked of the whole.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)

    def __getitem__(self, index: Any) -> Any:
        where = self._places(index)
        leading, inner = where[: len(self._leading)], where[len(self._leading) :]
        if _are_simple(leading):
            return self._block(leading, inner)
        return self._picked(np.broadcast_arrays(*where))

    def __setitem__(self, index: Any, value: Any) -> None:
        where = self._places(index)
        n_leading = len(self._leading)
        if _are_simple(where[:n_leading]):
            values = np.broadcast_to(np.asarray(value), np.shape(self[index]))
            self._set_block(where[:n_leading], where[n_leading:], values)
            return
        places = np.broadcast_arrays(*where)
        values = np.broadcast_to(np.asarray(value), places[0].shape)
        for plane in _unique(places[:n_leading]):
            here = _all_equal(places[:n_leading], plane)
            self._writable(plane)[tuple(axis[here] for axis in places[n_leading:])] = values[here]

    # --- pictures

    def _plane(self, place: Index) -> Array:
        if place in self._painted:
            return self._painted[place]
        if self._last is None or self._last[0] != place:
            self._last = (place, self._load(place))
        return self._last[1]

    def _writable(self, place: Index) -> Array:
        if place not in self._painted:
            self._painted[place] = np.array(self._plane(place), self.dtype)
            self._last = None
        return self._painted[place]

    # --- indices

    def _places(self, index: Any) -> tuple[Any, ...]:
        """One entry per axis: a number, a slice or an array."""
        parts = list(index) if isinstance(index, tuple) else [index]
        if any(part is Ellipsis for part in parts):
            at = next(i for i, part in enumerate(parts) if part is Ellipsis)
            parts[at : at + 1] = [slice(None)] * (self.ndim - len(parts) + 1)
        if len(parts) == 1 and isinstance(parts[0], np.ndarray) and parts[0].dtype == bool:
            return parts[0].nonzero()
        parts += [slice(None)] * (self.ndim - len(parts))
        return tuple(np.asarray(part) if isinstance(part, list) else part for part in parts)

    def _ranges(self, leading: tuple[Any, ...]) -> list[range]:
        return [
            range(size)[part] if isinstance(part, slice) else range(size)[int(part) :][:1]
            for part, size in zip(leading, self._leading, strict=True)
        ]

    def _block(self, leading: tuple[Any, ...], inner: tuple[Any, ...]) -> Array:
        ranges = self._ranges(leading)
        planes = [self._plane(place)[inner] for place in product(*ranges)]
        if not any(isinstance(part, slice) for part in leading):
            only: Array = np.array(planes[0])
            return only
        kept = tuple(len(each) for each, part in zip(ranges, leading, strict=True) if isinstance(part, slice))
        if not planes:
            empty = np.empty(self.shape[len(self._leading) :], self.dtype)[inner]
            return np.empty((*kept, *empty.shape), self.dtype)
        block: Array = np.stack(planes).reshape(*kept, *np.shape(planes[0]))
        return block

    def _set_block(self, leading: tuple[Any, ...], inner: tuple[Any, ...], values: Array) -> None:
        ranges = self._ranges(leading)
        kept = [isinstance(part, slice) for part in leading]
        for place in product(*(range(len(each)) for each in ranges)):
            at = tuple(position for position, is_kept in zip(place, kept, strict=True) if is_kept)
            plane = tuple(each[position] for each, position in zip(ranges, place, strict=True))
            self._writable(plane)[inner] = values[at]

    def _picked(self, places: Any) -> Array:
        n_leading = len(self._leading)
        picked = np.empty(places[0].shape, self.dtype)
        for plane in _unique(places[:n_leading]):
            here = _all_equal(places[:n_leading], plane)
            picked[here] = self._plane(plane)[tuple(axis[here] for axis in places[n_leading:])]
        return picked


def _are_simple(parts: tuple[Any, ...]) -> bool:
    return all(isinstance(part, slice | int | np.integer) for part in parts)


def _all_equal(axes: Any, place: Index) -> Array:
    equal: Array = np.logical_and.reduce([axis == each for axis, each in zip(axes, place, strict=True)])
    return equal


def _unique(axes: Any) -> set[Index]:
    """The pictures that arrays of places into the leading axes name."""
    return {tuple(map(int, place)) for place in zip(*(axis.ravel() for axis in axes), strict=True)}
