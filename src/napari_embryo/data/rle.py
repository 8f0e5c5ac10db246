"""COCO's run lengths: down the columns, starting with background, as numbers or as COCO's text."""

from collections.abc import Sequence

import numpy as np

from napari_embryo.data.sample import Bools

_FIRST_CHARACTER = 48
_PAYLOAD, _MORE, _NEGATIVE = 0x1F, 0x20, 0x10


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
        When the runs do not fill the picture exactly.
    """
    lengths = np.asarray(decompress(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    height, width = size
    if (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError(f"run lengths for {lengths.sum()} pixels came; the mask has {height} x {width}")
    is_inside = np.arange(len(lengths)) % 2 == 1
    mask: Bools = np.repeat(is_inside, lengths).reshape(width, height).T
    return mask


def encode(mask: Bools) -> list[int]:
    """Lengths of the runs of an (H, W) mask, background first; :func:`compress` makes text of them."""
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
    """Run lengths of COCO's text: five bits a character, from the fourth on as a difference to the last but one.

    Raises
    ------
    ValueError
        When the text breaks off or has a character that is not COCO's.
    """
    lengths: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - _FIRST_CHARACTER
        if not 0 <= bits < 64:
            raise ValueError(f"{character!r} is no character of COCO's run lengths")
        value |= (bits & _PAYLOAD) << shift
        shift += 5
        if not bits & _MORE:
            signed = value - (1 << shift) if bits & _NEGATIVE else value
            lengths.append(signed + (lengths[-2] if len(lengths) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise ValueError("COCO's run lengths break off in the middle of a number")
    return lengths
