"""The plan for one image: metadata of its files and choices of the user, before a pixel is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_embryo.io.header import Header
from napari_embryo.io.numbers import missing_numbers, ranges_text, regular_step

Focus = Literal["all", "best", "edf"]
"""How to use focal planes: keep all, the sharpest one per frame, or an extended depth of field per frame."""

Gaps = Literal["leave out", "empty"]
"""How to treat missing runs: no frame (hours keep the gap), or an empty frame in their place."""

Grid = tuple[tuple[Path | None, ...], ...]

PLAUSIBLE_UM = (0.05, 5.0)
"""Pixel sizes in micrometers that an image of an embryo can have; others are not used until the user confirms them."""


@dataclass(frozen=True)
class OpenChoices:
    """Choices of the user about a plan; None keeps what the files state.

    Parameters
    ----------
    axes
        Order of the axes as stored, such as "TYX", "FYX", "TFYX", "FTYX", "CYX".
    pixel_size_um
        Height and width of a pixel.
    hours_per_frame
        Hours between two runs.
    first_hour
        Hours at the first frame.
    focus
        How to use focal planes.
    gaps
        How to treat missing runs.
    spacing_um
        Micrometers between two focal planes.
    """

    axes: str | None = None
    pixel_size_um: tuple[float, float] | None = None
    hours_per_frame: float | None = None
    first_hour: float | None = None
    focus: Focus = "all"
    gaps: Gaps = "leave out"
    spacing_um: float | None = None


@dataclass(frozen=True)
class Frame:
    """The files of one frame, one per focal plane; None: there is no such file."""

    files: tuple[Path | None, ...]
    run: int | None = None
    hours: float | None = None


@dataclass(frozen=True)
class PlannedImage:
    """One image that will be opened.

    Parameters
    ----------
    name
        Name of the image.
    files
        By frame and focal plane; one row and one column for a single file. None: there is no such file.
    header
        Metadata of the first file.
    axes
        Letters of the leading axes in the order in which they are stored, without channels, then "YX".
    runs, row_hours
        One number per row of ``files``, if known.
    focus_um
        One per focal plane, if known.
    channel
        Which channel of the file.
    pixel_size_um, hours_per_frame, first_hour
        Values given by the user, or otherwise by the files.
    focus, gaps
        See `Focus` and `Gaps`.
    assumed
        Assumptions that no file states.
    problems
        What went wrong with some of the files.
    info
        Date, slide, instrument, well, grade, phases.
    are_axes_assumed
        Whether the file does not say what its axes are.
    """

    name: str
    files: Grid
    header: Header
    axes: str
    runs: tuple[int, ...] | None = None
    row_hours: tuple[float, ...] | None = None
    focus_um: tuple[float, ...] | None = None
    channel: int = 0
    pixel_size_um: tuple[float, float] | None = None
    hours_per_frame: float | None = None
    first_hour: float | None = None
    focus: Focus = "all"
    gaps: Gaps = "leave out"
    assumed: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)
    are_axes_assumed: bool = False

    @property
    def is_one_file(self) -> bool:
        return len(self.files) == 1 and len(self.files[0]) == 1

    @property
    def is_channel(self) -> bool:
        """Whether the file holds several channels, of which it is one."""
        return self.is_one_file and self.header.sizes.get("C", 1) > 1

    @property
    def source(self) -> Path:
        """The file, or the folder of the first file."""
        return self.header.path if self.is_one_file else self.header.path.parent

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The rows to read, with gaps left out or empty."""
        runs = self.runs or (None,) * len(self.files)
        hours = self.row_hours or (None,) * len(self.files)
        rows = tuple(Frame(files, run, hour) for files, run, hour in zip(self.files, runs, hours, strict=True))
        complete = tuple(frame for frame in rows if None not in frame.files)
        if self.runs is None or not self.has_frames or (complete and self.gaps == "leave out"):
            return complete or rows
        return self._with_empty_frames(rows)

    def _with_empty_frames(self, rows: tuple[Frame, ...]) -> tuple[Frame, ...]:
        by_run = {frame.run: frame for frame in rows}
        known = self.runs or ()
        runs = sorted((*known, *self.missing_runs))
        hours = [None] * len(runs) if self.row_hours is None else np.interp(runs, known, self.row_hours).tolist()
        empty = (None,) * len(self.files[0])
        return tuple(by_run.get(run) or Frame(empty, run, hour) for run, hour in zip(runs, hours, strict=True))

    @property
    def rows(self) -> Grid:
        """The files that will be read, by frame and focal plane."""
        return tuple(frame.files for frame in self.frames)

    @property
    def read_runs(self) -> tuple[int, ...] | None:
        """The run of every frame, if known."""
        runs = tuple(frame.run for frame in self.frames if frame.run is not None)
        return runs or None

    @property
    def has_frames(self) -> bool:
        return len(self.files) > 1

    @property
    def missing_runs(self) -> tuple[int, ...]:
        return missing_numbers(self.runs or ())

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """One length per letter of ``axes``."""
        if self.is_one_file:
            header = self.header
            return tuple(size for axis, size in zip(header.axes, header.shape, strict=True) if axis not in "CS")
        grid = (len(self.rows), len(self.files[0]))
        return (*(size for size in grid if size > 1 or len(self.axes) == 4), *self.header.hw)[-len(self.axes) :]

    @property
    def sizes(self) -> dict[str, int]:
        return dict(zip(self.axes, self.stored_shape, strict=True))

    @property
    def final_axes(self) -> str:
        """The opened image's axes, before best focus."""
        return "".join(axis for axis in "TFYX" if axis in self.axes)

    @property
    def file_axes(self) -> str:
        """The stored axes, including channels."""
        return self.header.axes.removesuffix("S") if self.is_one_file else self.axes

    @property
    def axes_choices(self) -> tuple[str, ...]:
        """The possible meanings of the stored axes."""
        n_leading = len(self.file_axes) - 2
        if self.is_one_file:
            return tuple("".join(leading) + "YX" for leading in permutations("TFC", n_leading))
        return (self.axes,) if n_leading == 2 else tuple("".join(each) + "YX" for each in permutations("TF", n_leading))

    @property
    def hours(self) -> tuple[float, ...] | None:
        """One per frame: from the interval and the runs, so that missing runs leave a gap, or as in the files."""
        n_frames = self.sizes.get("T", 0)
        if not n_frames:
            return None
        if self.hours_per_frame is None:
            known = self._known_hours()
            return self._shifted(known) if known is not None and len(known) == n_frames else None
        runs = self.read_runs or tuple(range(n_frames))
        step = regular_step(runs) if len(runs) == n_frames else 1
        return tuple((self.first_hour or 0.0) + self.hours_per_frame * (run - runs[0]) / step for run in runs)

    def _known_hours(self) -> tuple[float, ...] | None:
        if self.is_one_file:
            return self.header.hours
        return None if self.row_hours is None else tuple(frame.hours or 0.0 for frame in self.frames)

    def _shifted(self, hours: tuple[float, ...]) -> tuple[float, ...]:
        return hours if self.first_hour is None else tuple(self.first_hour + hour - hours[0] for hour in hours)

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages for the user: assumptions, notes of the file, and doubts."""
        return (*self.assumed, *self.header.notes, *self._pixel_size_note(), *self._focus_note())

    def _focus_note(self) -> tuple[str, ...]:
        if "F" not in self.axes or self.focus == "all":
            return ()
        used = "the sharpest one" if self.focus == "best" else "one image of all (extended depth of field)"
        each = " of each frame" if "T" in self.axes else ""
        return (f"of {self.sizes['F']} focal planes {used}{each} is used",)

    def _pixel_size_note(self) -> tuple[str, ...]:
        said, used = self.header.pixel_size_um, self.pixel_size_um
        if said is None or said == used:
            return ()
        if used is None:
            low, high = PLAUSIBLE_UM
            return (
                f"the file says {size_text(said)}, which no image of an embryo has ({low:g} to {high:g}): it is not "
                "used. Give the pixel size if you know it",
            )
        return (f"{size_text(used)} as given is used; the file says {size_text(said)}",)

    def edited(self, choices: OpenChoices) -> "PlannedImage":
        """The same image with the user's sizes; for other axes see `napari_embryo.io.OpenPlan.edited`."""
        known = {
            key: value
            for key in ("pixel_size_um", "hours_per_frame", "first_hour")
            if (value := getattr(choices, key)) is not None
        }
        n_planes = self.sizes.get("F", 0)
        if choices.spacing_um is not None and n_planes:
            known["focus_um"] = tuple(choices.spacing_um * place for place in range(n_planes))
        return replace(self, focus=choices.focus, gaps=choices.gaps, **known)

    def text(self) -> str:
        """Description of what will be opened."""
        counts = [
            f"{self.sizes[axis]} {word}" for axis, word in (("T", "frames"), ("F", "planes")) if axis in self.axes
        ]
        height, width = self.header.hw
        facts = [*counts, f"{width} x {height} {self.header.dtype}", self._pixel_text()]
        facts += [self._hours_text()] if "T" in self.axes else []
        facts += [_FOCUS_TEXT[self.focus]] if "F" in self.axes and self.focus != "all" else []
        lines = [f"{self.name}: {', '.join(facts)}"]
        if self.missing_runs:
            lines.append(f"missing runs: {ranges_text(self.missing_runs)} ({_GAPS_TEXT[self.gaps]})")
        lines += [f"assumed: {text}" for text in self.assumed]
        lines += [f"note: {text}" for text in self.notes[len(self.assumed) :]]
        return "\n    ".join([*lines, *(f"problem: {text}" for text in self.problems)])

    def _pixel_text(self) -> str:
        return "no pixel size known" if self.pixel_size_um is None else size_text(self.pixel_size_um)

    def _hours_text(self) -> str:
        hours = self.hours
        return "no hours known" if hours is None else f"{hours[0]:.4g} to {hours[-1]:.4g} h"


def size_text(pixel_size_um: tuple[float, float]) -> str:
    """Width and height of a pixel as text, such as "0.5 um/px"."""
    height, width = pixel_size_um
    return f"{width:.4g} um/px" if height == width else f"{width:.4g} x {height:.4g} um/px"


def believed(pixel_size_um: tuple[float, float] | None) -> tuple[float, float] | None:
    """The size, if an image of an embryo can have it."""
    low, high = PLAUSIBLE_UM
    is_plausible = pixel_size_um is not None and all(low <= side <= high for side in pixel_size_um)
    return pixel_size_um if is_plausible else None


_FOCUS_TEXT = {"best": "best focus of each frame", "edf": "extended depth of field"}
_GAPS_TEXT = {"leave out": "left out, their time is kept", "empty": "shown as empty frames"}
