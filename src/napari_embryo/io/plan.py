"""What will be opened, and as what: decided and shown before a pixel is read, every part editable."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

from napari_embryo.io.errors import ImageError, complaint
from napari_embryo.io.headers import Header, read_header
from napari_embryo.io.names import missing_numbers, ranges_text, regular_step
from napari_embryo.io.ome import stem

Focus = Literal["all", "best", "edf"]
"""What becomes of focal planes: all kept, the sharpest one per frame, one extended-depth-of-field picture per frame."""

Gaps = Literal["leave out", "empty"]
"""What becomes of missing runs: no frame (hours keep the gap), or an empty frame in their place."""

Grouping = Literal["auto", "stack", "separate"]
"""How the files of a folder belong together: as their names say, all in one stack, each on its own."""

Grid = tuple[tuple[Path | None, ...], ...]


@dataclass(frozen=True)
class OpenChoices:
    """What a user decides about a plan; None leaves what the files say.

    Parameters
    ----------
    axes
        Order of the axes as stored, such as "TYX", "FYX", "TFYX", "FTYX".
    pixel_size_um
        Height and width of a pixel.
    hours_per_frame
        Hours between two runs.
    first_hour
        Hours at the first frame.
    focus
        What becomes of focal planes.
    gaps
        What becomes of missing runs.
    """

    axes: str | None = None
    pixel_size_um: tuple[float, float] | None = None
    hours_per_frame: float | None = None
    first_hour: float | None = None
    focus: Focus = "all"
    gaps: Gaps = "leave out"


@dataclass(frozen=True)
class PlannedImage:
    """One image that will be opened.

    Parameters
    ----------
    name
        What it will be called.
    files
        By frame and focal plane; one row and one column for a single file. None: there is no such file.
    header
        What the first file says about itself.
    axes
        Letters of the leading axes in the order in which they are stored, then "YX".
    runs
        One number per row of ``files``, where the names have them.
    focus_um
        One per focal plane, where known.
    channel
        Which channel of the file.
    pixel_size_um, hours_per_frame, first_hour
        What the user says, or the files.
    focus, gaps
        See `Focus` and `Gaps`.
    assumed
        What no file says and was taken to be so.
    problems
        What went wrong with some of the files.
    info
        Date, slide, instrument, well, grade.
    """

    name: str
    files: Grid
    header: Header
    axes: str
    runs: tuple[int, ...] | None = None
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

    @property
    def is_one_file(self) -> bool:
        return len(self.files) == 1 and len(self.files[0]) == 1

    @property
    def source(self) -> Path:
        """The file, or the folder of the first file."""
        return self.header.path if self.is_one_file else self.header.path.parent

    @property
    def rows(self) -> Grid:
        """The files that will be read, by frame and focal plane, gaps left out or empty."""
        return tuple(files for _, files in self._timed_rows())

    @property
    def read_runs(self) -> tuple[int, ...] | None:
        """The run of every row, where known."""
        return None if self.runs is None else tuple(run for run, _ in self._timed_rows())

    def _timed_rows(self) -> tuple[tuple[int, tuple[Path | None, ...]], ...]:
        runs = self.runs or tuple(range(len(self.files)))
        by_run = dict(zip(runs, self.files, strict=True))
        complete = tuple((run, files) for run, files in by_run.items() if None not in files)
        if complete and self.gaps == "leave out" and self.has_frames:
            return complete
        empty = (None,) * len(self.files[0])
        return tuple((run, by_run.get(run, empty)) for run in sorted((*runs, *missing_numbers(runs))))

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
    def axes_choices(self) -> tuple[str, ...]:
        """The meanings that the stored axes can have."""
        n_leading = len(self.axes) - 2
        if not self.is_one_file and n_leading == 2:
            return (self.axes,)
        return tuple("".join(leading) + "YX" for leading in permutations("TF", n_leading))

    @property
    def hours(self) -> tuple[float, ...] | None:
        """One per frame: from the interval and the runs, so that missing runs leave a gap, or as the file says."""
        n_frames = self.sizes.get("T", 0)
        if not n_frames:
            return None
        if self.hours_per_frame is None:
            known = self.header.hours
            return self._shifted(known) if known is not None and len(known) == n_frames else None
        runs = self.read_runs or tuple(range(n_frames))
        step = regular_step(runs) if len(runs) == n_frames else 1
        return tuple((self.first_hour or 0.0) + self.hours_per_frame * (run - runs[0]) / step for run in runs)

    def _shifted(self, hours: tuple[float, ...]) -> tuple[float, ...]:
        return hours if self.first_hour is None else tuple(self.first_hour + hour - hours[0] for hour in hours)

    def edited(self, choices: OpenChoices) -> "PlannedImage":
        """The same image as the user wants it.

        Raises
        ------
        ImageError
            If the axes cannot be read that way.
        """
        image = self if choices.axes in (None, self.axes) else self._with_axes(str(choices.axes))
        known = {
            key: value
            for key in ("pixel_size_um", "hours_per_frame", "first_hour")
            if (value := getattr(choices, key)) is not None
        }
        return replace(image, focus=choices.focus, gaps=choices.gaps, **known)

    def _with_axes(self, axes: str) -> "PlannedImage":
        if axes not in self.axes_choices:
            raise complaint(
                self.header.path,
                f"the axes {axes!r} were asked for an image of shape {self.stored_shape}",
                f"it can be read as {' or '.join(self.axes_choices)}",
                "Choose one of these",
            )
        focus_um = self.focus_um if self.focus_um and len(self.focus_um) == self._size_as(axes, "F") else None
        return replace(self, axes=axes, focus_um=focus_um, assumed=())

    def _size_as(self, axes: str, axis: str) -> int:
        return dict(zip(axes, self.stored_shape, strict=True)).get(axis, 0)

    def text(self) -> str:
        """What will be opened, for a reader."""
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
        lines += [f"note: {text}" for text in self.header.notes]
        return "\n    ".join([*lines, *(f"problem: {text}" for text in self.problems)])

    def _pixel_text(self) -> str:
        if self.pixel_size_um is None:
            return "no pixel size known"
        height, width = self.pixel_size_um
        return f"{width:.4g} um/px" if height == width else f"{width:.4g} x {height:.4g} um/px"

    def _hours_text(self) -> str:
        hours = self.hours
        return "no hours known" if hours is None else f"{hours[0]:.4g} to {hours[-1]:.4g} h"


_FOCUS_TEXT = {"best": "best focus of each frame", "edf": "extended depth of field"}
_GAPS_TEXT = {"leave out": "left out, their time is kept", "empty": "shown as empty frames"}


@dataclass(frozen=True)
class OpenPlan:
    """What a file or folder will become.

    Parameters
    ----------
    path
        The file or folder.
    images
        In natural order.
    problems
        Files that cannot be opened, and why.
    notes
        What else a reader should know.
    """

    path: Path
    images: tuple[PlannedImage, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def edited(self, choices: OpenChoices) -> "OpenPlan":
        """The same plan as the user wants it; axes are changed where an image can have them."""
        return replace(self, images=tuple(_edited_where_possible(image, choices) for image in self.images))

    @property
    def axes_choices(self) -> tuple[str, ...]:
        """The meanings that the axes of the first image can have."""
        return self.images[0].axes_choices if self.images else ()

    def text(self, most: int = 20) -> str:
        """The plan for a reader, such as "12 frames, 7 planes, no pixel size known"."""
        lines = [f"{self.path.name}: {_count(len(self.images), 'image')}"]
        lines += [f"  {image.text()}" for image in self.images[:most]]
        lines += [f"  ... and {len(self.images) - most} more"] if len(self.images) > most else []
        lines += [f"note: {text}" for text in self.notes]
        lines += [f"cannot be opened: {text}" for text in self.problems[:most]]
        lines += [f"... and {len(self.problems) - most} more"] if len(self.problems) > most else []
        return "\n".join(lines)


def _edited_where_possible(image: PlannedImage, choices: OpenChoices) -> PlannedImage:
    fits = choices.axes is None or choices.axes in image.axes_choices
    return image.edited(choices if fits else replace(choices, axes=None))


def _count(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def plan_file(path: Path | str) -> OpenPlan:
    """Look at one file without reading its pixels.

    Parameters
    ----------
    path
        TIFF, OME-TIFF, PNG, JPEG, BMP, NPY, AVI or MP4.

    Returns
    -------
    OpenPlan
        One image, or one per channel.

    Raises
    ------
    ImageError
        Naming the file, what it holds, what is needed and what to do.
    """
    path = Path(path)
    return OpenPlan(path, plan_of_header(read_header(path)))


def plan_of_header(header: Header) -> tuple[PlannedImage, ...]:
    """The images in one file."""
    axes, assumed = _name_axes(header)
    if assumed:
        header = replace(header, axes=_fill_in(header.axes, axes))
    sizes = header.sizes
    name = stem(header.path)
    whole = PlannedImage(
        name=name,
        files=((header.path,),),
        header=header,
        axes=axes + "YX",
        focus_um=header.focus_um,
        pixel_size_um=header.pixel_size_um,
        assumed=assumed,
    )
    if sizes.get("C", 1) == 1:
        return (whole,)
    names = header.names or tuple(f"channel {i + 1}" for i in range(sizes["C"]))
    return tuple(replace(whole, name=f"{name} {each}", channel=i) for i, each in enumerate(names))


def _name_axes(header: Header) -> tuple[str, tuple[str, ...]]:
    """Letters of the leading axes that are not channels; and what was assumed to find them."""
    leading = header.axes[: header.axes.index("Y")].replace("C", "")
    free = [axis for axis in "TF" if axis not in leading]
    if leading.count("?") > len(free) or len(set(leading.replace("?", ""))) < len(leading.replace("?", "")):
        raise complaint(
            header.path,
            f"it has {len(header.shape)} axes of shape {header.shape} and does not say what they mean",
            "at most time and focal planes before Y and X are understood",
            "Save one part of it, or an OME-TIFF with named axes",
        )
    named = "".join(free.pop(0) if axis == "?" else axis for axis in leading)
    said = zip(leading, named, header_sizes_without_channels(header), strict=False)
    assumed = tuple(
        f"the axis of length {size} is {_WORDS[axis]} (the file does not say)" for old, axis, size in said if old == "?"
    )
    return named, assumed


_WORDS = {"T": "time", "F": "focal planes"}


def header_sizes_without_channels(header: Header) -> tuple[int, ...]:
    return tuple(size for axis, size in zip(header.axes, header.shape, strict=True) if axis != "C")


def _fill_in(axes: str, named: str) -> str:
    letters = iter(named)
    return "".join(axis if axis in "CYXS" else next(letters) for axis in axes)


def check_is_one(plan: OpenPlan) -> PlannedImage:
    """The only image of a plan."""
    if len(plan.images) != 1:
        names = ", ".join(image.name for image in plan.images[:4])
        raise ImageError(
            f"{plan.path}: it holds {len(plan.images)} images ({names}); one is needed. "
            "Use plan_file and open_plan, which open each of them."
        )
    return plan.images[0]
