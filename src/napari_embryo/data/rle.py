"""COCO's run lengths: down the columns, starting with the background, as numbers or as COCO's text."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from napari_embryo.data.sample import Bools

_FIRST_CHARACTER = 48
_PAYLOAD, _MORE, _NEGATIVE = 0x1F, 0x20, 0x10
_MOST_CHARACTERS = 12
"""Of one number, with five bits per character; COCO itself needs seven."""


def decode(counts: Sequence[int] | str, size: tuple[int, int]) -> Bools:
    """(H, W) bool.

    Parameters
    ----------
    counts
        Lengths of the runs, or COCO's compressed text of them.
    size
        Height and width.

    Raises
    ------
    ValueError
        If the runs do not fill the picture exactly.
    """
    height, width = size
    if len(counts) > _MOST_CHARACTERS * (height * width + 2):
        raise ValueError(f"{len(counts)} run lengths or characters are more than a mask of {height} x {width} can have")
    lengths = np.asarray(decompress(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    total = lengths.sum()
    if lengths.ndim != 1 or (lengths < 0).any() or (lengths > height * width).any() or total != height * width:
        raise ValueError(f"run lengths for {total} pixels, but the mask has {height} x {width}")
    is_inside = np.arange(len(lengths)) % 2 == 1
    mask: Bools = np.repeat(is_inside, lengths).reshape(width, height).T
    return mask


def encode(mask: Bools) -> list[int]:
    """Lengths of the runs of an (H, W) mask, background first; :func:`compress` turns them into text."""
    flat = np.concatenate(([False], mask.T.ravel()))
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    lengths: list[int] = np.diff(np.concatenate(([0], ends, [mask.size]))).tolist()
    return lengths


def compress(lengths: Sequence[int]) -> str:
    """COCO's text of run lengths, the inverse of :func:`decompress`."""
    earlier = (0, 0, 0, *lengths[1:])  # from the fourth on, the last but one
    return "".join(_characters(length - before) for length, before in zip(lengths, earlier, strict=False))


def _characters(value: int) -> str:
    """Five bits each, the lowest first; the last one's highest bit is the sign."""
    text = ""
    while True:
        bits, value = value & _PAYLOAD, value >> 5
        if value == (-1 if bits & _NEGATIVE else 0):
            return text + chr(bits + _FIRST_CHARACTER)
        text += chr((bits | _MORE) + _FIRST_CHARACTER)


def decompress(text: str) -> list[int]:
    """Run lengths of COCO's text: five bits per character, from the fourth on as a difference to the last but one.

    Raises
    ------
    ValueError
        If the text breaks off or has a character that COCO does not write.
    """
    bits = _bits(text)
    is_last = bits & _MORE == 0
    if len(bits) and not is_last[-1]:
        raise ValueError("COCO's run lengths break off in the middle of a number")
    starts = np.concatenate(([0], np.flatnonzero(is_last)[:-1] + 1)).astype(np.intp)[: is_last.sum()]
    place = np.arange(len(bits)) - np.repeat(starts, np.diff(np.append(starts, len(bits))))
    if len(place) and place.max() >= _MOST_CHARACTERS:
        raise ValueError("a number in COCO's run lengths has too many characters")
    values = np.add.reduceat((bits & _PAYLOAD) << 5 * place, starts) if len(starts) else np.zeros(0, np.int64)
    ends = np.flatnonzero(is_last)
    values = values - np.where(bits[ends] & _NEGATIVE, np.int64(1) << 5 * (place[ends] + 1), 0)
    return _summed(values)


def _bits(text: str) -> npt.NDArray[np.int64]:
    """Six bits of each character."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64) - _FIRST_CHARACTER
    strange = np.flatnonzero((codes < 0) | (codes >= 2 * _MORE))
    if len(strange):
        raise ValueError(f"{text[strange[0]]!r} is not a character of COCO's run lengths")
    return codes


def _summed(values: npt.NDArray[np.int64]) -> list[int]:
    """From the third run on, every second one was stored as the difference to the one before."""
    lengths = values.copy()
    lengths[1::2] = np.cumsum(values[1::2])
    lengths[2::2] = np.cumsum(values[2::2])
    whole: list[int] = lengths.tolist()
    return whole
