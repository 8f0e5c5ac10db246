"""The options that say how files are read, shared by the commands that open images."""

import re
from typing import Annotated

import typer

from napari_embryo import io
from napari_embryo.io import Gaps, Grouping, OpenChoices

GroupingOption = Annotated[
    Grouping,
    typer.Option(
        help="Files of a folder. auto: one embryo where their names count frames or planes (RUN, frame, t, hours, "
        "F-15, z, zid, FP), otherwise one embryo each; stack: all are frames of one embryo; separate: one embryo each."
    ),
]
Axes = Annotated[
    str | None,
    typer.Option(
        help="What the axes of a stack are, in the order in which they are stored: T time, F or Z focal planes, C "
        "channels, then YX; such as TYX."
    ),
]
Hours = Annotated[float | None, typer.Option(help="Hours after insemination at the first frame.")]
Interval = Annotated[float | None, typer.Option(help="Hours between two frames.", min=1e-9)]
Spacing = Annotated[float | None, typer.Option(help="Micrometers between two focal planes.", min=1e-9)]
GapsOption = Annotated[Gaps, typer.Option(help="Missing runs: leave out (hours keep the gap) or empty (black frames).")]
PixelSize = Annotated[
    str | None,
    typer.Option(help="Micrometers per pixel, one number or height x width; used instead of what the files say."),
]
Focus = Annotated[
    str, typer.Option(help="What to use of several focal planes: best (the sharpest) or edf (extended depth of field).")
]


def open_choices(
    *,
    axes: str | None = None,
    hours: float | None = None,
    interval: float | None = None,
    spacing: float | None = None,
    gaps: Gaps = "leave out",
    pixel_size: str | None = None,
    focus: str = "best",
) -> OpenChoices:
    """Parse the options.

    Raises
    ------
    ValueError
        If an option is invalid; the message names it, what was given and what is needed.
    """
    return OpenChoices(
        axes=axes,
        pixel_size_um=None if pixel_size is None else _sides(pixel_size),
        hours_per_frame=interval,
        first_hour=hours,
        focus=_focus(focus),
        gaps=gaps,
        spacing_um=spacing,
    )


def _sides(text: str) -> tuple[float, float]:
    try:
        sides = [float(part.strip().replace(",", ".")) for part in re.split(r"[x×]", text)]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or not all(0 < side < float("inf") for side in sides):
        raise ValueError(
            f"--pixel-size: {text!r} was given; micrometers above 0 are needed, one number or height x width"
        )
    return sides[0], sides[-1]


def _focus(name: str) -> io.Focus:
    if name not in ("best", "edf"):
        raise ValueError(f"--focus {name!r} is not known; choose best or edf")
    return "best" if name == "best" else "edf"
