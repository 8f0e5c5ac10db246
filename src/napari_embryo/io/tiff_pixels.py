"""Pixels of TIFF files, page by page."""

import lzma
import zlib
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import finalize

import numpy as np
import numpy.typing as npt

from napari_embryo.io.colors import upright
from napari_embryo.io.errors import complaint
from napari_embryo.io.header import Header
from napari_embryo.io.tiff_pages import DEFLATE, LZMA, MINISWHITE, NO_COMPRESSION, PageLook, look_of

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffFrame, TiffPage, TiffPageSeries

Array = npt.NDArray[Any]

PACKED_BITS = range(9, 16)
"""Samples of so many bits are stored without gaps."""


def open_tiff(header: Header) -> Callable[[int], Array]:
    """A function from the number of a picture to the picture, upright."""
    from tifffile import TiffFile

    tiff = TiffFile(header.path)
    len(tiff.pages)  # ends a chain of pages that is a circle
    series = tiff.series[header.series]
    look = look_of(header.path, series.keyframe)
    if header.order:
        with tiff:
            return _whole(header, series, look)
    start = series.dataoffset
    if start is not None and _is_plain(series.keyframe):
        tiff.close()
        page, dtype = series.keyframe, np.dtype(series.dtype).newbyteorder(tiff.byteorder)
        return lambda number: _picture(header, page, look, _slice(header.path, start, dtype, prod(page.shape), number))

    def read(number: int) -> Array:
        return _read_page(header, tiff, series, look, number)

    finalize(read, tiff.close)
    return read


def _whole(header: Header, series: "TiffPageSeries", look: PageLook) -> Callable[[int], Array]:
    """Of a file whose axes stand in an order of its own."""
    for page in series.pages:
        check_expansion(header.path, page, series.keyframe)
    stored = series.asarray()
    stored_shape = [size for _, size in sorted(zip(header.order, header.shape, strict=True))]
    array = stored.reshape(stored_shape).transpose(header.order)
    planes = array.reshape(-1, *header.shape[header.axes.index("Y") :])
    return lambda number: look.convert(np.array(planes[number]))


def _is_plain(page: "TiffPage") -> bool:
    return page.compression == NO_COMPRESSION and page.bitspersample in (8, 16, 32, 64)


def _picture(header: Header, page: "TiffPage", look: PageLook, stored: Array) -> Array:
    """From the samples of a page to the picture, upright."""
    stored = stored.reshape(page.shape)
    if page.planarconfig == 2 and stored.ndim == 3:
        stored = np.moveaxis(stored, 0, -1)
    return upright(look.convert(stored), header.orientation)


def _slice(path: Path, start: int, dtype: np.dtype[Any], count: int, number: int) -> Array:
    values = np.fromfile(path, dtype, count, offset=start + number * count * dtype.itemsize)
    return values.astype(dtype.newbyteorder("="))


def _read_page(header: Header, tiff: "TiffFile", series: "TiffPageSeries", look: PageLook, number: int) -> Array:
    page = series[number]
    if page is None:
        raise ValueError(f"page {number + 1} is missing")
    if page.parent.filehandle.closed:  # one of several files that make up the series
        page.parent.filehandle.open()
    check_expansion(Path(page.parent.filehandle.path), page, series.keyframe)
    if _is_packed(series.keyframe):
        return _picture(header, series.keyframe, look, _unpacked(page, series.keyframe))
    try:
        return _picture(header, series.keyframe, look, page.asarray())
    except (ValueError, KeyError, NotImplementedError, ImportError) as error:
        if not _needs_imagecodecs(error):
            raise
    pixels = _with_pillow(header.path, page, series.keyframe, look) if page.parent is tiff else None
    if pixels is None:
        raise complaint(
            header.path,
            f"its compression {_compression(series.keyframe)} needs the package imagecodecs, which is not installed",
            "the extra 'formats' brings it",
            "Run: pip install 'napari-embryo[formats]', or save the file uncompressed",
        )
    return pixels


def _needs_imagecodecs(error: Exception) -> bool:
    return isinstance(error, ImportError) or "imagecodecs" in str(error)


def _compression(page: "TiffPage") -> str:
    return str(getattr(page.compression, "name", page.compression))


# --- samples of 9 to 15 bits ------------------------------------------------------------------------------------------


def _is_packed(page: "TiffPage") -> bool:
    is_simple = page.compression == NO_COMPRESSION and not page.is_tiled and page.samplesperpixel == 1
    return is_simple and page.bitspersample in PACKED_BITS and page.fillorder == 1


def _unpacked(page: "TiffPage | TiffFrame", keyframe: "TiffPage") -> Array:
    """Samples that are stored without gaps, each row beginning with a byte of its own."""
    height, width = keyframe.shape[-2:]
    filehandle = page.parent.filehandle
    data = b"".join(
        filehandle.read_array("u1", count, offset=offset).tobytes()
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
    )
    n_bits = keyframe.bitspersample
    rows = np.frombuffer(data, np.uint8).reshape(height, -(-width * n_bits // 8))
    bits = np.unpackbits(rows, axis=1)[:, : width * n_bits].reshape(height, width, n_bits)
    weights = (1 << np.arange(n_bits - 1, -1, -1)).astype(np.uint16)
    values: Array = bits @ weights
    return values


# --- Pillow, which brings libtiff, where imagecodecs is missing -----------------------------------------------------


def _with_pillow(path: Path, page: "TiffPage | TiffFrame", keyframe: "TiffPage", look: PageLook) -> Array | None:
    """The picture where Pillow understands it; None where it may not."""
    from PIL import Image

    mode = {("uint8", 0): "L", ("uint8", 3): "RGB", ("uint8", 4): "RGBA", ("uint16", 0): "I;16"}
    wanted = mode.get((look.dtype.name, look.samples))
    if wanted is None or look.channels or not isinstance(page.index, int):
        return None
    is_inverted_16_bit = wanted == "I;16" and int(keyframe.photometric) == MINISWHITE
    try:
        with Image.open(path) as image:
            image.seek(page.index)
            if is_inverted_16_bit or (wanted == "I;16" and image.mode != "I;16"):
                return None
            return np.array(image if image.mode == wanted else image.convert(wanted))
    except (OSError, EOFError):
        return None


# --- bombs ----------------------------------------------------------------------------------------------------------

MODEST_BYTES = 2**24
"""A part of a file that could not decompress to more than this is not checked."""

DEFLATE_RATIO = 1032
"""What deflate compresses at most."""


def check_expansion(path: Path, page: "TiffPage | TiffFrame | None", keyframe: "TiffPage") -> None:
    """Refuse parts of a file that decompress to more than the picture needs, before that fills the memory."""
    if page is None or keyframe.compression not in (*DEFLATE, LZMA):
        return
    needed = prod(keyframe.chunks) * max(1, np.dtype(keyframe.dtype or "u1").itemsize)
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        is_lzma = keyframe.compression == LZMA
        if is_lzma or count * DEFLATE_RATIO > max(MODEST_BYTES, 2 * needed):
            _check_part(path, offset, count, needed, is_lzma)


def _check_part(path: Path, offset: int, count: int, needed: int, is_lzma: bool) -> None:
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(count)
    most = needed + MODEST_BYTES
    if is_lzma:
        size = len(lzma.LZMADecompressor().decompress(data, most + 1))
    else:
        size = len(zlib.decompressobj().decompress(data, most + 1))
    if size > most:
        raise complaint(
            path, "a part of it decompresses to far more than its image needs", "a sound file", "Export it again"
        )
