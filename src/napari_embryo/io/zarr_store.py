"""Zarr groups and arrays on this disk, opened with care: no code from the file runs, and no chunk fills the memory."""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from napari_embryo.io.errors import complaint

LARGEST_CHUNK = 2**30
"""Bytes of the largest chunk that is decoded: each plane needs the whole chunk in which it lies."""

_CODECS = frozenset((
    "blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma", "shuffle", "delta", "fixedscaleoffset", "bytes", "crc32c",
    "transpose", "sharding_indexed", "endian",
))  # fmt: skip
"""Compressors and filters of numbers; others, such as pickle, could run code."""


def import_zarr(path: Path) -> Any:
    """zarr, or an error that says how to get it."""
    try:
        import zarr
    except ImportError as error:
        raise complaint(
            path,
            "OME-Zarr needs the package zarr, which is not installed",
            "the extra 'formats' brings it",
            "Run: pip install 'napari-embryo[formats]', or export it as OME-TIFF",
        ) from error
    return zarr


def open_group(path: Path, mode: str = "r") -> Any:
    """The root group of a folder, without consolidated metadata, which may be out of date."""
    return import_zarr(path).open_group(str(path), mode=mode, use_consolidated=False)


def ome_attributes(group: Any) -> Mapping[str, Any]:
    """What a group says as OME-Zarr: under the key ``ome`` from version 0.5 on, directly before."""
    attributes = dict(group.attrs)
    ome = attributes.get("ome", attributes)
    return ome if isinstance(ome, Mapping) else {}


def checked_array(path: Path, group: Any, name: str) -> Any:
    """An array of numbers.

    Raises
    ------
    ImageError
        If it is not there, holds something else, or cannot be decoded safely.
    """
    array = group.get(name)
    if array is None or not hasattr(array, "shape"):
        raise complaint(path, f"its array {name!r} is missing", "a complete OME-Zarr is needed", "Copy it again")
    if array.dtype.kind not in "buif":
        raise complaint(path, f"its array {name!r} holds {array.dtype}", "numbers are needed", "Choose another file")
    unknown = _codecs(array) - _CODECS
    if unknown:
        raise complaint(
            path,
            f"its array {name!r} is encoded with {' and '.join(sorted(unknown))}",
            "compressors of numbers are read, such as zstd, blosc and gzip",
            "Save it again with one of these",
        )
    size = prod(array.chunks) * array.dtype.itemsize
    if size > LARGEST_CHUNK:
        raise complaint(
            path,
            f"the chunks of its array {name!r} have {size / 2**30:.1f} GB each",
            f"at most {LARGEST_CHUNK / 2**30:.0f} GB is decoded at once",
            "Save it with a chunk for every plane",
        )
    return array


def _codecs(array: Any) -> set[str]:
    about = array.metadata.to_dict()
    found = [about.get("compressor"), *(about.get("filters") or ()), *(about.get("codecs") or ())]
    return {_codec_name(codec) for codec in found if codec}


def _codec_name(codec: Any) -> str:
    name = codec.get("id") or codec.get("name") if isinstance(codec, Mapping) else getattr(codec, "codec_id", codec)
    return str(name).removeprefix("numcodecs.")
