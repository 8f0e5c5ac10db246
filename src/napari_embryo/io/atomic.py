"""Files that are either complete or absent: tables, images, and the temporary names behind them."""

import csv
import os
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
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    _check_picture(path, pixels)
    with replacing(path) as temporary:
        about = PngInfo()
        if is_result:
            about.add_text("Software", PROGRAM)
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG", compress_level=1, pnginfo=about)
    return Path(path)


def _check_picture(path: Path | str, pixels: npt.NDArray[Any]) -> None:
    is_picture = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not is_picture:
        raise ValueError(
            f"{path}: an array of shape {pixels.shape} and type {pixels.dtype} was given; "
            "a PNG needs uint8 in the shape (H, W), (H, W, 3) or (H, W, 4)"
        )
