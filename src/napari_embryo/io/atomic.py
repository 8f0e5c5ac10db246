"""Files that are either complete or absent: tables, images, and the temporary names behind them."""

import csv
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

PROGRAM = "napari-embryo"
"""The program named as origin in results."""


@contextmanager
def replacing(path: Path | str, *, lasting: bool = False) -> Iterator[Path]:
    """Provide a temporary file next to ``path`` that replaces it only if nothing went wrong.

    Parameters
    ----------
    path
        The file to create or replace; its folder must exist.
    lasting
        Wait until it is on the disk before it replaces the old file, so that a power failure leaves either the old or
        the new file intact. For results that cannot be computed again.

    Yields
    ------
    Path
        Where to write.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        yield temporary
        if lasting:
            _flush(temporary)
        temporary.replace(path)
        if lasting:
            _flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    # Windows flushes only files opened for writing.
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Flush the folder, too, if the system can; Windows cannot open a folder."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_csv_atomic(path: Path | str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write a table; unknown values (None or NaN) become empty cells.

    Parameters
    ----------
    path
        The CSV file; UTF-8, comma, dot.
    rows
        One mapping per row. Columns are all keys, in the order in which they first appear.

    Returns
    -------
    Path
        ``path``.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return Path(path)


def _cell(value: Any) -> Any:
    return "" if value is None or value != value else value


def write_png(path: Path | str, pixels: npt.NDArray[np.uint8], *, is_result: bool = False) -> Path:
    """Write an 8-bit image, gray (H, W), RGB (H, W, 3) or RGBA (H, W, 4), with fast rather than strong compression.

    Parameters
    ----------
    path
        The PNG file.
    pixels
        uint8 values.
    is_result
        Mark the file as a result of this program, so that it is not taken for an image of an embryo.

    Returns
    -------
    Path
        ``path``.
    """
    _check_picture(path, pixels)
    with replacing(path) as temporary:
        temporary.write_bytes(b"".join(_png_parts(np.ascontiguousarray(pixels), is_result)))
    return Path(path)


_PNG_COLORS = {1: 0, 3: 2, 4: 6}
"""Samples per pixel -> PNG's number for gray, RGB and RGBA."""


def _png_parts(pixels: npt.NDArray[np.uint8], is_result: bool) -> Iterator[bytes]:
    """A PNG without filters, which on noisy pictures save nothing and take half of the time."""
    height, width, samples = (*pixels.shape, 1)[:3]
    yield b"\x89PNG\r\n\x1a\n"
    yield _png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, _PNG_COLORS[samples], 0, 0, 0))
    if is_result:
        yield _png_chunk(b"tEXt", b"Software\0" + PROGRAM.encode())
    lines = np.zeros((height, 1 + width * samples), np.uint8)  # the first byte of a line is its filter: none
    lines[:, 1:] = pixels.reshape(height, -1)
    yield _png_chunk(b"IDAT", zlib.compress(lines.data, 1))
    yield _png_chunk(b"IEND", b"")


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _check_picture(path: Path | str, pixels: npt.NDArray[Any]) -> None:
    is_picture = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not is_picture:
        raise ValueError(
            f"{path}: an array of shape {pixels.shape} and type {pixels.dtype} was given; "
            "a PNG needs uint8 in the shape (H, W), (H, W, 3) or (H, W, 4)"
        )
