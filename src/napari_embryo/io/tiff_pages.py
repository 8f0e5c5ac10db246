"""What the pages of a TIFF show: by photometric interpretation, bits and compression, or why they cannot be shown."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_embryo.io import colors
from napari_embryo.io.errors import complaint

if TYPE_CHECKING:
    from pathlib import Path

    from tifffile import TiffPage

Array = npt.NDArray[Any]

MINISWHITE, MINISBLACK, RGB, PALETTE, SEPARATED, YCBCR = 0, 1, 2, 3, 5, 6
"""Photometric interpretations that are understood."""

NO_COMPRESSION, OLD_JPEG, JPEG, APERIO_YCBCR = 1, 6, 7, 33003
DEFLATE = (8, 32946)
LZMA = 34925


@dataclass(frozen=True)
class PageLook:
    """How a page becomes a picture.

    Parameters
    ----------
    dtype
        Of the picture's values.
    samples
        Color samples in its last axis; 0 for gray.
    channels
        Samples that are no colors, each a gray picture; 0 for none.
    convert
        From the stored samples, (Y, X) or (Y, X, S), to the picture.
    """

    dtype: np.dtype[Any]
    samples: int
    channels: int
    convert: Callable[[Array], Array]


def look_of(path: "Path", page: "TiffPage") -> PageLook:
    """How a page becomes a picture.

    Raises
    ------
    ImageError
        Naming what the page has that cannot be shown.
    """
    dtype = page.dtype
    if dtype is None:
        raise _refusal(path, f"its samples of {page.bitspersample} bits cannot be read")
    dtype = np.dtype(dtype).newbyteorder("=")
    photometric = int(page.photometric)
    if photometric in (MINISWHITE, MINISBLACK):
        return _gray_look(path, page, dtype, photometric == MINISWHITE)
    if photometric == PALETTE:
        return _palette_look(path, page)
    if photometric in (RGB, SEPARATED, YCBCR):
        return _color_look(path, page, dtype, photometric)
    raise _refusal(path, f"its photometric interpretation {_name(page.photometric)} is not understood")


def _gray_look(path: "Path", page: "TiffPage", dtype: np.dtype[Any], is_white_zero: bool) -> PageLook:
    samples = page.samplesperpixel
    if samples > 2:
        if is_white_zero:
            raise _refusal(path, f"it has {samples} samples per pixel, of which 0 is white")
        return PageLook(dtype, 0, samples, _as_is)
    if is_white_zero and dtype.kind not in "ub":
        raise _refusal(path, f"0 is white in its values of type {dtype}")
    return PageLook(_shown_type(dtype), 0 if samples == 1 else 2, 0, partial(_gray, page.bitspersample, is_white_zero))


def _as_is(stored: Array) -> Array:
    return stored


def _shown_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    named = {"bool": "uint8", "float16": "float32"}
    return np.dtype(named.get(dtype.name, dtype))


def _gray(bits: int, is_white_zero: bool, stored: Array) -> Array:
    pixels = stored.astype(np.uint8) if stored.dtype == bool else stored.astype(_shown_type(stored.dtype), copy=False)
    pixels = colors.inverted(pixels, bits) if is_white_zero else pixels
    return colors.widened(pixels, bits) if bits < 8 else pixels


def _palette_look(path: "Path", page: "TiffPage") -> PageLook:
    table = page.colormap
    if table is None or page.samplesperpixel != 1:
        raise _refusal(path, "its palette is missing or is one of several samples")
    table = np.asarray(table)
    samples = 0 if colors.is_gray(table) else 3
    return PageLook(np.dtype("uint8"), samples, 0, lambda stored: colors.from_palette(stored, table))


def _color_look(path: "Path", page: "TiffPage", dtype: np.dtype[Any], photometric: int) -> PageLook:
    samples = page.samplesperpixel
    least = 4 if photometric == SEPARATED else 3
    if samples < least or dtype.kind not in "uf" or page.bitspersample < 8:
        raise _refusal(path, f"its {samples} color samples of type {dtype} ({page.bitspersample} bits) cannot be read")
    if photometric == RGB:
        return PageLook(_shown_type(dtype), min(samples, 4), 0, lambda stored: stored[..., :4])
    if photometric == SEPARATED:
        if page.compression == JPEG or dtype.kind == "f" or page.tags.valueof("InkSet", 1) != 1:
            raise _refusal(path, "its inks (CMYK) are stored in a way that is not understood")
        return PageLook(dtype, 3, 0, colors.from_cmyk)
    if page.compression == JPEG:
        return PageLook(dtype, 3, 0, _as_is)  # the decoder of JPEG gives RGB
    if dtype != np.uint8 or page.is_subsampled or page.compression in (OLD_JPEG, APERIO_YCBCR):
        raise _refusal(path, "its color (YCbCr) is subsampled or compressed in a way that is not understood")
    return PageLook(dtype, 3, 0, colors.from_ycbcr)


def _refusal(path: "Path", why: str) -> Exception:
    return complaint(path, why, "gray or RGB of 8 or 16 bits is needed", "Save it again that way, for instance in Fiji")


def _name(photometric: Any) -> str:
    return str(getattr(photometric, "name", photometric))


def orientation_of(page: "TiffPage") -> int:
    """1 to 8; 1 where the page does not say."""
    value = page.tags.valueof("Orientation", 1)
    return int(value) if isinstance(value, int) and 1 <= value <= 8 else 1
