"""Pictures and masks on disk, as every layout needs them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo import io
from napari_embryo.data.embryos import image_stem
from napari_embryo.data.sample import Bools, Truth

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".npy")
"""Endings of single pictures, whatever their case, in the order in which they are preferred."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One picture that a layout offers, before anything of it was read.

    Parameters
    ----------
    name
        File stem.
    load
        Reads it; raises where it cannot.
    embryo
        Whose picture it is, where the source itself says.
    """

    name: str
    load: Callable[[], Truth]
    embryo: str | None = None


def refuse(reason: str) -> Truth:
    """What an entry loads that is known to be bad before its pixels are read."""
    raise ValueError(reason)


def pictures(folder: Path) -> list[Path]:
    """Picture files of a folder, hidden ones left out, in the order of their names."""
    if not folder.is_dir():
        return []
    found = (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file())
    return sorted(found)


def by_stem(folder: Path) -> dict[str, list[Path]]:
    """Picture files of a folder by the name that they share with their masks."""
    stems: dict[str, list[Path]] = {}
    for path in pictures(folder):
        stems.setdefault(image_stem(path.name), []).append(path)
    return stems


def folder_like(parent: Path, name: str) -> Path | None:
    """The sub-folder of this name, whatever its case."""
    return next((p for p in subfolders(parent) if p.name.lower() == name.lower()), None)


def subfolders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def read_gray(path: Path) -> npt.NDArray[Any]:
    """(H, W) gray values of a single picture."""
    image = io.read_image(path)
    if image.axes != "YX":
        sizes = " x ".join(f"{axis}{size}" for axis, size in image.sizes.items())
        raise ValueError(
            f"{path}: a stack came ({sizes}); a sample is a single picture. Save the plane that was drawn on"
        )
    return np.asarray(image.data)


def read_mask(path: Path) -> Bools:
    """(H, W) bool of a mask file of one class, stored as 0 and 255 (or 0 and 1), perhaps with soft edges."""
    values = read_gray(path)
    peak = values.max(initial=0)
    mask: Bools = values > (peak / 2 if peak > 127 else 0)
    return mask


def read_label_image(path: Path) -> npt.NDArray[Any]:
    """(H, W) whole numbers; of a picture with a palette its indices, since its colors mean nothing."""
    indices = _palette_indices(path) if path.suffix.lower() in (".png", ".bmp") else None
    labels = read_gray(path) if indices is None else indices
    if not np.array_equal(labels, np.round(labels)):
        raise ValueError(f"{path}: values between whole numbers came; a label image holds 0, 1, 2, ...")
    return labels


def _palette_indices(path: Path) -> npt.NDArray[Any] | None:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.asarray(picture) if picture.mode == "P" else None
    except OSError as error:
        raise ValueError(f"{path}: not a picture that can be read ({error}); save it again") from error


def check_size(path: Path | str, shape: tuple[int, ...], image: npt.NDArray[Any]) -> None:
    """Masks have the picture's own size; a resized one would be shifted unseen."""
    if tuple(shape) != image.shape:
        raise ValueError(
            f"{path}: made for {' x '.join(map(str, shape))} pixels, but the picture has "
            f"{' x '.join(map(str, image.shape))}; masks need the picture's own size"
        )
