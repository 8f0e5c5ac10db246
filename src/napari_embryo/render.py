"""Render images for people: masks drawn over the embryo."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

Rgb = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

COLORS: Mapping[str, Color] = MappingProxyType(
    {
        "ICM": (230, 159, 0),
        "TE": (86, 180, 233),
        "ZP": (0, 158, 115),
        "fragment": (213, 94, 0),
        "embryo": (86, 180, 233),
    }
)
"""Fixed colors of the classes, distinguishable for color-blind readers (Okabe and Ito 2008)."""

CELL_COLORS: Sequence[Color] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (0, 114, 178),
    (213, 94, 0),
)
"""Colors of single cells by number, repeating (Okabe and Ito 2008)."""

_OTHER = (204, 121, 167)
_FILL = 0.28
_MARGIN = 8


def color_of(name: str) -> Color:
    """The color of a class as RGB, 0-255."""
    return COLORS.get(name, _OTHER)


def cell_label_colors(count: int) -> dict[int | None, tuple[float, float, float, float]]:
    """RGBA in [0, 1] for every cell number up to at least ``count``; any other label is gray."""
    numbered: dict[int | None, tuple[float, float, float, float]] = {
        0: (0.0, 0.0, 0.0, 0.0),
        None: (0.6, 0.6, 0.6, 1.0),
    }
    for number in range(1, max(count, len(CELL_COLORS)) + 1):
        red, green, blue = (part / 255 for part in cell_color(number))
        numbered[number] = (red, green, blue, 1.0)
    return numbered


def cell_color(number: int) -> Color:
    """The color of a cell or track by its number, counted from 1."""
    return CELL_COLORS[(number - 1) % len(CELL_COLORS)]


def label_colors(classes: Sequence[str]) -> dict[int | None, tuple[float, float, float, float]]:
    """RGBA in [0, 1] by label: 0 is transparent, i + 1 has the color of class i, None is any other label."""
    named: dict[int | None, str] = {None: "", **dict(enumerate(classes, start=1))}
    shown = {label: (*(part / 255 for part in color_of(name)), 1.0) for label, name in named.items()}
    return {0: (0.0, 0.0, 0.0, 0.0), **shown}  # type: ignore[dict-item]


def label_names(classes: Sequence[str]) -> dict[str, list[int] | list[str]]:
    """Features of a Labels layer that show the class under the mouse."""
    return {"index": list(range(len(classes) + 1)), "class": ["background", *classes]}


def gray_to_rgb(image: npt.NDArray[np.generic]) -> Rgb:
    """(H, W) of any range -> (H, W, 3); the 0.5 and 99.5 % percentiles become black and white."""
    return np.repeat(_gray_8_bit(image)[..., None], 3, axis=2)


def _gray_8_bit(image: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    low, high = (float(value) for value in np.percentile(np.asarray(image)[::2, ::2], (0.5, 99.5)))
    if image.dtype == np.uint8:  # few values: each is looked up
        table = _stretched(np.arange(256), low, high)
        return np.take(table, image.astype(np.intp))
    return _stretched(image, low, high)


def _stretched(gray: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    unit = np.clip((gray.astype(np.float32) - np.float32(low)) / np.float32(max(high - low, 1e-12)), 0, 1)
    stretched: npt.NDArray[np.uint8] = (unit * 255).astype(np.uint8)
    return stretched


def overlay(image: npt.NDArray[np.generic], masks: npt.NDArray[np.bool_], classes: Sequence[str]) -> Rgb:
    """(H, W) image and (C, H, W) masks -> (H, W, 3): a light fill and an opaque outline per class, the last on top."""
    colors = np.array([color_of(name) for name in classes], np.float32).reshape(-1, 3)
    gray = _gray_8_bit(image)
    shown = np.zeros(gray.shape, np.int32)  # bit i: inside class i; 2**C + i: on the outline of class i
    for i, mask in enumerate(masks):
        shown |= mask.astype(np.int32) << i
    for i, mask in enumerate(masks):
        shown[mask & ~_eroded(mask)] = 2 ** len(masks) + i
    table = np.concatenate((_fills(colors), np.repeat(colors[:, None], 256, axis=1).astype(np.uint8)))
    picture: Rgb = np.take(table.reshape(-1, 3), 256 * shown + gray, axis=0)  # four times as fast as indexing
    return picture


def overlay_cells(image: npt.NDArray[np.generic], masks: npt.NDArray[np.bool_], numbers: Sequence[int]) -> Rgb:
    """Draw single cells over their image: the full outline of each, even where others overlap, and its number.

    Parameters
    ----------
    image
        (H, W).
    masks
        (N, H, W) complete silhouettes; where they overlap, their fills blend.
    numbers
        N numbers, counted from 1; each number has a fixed color.

    Returns
    -------
    array
        (H, W, 3) uint8.
    """
    picture = gray_to_rgb(image).astype(np.float32)
    colors = [cell_color(number) for number in numbers]
    for mask, color in zip(masks, colors, strict=True):
        picture[mask] = picture[mask] * np.float32(1 - _FILL) + np.float32(_FILL) * np.array(color, np.float32)
    drawn = picture.astype(np.uint8)
    for mask, color in zip(masks, colors, strict=True):
        drawn[mask & ~_eroded(mask)] = color
    return _with_numbers(drawn, masks, numbers)


def _with_numbers(picture: Rgb, masks: npt.NDArray[np.bool_], numbers: Sequence[int]) -> Rgb:
    """Write each number in the middle of its cell, with a dark border so that it is legible on any background."""
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    for mask, number in zip(masks, numbers, strict=True):
        if mask.any():
            y, x = (float(places.mean()) for places in np.nonzero(mask))
            draw.text((x, y), str(number), fill=(255, 255, 255), anchor="mm", stroke_width=1, stroke_fill=(0, 0, 0))
    return np.asarray(canvas)


def _fills(colors: npt.NDArray[np.float32]) -> Rgb:
    """(2**C, 256, 3): the color of each gray value in each combination of classes, the last class blended last."""
    gray = np.arange(256, dtype=np.float32)[:, None].repeat(3, axis=1)
    tables = gray[None]
    for color in colors:
        tables = np.concatenate((tables, tables * np.float32(1 - _FILL) + color * np.float32(_FILL)))
    return tables.astype(np.uint8)


def _eroded(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Remove the outermost pixels: one, plus one per 300 pixels of image size; the image border counts as an edge."""
    size = 2 * max(1, min(mask.shape) // 300) + 1
    eroded: npt.NDArray[np.bool_] = ndimage.minimum_filter(mask, size, mode="constant", cval=0)
    return eroded


def with_legend(picture: Rgb, classes: Sequence[str], title: str = "", colors: Sequence[Color] = ()) -> Rgb:
    """The image with a line of text below it: title and color key.

    Parameters
    ----------
    picture
        (H, W, 3).
    classes
        Their names, in the order of the key.
    title
        Text beside the key.
    colors
        Colors of the classes in order, repeating; by default those of :func:`color_of`.
    """
    shown = [colors[i % len(colors)] if colors else color_of(name) for i, name in enumerate(classes)]
    strip = Image.new("RGB", (picture.shape[1], 14 + _MARGIN), (20, 20, 20))
    draw = ImageDraw.Draw(strip)
    x = _MARGIN
    for name, color in zip(classes, shown, strict=True):
        draw.rectangle((x, 6, x + 9, 15), fill=color)
        draw.text((x + 14, 5), name, fill=(235, 235, 235))
        x += 22 + int(draw.textlength(name))
    x += _MARGIN
    draw.text((x, 5), title, fill=(170, 170, 170), font=_font_that_fits(title, strip.width - x))
    return np.concatenate((picture, np.asarray(strip)))


_FONT_SIZES = range(10, 5, -1)
"""From Pillow's default down to the smallest legible size."""


def _font_that_fits(text: str, room: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    fonts = (ImageFont.load_default(size) for size in _FONT_SIZES)
    return next((font for font in fonts if font.getlength(text) <= room), ImageFont.load_default(_FONT_SIZES[-1]))


def tiled(pictures: Sequence[Rgb], columns: int) -> Rgb:
    """Arrange images of equal size in a grid, row by row; empty places are black."""
    blank = np.zeros_like(pictures[0])
    padded = [*pictures, *[blank] * (-len(pictures) % columns)]
    rows = [np.concatenate(padded[i : i + columns], axis=1) for i in range(0, len(padded), columns)]
    return np.concatenate(rows)
