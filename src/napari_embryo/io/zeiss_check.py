"""Whether the parts of a CZI lie where the file says: libCZI believes every size in it, and crashes on some."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from napari_embryo.io.errors import complaint

_SEGMENT = struct.Struct("<16sqq")
_POSITIONS = struct.Struct("<qqiq")
_POSITIONS_AT = 84
_COUNT = struct.Struct("<i")
_ENTRIES_AT = 128
_ENTRY = struct.Struct("<2siqiiB5xi")
_DIMENSION = struct.Struct("<4siifi")
_BLOCK = struct.Struct("<iiq")

MOST_DIMENSIONS = 20
LONGEST_SIDE = 2**20
FARTHEST = 2**26
"""Bounds far beyond any embryo, within which numbers in a directory are believed."""


def check_czi(path: Path) -> None:
    """Refuse a CZI whose directory points outside the file or states sizes that cannot be.

    Raises
    ------
    ImageError
        That names the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        _used(path, file, 0, b"ZISRAWFILE", size)
        file.seek(_POSITIONS_AT)
        directory, metadata, _, attachments = _POSITIONS.unpack(file.read(_POSITIONS.size))
        for start, name in ((metadata, b"ZISRAWMETADATA"), (attachments, b"ZISRAWATTDIR")):
            if start:
                _used(path, file, start, name, size)
        for start, entry in list(_entries(path, file, directory, size)):
            _check_block(path, file, start, entry, size)


def _used(path: Path, file: BinaryIO, start: int, name: bytes, size: int) -> int:
    """The bytes of a segment that are used."""
    if not 0 <= start <= size - _SEGMENT.size:
        raise _damage(path)
    file.seek(start)
    found, allocated, used = _SEGMENT.unpack(file.read(_SEGMENT.size))
    used = used or allocated
    if found.rstrip(b"\0") != name or not 0 <= used <= allocated or start + _SEGMENT.size + used > size:
        raise _damage(path)
    return int(used)


def _entries(path: Path, file: BinaryIO, start: int, size: int) -> Iterator[tuple[int, bytes]]:
    """The position of every block of pixels, and its entry in the directory."""
    used = _used(path, file, start, b"ZISRAWDIRECTORY", size)
    (count,) = _COUNT.unpack(file.read(_COUNT.size))
    file.seek(start + _SEGMENT.size + _ENTRIES_AT)
    data = file.read(max(0, used - _ENTRIES_AT))
    at = 0
    for _ in range(count):
        entry = _entry(path, data, at)
        at += len(entry)
        yield _ENTRY.unpack_from(entry)[2], entry


def _entry(path: Path, data: bytes, at: int) -> bytes:
    """An entry of a directory, whose numbers can be."""
    if len(data) < at + _ENTRY.size:
        raise _damage(path)
    schema, *_, n_dimensions = _ENTRY.unpack_from(data, at)
    end = at + _ENTRY.size + n_dimensions * _DIMENSION.size
    if schema != b"DV" or not 2 <= n_dimensions <= MOST_DIMENSIONS or end > len(data):
        raise _damage(path)
    for name, begin, length, _, stored in _DIMENSION.iter_unpack(data[at + _ENTRY.size : end]):
        most = LONGEST_SIDE if name.rstrip(b"\0") in (b"X", b"Y") else 1
        if abs(begin) > FARTHEST or not 0 <= length <= most or not 0 <= stored <= most:
            raise _damage(path)
    return data[at:end]


def _check_block(path: Path, file: BinaryIO, start: int, entry: bytes, size: int) -> None:
    used = _used(path, file, start, b"ZISRAWSUBBLOCK", size)
    about, attached, pixels = _BLOCK.unpack(file.read(_BLOCK.size))
    if min(about, attached, pixels) < 0 or about + attached + pixels > used:
        raise _damage(path)
    _entry(path, file.read(len(entry)), 0)


def _damage(path: Path) -> Exception:
    return complaint(
        path, "its directory points to parts that are not there or cannot be", "a sound CZI", "Export or copy it again"
    )
