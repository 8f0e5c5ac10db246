"""Text that microscopes burn into images: well, time, scale bar. A network must not learn from it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from napari_embryo.synthetic.embryo import Style

Pixels = npt.NDArray[np.uint8]

WRITTEN = 0.3
"""Share of the images with burnt-in text."""

BAR_UM = 25


def burn_in(rng: np.random.Generator, image: Pixels, um_per_pixel: float, style: Style) -> Pixels:
    """The image, sometimes with text in its corners, on a pale box or directly."""
    if rng.random() >= WRITTEN:
        return image
    size = max(8, round(min(image.shape) * rng.uniform(0.025, 0.04)))
    ink, paper = _ink(rng)
    if style == "incubator":
        return _write_in_corners(image, _about_the_well(rng), size, ink, paper)
    return _write_scale_bar(rng, image, round(BAR_UM / um_per_pixel), size, ink)


def _ink(rng: np.random.Generator) -> tuple[int, int | None]:
    """Gray values of the letters and of the box behind them, if any."""
    return [(0, 255), (255, 0), (255, None), (230, None)][rng.choice(4, p=[0.5, 0.15, 0.2, 0.15])]


def _about_the_well(rng: np.random.Generator) -> tuple[str, str]:
    well, hours = f"Well {rng.integers(1, 17)}", f"{rng.uniform(20, 90):.1f} h"
    return (well, hours) if rng.random() < 0.7 else (f"Run {rng.integers(1, 500)}", f"{rng.choice([-15, 0, 15])} um")


def _write_in_corners(image: Pixels, texts: Sequence[str], size: int, ink: int, paper: int | None) -> Pixels:
    """Write the first text in the lower left corner and the second in the lower right."""
    from PIL import Image, ImageDraw, ImageFont

    canvas, font = Image.fromarray(image), ImageFont.load_default(size)
    draw = ImageDraw.Draw(canvas)
    height, width = image.shape
    for text, x, anchor in zip(texts, (size, width - size), ("ls", "rs"), strict=True):
        left, top, right, bottom = draw.textbbox((x, height - size), text, font, anchor)
        if paper is not None:
            draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill=paper)
        draw.text((x, height - size), text, ink, font, anchor)
    return np.asarray(canvas).copy()


def _write_scale_bar(rng: np.random.Generator, image: Pixels, length: int, size: int, ink: int) -> Pixels:
    """Draw a scale bar in a lower corner, with its length above it."""
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    height, width = image.shape
    left = size if rng.random() < 0.5 else max(width - size - length, 0)
    y = height - size
    draw.rectangle((left, y, left + length - 1, y + max(size // 8, 1)), fill=ink)
    draw.text((left + length / 2, y - size // 4), f"{BAR_UM}um", ink, ImageFont.load_default(size), "ms")
    return np.asarray(canvas).copy()
