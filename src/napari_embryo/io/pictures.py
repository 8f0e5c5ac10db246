"""PNG, JPEG, BMP and GIF, through Pillow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo.io.atomic import PROGRAM
from napari_embryo.io.colors import upright
from napari_embryo.io.errors import complaint, decoding
from napari_embryo.io.header import PICTURE, TIFF, Header, Role
from napari_embryo.io.tiff_pages import PALETTE

Array = npt.NDArray[Any]

ORIENTATION = 0x0112
"""EXIF's tag."""

_PLAIN_MODES = ("L", "LA", "RGB", "RGBA", "I;16", "I;16B", "I;16L", "I", "F")
_SAMPLES = {"LA": 2, "RGBA": 4, "1": 1, "L": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "I": 1, "F": 1}
_TYPES = {"I;16": "uint16", "I;16B": "uint16", "I;16L": "uint16", "I": "int32", "F": "float32"}


def picture_header(path: Path) -> tuple[Header, ...]:
    """Metadata of a PNG, JPEG, BMP or GIF."""
    from PIL import Image

    with Image.open(path) as image:
        samples = 3 if _is_animation(image) else _SAMPLES.get(image.mode, 3)
        orientation = _orientation(image)
        hw = (image.height, image.width) if orientation < 5 else (image.width, image.height)
        n_frames = int(getattr(image, "n_frames", 1))
        frames = (n_frames,) if n_frames > 1 and _is_animation(image) else ()
        dtype = np.dtype(_TYPES.get(image.mode, "uint8"))
        is_result = str(image.info.get("Software", "")).startswith(PROGRAM) or _is_overlay(path)
        notes = [*_notes(path, samples, orientation, n_frames > 1 and not frames)]
    shape = (*frames, *hw, samples)[: None if samples > 1 else -1]
    axes = "T" * len(frames) + "YXS"[: 2 if samples == 1 else 3]
    role: Role = "result" if is_result else "picture"
    return (Header(path, shape, axes, dtype, notes=tuple(notes), role=role, orientation=orientation),)


def _is_animation(image: Any) -> bool:
    return bool(image.format == "GIF")


def _notes(path: Path, samples: int, orientation: int, has_more: bool) -> list[str]:
    notes = ["color of 16 bits is read with 8 bits"] if samples > 1 and _png_bits(path) == 16 else []
    notes += (
        [f"the image is rotated upright, as its file requests (orientation {orientation})"] if orientation > 1 else []
    )
    return notes + (["only the first of its images is read"] if has_more else [])


def _orientation(image: Any) -> int:
    """Orientation from 1 to 8, from metadata before the pixels; for PNG, Pillow would decode all pixels."""
    from PIL import Image

    value = Image.Image.getexif(image).get(ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _is_overlay(path: Path) -> bool:
    """Whether it is an overlay of an earlier version, which did not mark them."""
    name = path.stem.removesuffix("_overlay")
    return name != path.stem and any(
        path.with_name(f"{name}_{ending}").exists() for ending in ("labels.ome.tif", "cells.ome.tif", "cells.json")
    )


def _png_bits(path: Path) -> int:
    with path.open("rb") as file:
        start = file.read(25)
    return start[24] if start.startswith(b"\x89PNG") and len(start) == 25 else 8


def open_picture(header: Header) -> Callable[[int], Array]:
    """A function from the number of a plane to the upright plane."""
    return lambda number: read_picture(header.path, header.orientation, number if "T" in header.axes else None)


def read_picture(path: Path, orientation: int = 1, frame: int | None = None) -> Array:
    """An image as shown: gray, or gray and alpha, RGB, or RGB and alpha in the last axis.

    Parameters
    ----------
    path
        The file.
    orientation
        Orientation in its header.
    frame
        Frame of an animation.
    """
    from PIL import Image

    with Image.open(path) as image:
        if frame is not None:
            image.seek(frame)
            return np.array(image.convert("RGB"))
        pixels = np.array(in_plain_mode(image))
        if _orientation(image) != orientation:
            raise complaint(
                path, "it says how it is turned behind its pixels", "that is needed before them", "Save it again"
            )
    return upright(pixels, orientation)


def in_plain_mode(image: Any) -> Any:
    """A picture of Pillow's in a mode that is an array of gray values or of RGB."""
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in _PLAIN_MODES else image.convert("RGB")


def upright_picture(image: Any) -> Array:
    """The pixels of an opened picture of Pillow's as it is shown, turned as its EXIF says.

    Parameters
    ----------
    image
        From ``PIL.Image.open``, of a file or of bytes.

    Returns
    -------
    ndarray
        (Y, X) gray, or (Y, X, S) with gray and alpha, RGB, or RGB and alpha.
    """
    from PIL import ImageOps

    image.load()  # Pillow turns a TIFF while it loads it, and no longer says then how it was
    return np.array(in_plain_mode(ImageOps.exif_transpose(image)))


def palette_indices(path: Path | str) -> Array | None:
    """The indices of a picture with a palette, such as a label image whose colors mean nothing; None for any other.

    Parameters
    ----------
    path
        PNG, BMP, GIF or TIFF.

    Returns
    -------
    ndarray or None
        (Y, X), upright.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (*TIFF, *PICTURE):
        return None
    with decoding(path):
        return _tiff_indices(path) if suffix in TIFF else _picture_indices(path)


def _picture_indices(path: Path) -> Array | None:
    from PIL import Image

    with Image.open(path) as image:
        return upright(np.asarray(image), _orientation(image)) if image.mode == "P" else None


def _tiff_indices(path: Path) -> Array | None:
    from tifffile import TiffFile

    with TiffFile(path) as tiff:
        page = tiff.pages.first
        return page.asarray() if int(page.photometric) == PALETTE else None
