"""Read the metadata of files without their pixels."""

import re
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np

from napari_embryo.io.errors import MissingImageError, complaint, decoding
from napari_embryo.io.header import ARRAY, PICTURE, SUFFIXES, TIFF, VIDEO, ZARR, Header
from napari_embryo.io.leica import lif_headers
from napari_embryo.io.names import image_stem
from napari_embryo.io.nikon import nd2_headers
from napari_embryo.io.pictures import picture_header
from napari_embryo.io.tiff import tiff_headers
from napari_embryo.io.video import video_header
from napari_embryo.io.zarr_read import zarr_headers
from napari_embryo.io.zeiss import czi_headers

MIN_SIDE = 2
"""Smallest side of an image in pixels."""

MOST_PIXELS = 2**26
"""Larger images are not of embryos, and a damaged or malicious header can claim any size."""

MOST_PICTURES = 200_000
"""Largest number of planes in one file, for the same reason."""

LABEL_TYPES = ("int32", "int64", "uint32", "uint64")
"""Types that gray images do not have; napari takes them for labels, too."""

_LABEL_NAMES = re.compile(r".*_(cp_masks|masks|labels|seg)", re.IGNORECASE)
"""Names that Cellpose, StarDist and micro-sam give their results."""


def read_headers(path: Path) -> tuple[Header, ...]:
    """Read the metadata of a file, one header per series, without decoding pixels.

    Raises
    ------
    ImageError
        If it is not a readable image; the message names the file and what to do.
    """
    with decoding(path):
        check_is_file(path)
        headers = _reader_of(path)(path)
    for header in headers:
        _check_header(header)
    return tuple(replace(header, role="labels") if _is_labels(header) else header for header in headers)


def read_header(path: Path) -> Header:
    """Read the metadata of the first series of a file; see `read_headers`."""
    return read_headers(path)[0]


def check_is_file(path: Path) -> None:
    """Refuse a missing or empty file."""
    if not path.exists():
        raise MissingImageError(f"{path}: there is no such file. Check the path.")
    if path.is_file() and path.stat().st_size == 0:
        raise complaint(path, "the file is empty (0 bytes)", "a complete image is needed", "Export or copy it again")


def _reader_of(path: Path) -> Callable[[Path], tuple[Header, ...]]:
    suffix = path.suffix.lower()
    for suffixes, read in (
        (TIFF, tiff_headers),
        (PICTURE, picture_header),
        (ARRAY, _array_header),
        (VIDEO, video_header),
        ((".czi",), czi_headers),
        ((".nd2",), nd2_headers),
        ((".lif",), lif_headers),
        (ZARR, zarr_headers),
    ):
        if suffix in suffixes:
            return read
    raise complaint(
        path,
        f"files ending in {suffix or 'nothing'} are not read",
        f"one of {', '.join(SUFFIXES)}",
        "Export it as TIFF or PNG",
    )


def _is_labels(header: Header) -> bool:
    is_named = _LABEL_NAMES.fullmatch(image_stem(header.path)) is not None
    is_integer = header.dtype.kind in "iu" and not header.axes.endswith("S")
    return header.role == "picture" and is_integer and (is_named or header.dtype.name in LABEL_TYPES)


def _check_header(header: Header) -> None:
    height, width = header.hw
    if min(height, width) < MIN_SIDE:
        raise complaint(
            header.path, f"the image has {width} x {height} pixels", "an embryo needs more", "Choose another file"
        )
    if height * width > MOST_PIXELS or prod(header.leading) > MOST_PICTURES:
        raise complaint(
            header.path,
            f"it says it holds {prod(header.leading)} images of {width} x {height} pixels",
            f"at most {MOST_PICTURES} of {MOST_PIXELS} pixels each can be opened",
            "Crop it, or save the part you need",
        )
    if header.dtype.kind not in "buif":
        raise complaint(
            header.path,
            f"its values have the type {header.dtype}",
            "real numbers are needed",
            "Save it as 8 or 16 bit or as floating point",
        )


def _array_header(path: Path) -> tuple[Header, ...]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim < 2:
        raise complaint(path, f"an array of shape {array.shape}", "at least two axes (Y, X) are needed", "Reshape it")
    is_color = array.ndim > 2 and array.shape[-1] in (3, 4) and array.dtype == np.uint8
    axes = "?" * (array.ndim - 2 - is_color) + "YX" + "S" * is_color
    notes = (f"the last axis, of length {array.shape[-1]}, is taken as color",) if is_color else ()
    return (Header(path, array.shape, axes, array.dtype, notes=notes),)
