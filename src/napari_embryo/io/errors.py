"""Errors of files that cannot be opened."""

import lzma
import struct
import sys
import tokenize
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ImageError(ValueError):
    """A file or folder cannot be read as embryo images; the message names it and says what to do."""


class MissingImageError(ImageError, FileNotFoundError):
    """There is nothing at the path."""


def complaint(path: Path | str, found: str, needed: str, todo: str) -> ImageError:
    """An error that names the file, what it contains, what is needed and what to do."""
    return ImageError(f"{path}: {found}; {needed}. {todo}.")


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises on a damaged file into an `ImageError` that names the file.

    Parameters
    ----------
    path
        The file that is decoded in the block.
    """
    try:
        yield
    except ImageError:
        raise
    except decoding_errors() as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> ImageError:
    """Turn an error of the operating system or a decoder into a message with advice."""
    if isinstance(error, ImageError):
        return error
    if isinstance(error, FileNotFoundError):
        return MissingImageError(f"{path}: there is no such file or folder. Check the path.")
    if isinstance(error, PermissionError):
        return complaint(
            path, "the system does not allow reading it", "read permission is needed", "Ask its owner or copy it"
        )
    return complaint(
        path,
        f"the file is damaged, truncated or not of the type its name says ({_one_line(error)})",
        "a complete image is needed",
        "Export or copy it again",
    )


def decoding_errors() -> tuple[type[Exception], ...]:
    """Errors that image decoders are known to raise for damaged files."""
    from PIL import Image
    from tifffile import TiffFileError

    return (
        OSError, ValueError, EOFError, SyntaxError, LookupError, TypeError, AttributeError, ArithmeticError,
        MemoryError, RuntimeError, ImportError, AssertionError, Image.DecompressionBombError, TiffFileError,
        struct.error, zlib.error, lzma.LZMAError, tokenize.TokenError, NameError, *_video_errors(),
    )  # fmt: skip


def _video_errors() -> tuple[type[Exception], ...]:
    """Errors of PyAV, if it was imported."""
    av = sys.modules.get("av")
    return () if av is None else (av.error.FFmpegError,)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
