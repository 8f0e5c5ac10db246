"""From what a file stores to what it shows: gray values, colors, orientation. Arrays only."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LUMA = (19595, 38470, 7471)
"""ITU-R BT.601 weights (0.299, 0.587, 0.114) in 1 / 65536, those of every JPEG; equal samples give their own value."""

ROWS_AT_ONCE = 1024
"""Weighing needs several times the memory of the rows it works on."""


def to_gray(pixels: Array) -> Array:
    """Gray values of color samples in the last axis, by the ITU-R BT.601 weights and in the type of the samples.

    Parameters
    ----------
    pixels
        (..., Y, X, S) with S = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha; alpha is ignored.

    Returns
    -------
    ndarray
        (..., Y, X), the same dtype.
    """
    if pixels.shape[-1] < 3:
        first: Array = pixels[..., 0]
        return first
    gray = np.empty(pixels.shape[:-1], pixels.dtype)
    for start in range(0, pixels.shape[-3], ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        gray[..., rows, :] = _weigh(pixels[..., rows, :, :])
    return gray


def _weigh(pixels: Array) -> Array:
    if pixels.dtype in (np.uint8, np.uint16):
        red, green, blue = (pixels[..., i].astype(np.uint32) * np.uint32(weight) for i, weight in enumerate(LUMA))
        gray: Array = ((red + green + blue + np.uint32(1 << 15)) >> np.uint32(16)).astype(pixels.dtype)
        return gray
    weighed = pixels[..., :3].astype(np.float64) @ (np.array(LUMA) / 65536)
    values: Array = (weighed if pixels.dtype.kind == "f" else np.rint(weighed)).astype(pixels.dtype)
    return values


def inverted(pixels: Array, bits: int) -> Array:
    """Gray values of a picture in which 0 is white."""
    white = pixels.dtype.type(2**bits - 1)
    dark: Array = white - pixels
    return dark


def from_palette(indices: Array, colors: Array) -> Array:
    """Colors (..., 3) of the entries of a TIFF's palette, or gray values where all entries are gray.

    Parameters
    ----------
    indices
        (Y, X).
    colors
        (3, N), 16 bit as TIFF has them, or 8 bit as some programs write.
    """
    eight_bit = (colors // 256 if colors.max(initial=0) > 255 else colors).astype(np.uint8)
    entries = eight_bit[0] if is_gray(colors) else np.ascontiguousarray(eight_bit.T)
    shown: Array = entries[indices]
    return shown


def is_gray(colors: Array) -> bool:
    """Whether every entry of a palette (3, N) is gray."""
    return bool((colors[0] == colors[1]).all() and (colors[0] == colors[2]).all())


def from_cmyk(inks: Array) -> Array:
    """RGB of cyan, magenta, yellow and black in the last axis, as without a color profile."""
    most = np.iinfo(inks.dtype).max
    paper = most - inks[..., :4].astype(np.uint64)
    rgb: Array = ((paper[..., :3] * paper[..., 3:] + most // 2) // most).astype(inks.dtype)
    return rgb


def from_ycbcr(samples: Array) -> Array:
    """RGB of 8-bit luminance and two color differences in the last axis (ITU-R BT.601, full range)."""
    luminance, blue, red = (samples[..., i].astype(np.float64) - (128 if i else 0) for i in range(3))
    rgb = np.stack(
        [luminance + 1.402 * red, luminance - 0.344136 * blue - 0.714136 * red, luminance + 1.772 * blue], axis=-1
    )
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def widened(pixels: Array, bits: int) -> Array:
    """Gray values of fewer than 8 bits over the whole range of 8 bits, as every viewer shows them."""
    return pixels.astype(np.uint8) * np.uint8(255 // (2**bits - 1))


def upright(pixels: Array, orientation: int) -> Array:
    """The picture as it is shown, by the orientation that EXIF and TIFF files state.

    Parameters
    ----------
    pixels
        (Y, X) or (Y, X, S), as stored.
    orientation
        1 to 8; 1 is upright.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
