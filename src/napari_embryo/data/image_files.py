"""Pictures and masks on disk, as every layout needs them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo import io
from napari_embryo.data.embryos import image_stem
from napari_embryo.data.sample import Bools, Truth
from napari_embryo.io.header import SINGLE
from napari_embryo.io.pixels import read_plane

LOSSY = (".jpg", ".jpeg")
"""Suffixes of pictures whose values are not kept exactly."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One picture that a layout offers, before any of it has been read.

    Parameters
    ----------
    name
        File stem.
    load
        Reads it, or raises an error that says why it cannot be used.
    embryo
        The embryo that it shows, where the source itself says so.
    """

    name: str
    load: Callable[[], Truth]
    embryo: str | None = None


def refuse(reason: str) -> Truth:
    """Stand in for the reader of an entry that is known to be unusable before its pixels are read."""
    raise ValueError(reason)


def pictures(folder: Path) -> list[Path]:
    """Picture files of a folder in the order of their names, without hidden ones."""
    if not folder.is_dir():
        return []
    found = (p for p in folder.iterdir() if p.suffix.lower() in SINGLE and not p.name.startswith(".") and p.is_file())
    return sorted(found)


def by_stem(folder: Path) -> dict[str, list[Path]]:
    """Picture files of a folder by the stem that they share with their masks."""
    stems: dict[str, list[Path]] = {}
    for path in pictures(folder):
        stems.setdefault(image_stem(path.name), []).append(path)
    return stems


def folder_like(parent: Path, name: str) -> Path | None:
    """The sub-folder with this name in any case."""
    return next((p for p in subfolders(parent) if p.name.lower() == name.lower()), None)


def subfolders(folder: Path) -> Iterator[Path]:
    """Folders in a folder in the order of their names, without hidden ones."""
    if folder.is_dir():
        yield from sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def read_gray(path: Path) -> npt.NDArray[Any]:
    """(H, W) gray values of a single picture."""
    image = io.read_image(path)
    if image.axes != "YX":
        sizes = " x ".join(f"{axis}{size}" for axis, size in image.sizes.items())
        raise ValueError(f"{path}: a stack ({sizes}), but a sample is a single image. Save the plane that was drawn on")
    return np.asarray(image.data)


# --- masks and label pictures -----------------------------------------------------------------------------------------


def read_mask(path: Path) -> Bools:
    """(H, W) bool of a mask file of one class, painted in any color on black or on nothing, perhaps with soft edges."""
    pixels = _samples(path)
    brightest = pixels[..., : _colors(pixels)].max(axis=-1)
    bright = _upper_half(brightest)
    alpha = pixels[..., -1] if _has_alpha(pixels) else None
    if alpha is None or alpha.min() == alpha.max():
        return bright
    opaque = _upper_half(alpha)
    is_one_color = bright[opaque].all() or not bright[opaque].any()
    return opaque if is_one_color else opaque & bright


def _upper_half(values: npt.NDArray[Any]) -> Bools:
    peak = values.max(initial=0)
    upper: Bools = values > (peak / 2 if peak > 127 or values.dtype.kind == "f" else 0)
    return upper


def read_label_image(path: Path) -> npt.NDArray[Any]:
    """(H, W) whole numbers; of a picture with a palette its indices, since its colors mean nothing.

    Raises
    ------
    ValueError
        If it is painted in colors, or holds other than whole numbers.
    """
    indices = io.palette_indices(path)
    labels = _numbers(path, _samples(path)) if indices is None else indices
    if not np.array_equal(labels, np.round(labels)):
        raise ValueError(f"{path}: values between whole numbers; a label image holds 0, 1, 2, ...")
    if path.suffix.lower() in LOSSY and len(np.unique(labels)) > 1:
        raise ValueError(f"{path}: JPEG changes the numbers of a label image; save it as PNG or TIFF")
    return labels


def _samples(path: Path) -> npt.NDArray[Any]:
    """(H, W, S) of a single picture."""
    pixels = read_plane(path)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _has_alpha(pixels: npt.NDArray[Any]) -> bool:
    return pixels.shape[-1] in (2, 4)


def _colors(pixels: npt.NDArray[Any]) -> int:
    return int(pixels.shape[-1]) - _has_alpha(pixels)


def _numbers(path: Path, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Gray values; what is transparent is background."""
    numbers = pixels[..., 0]
    if _has_alpha(pixels):
        pixels = np.where(pixels[..., -1:] > 0, pixels, 0)
        numbers = pixels[..., 0]
    if any((pixels[..., i] != numbers).any() for i in range(1, _colors(pixels))):
        raise ValueError(
            f"{path}: painted in colors, which are no numbers; save the labels as 8- or 16-bit gray, 0 for the "
            "background"
        )
    return numbers


def check_size(path: Path | str, shape: Sequence[Any], image: npt.NDArray[Any]) -> None:
    """Refuse masks of another size than the picture's own; resized ones would be shifted without notice."""
    if tuple(shape) != image.shape:
        raise ValueError(
            f"{path}: made for {' x '.join(map(str, shape))} pixels, but the image has "
            f"{' x '.join(map(str, image.shape))}; masks need the image's own size"
        )
