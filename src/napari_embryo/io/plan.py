"""The plan for reading a file or folder: made and shown before a pixel is read, and editable."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from napari_embryo.io.errors import ImageError, complaint
from napari_embryo.io.header import Header
from napari_embryo.io.headers import read_headers
from napari_embryo.io.names import image_stem
from napari_embryo.io.planned import OpenChoices, PlannedImage, believed


@dataclass(frozen=True)
class OpenPlan:
    """The plan for reading a file or folder.

    Parameters
    ----------
    path
        The file or folder.
    images
        In natural order.
    problems
        Files that cannot be opened, and why.
    notes
        Further messages for the user.
    """

    path: Path
    images: tuple[PlannedImage, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def edited(self, choices: OpenChoices) -> "OpenPlan":
        """The plan with the user's changes; axes are changed for images that can have them.

        Raises
        ------
        ImageError
            If no image can have the axes.
        """
        axes = None if choices.axes is None else choices.axes.upper().replace("Z", "F")
        stacks = [image for image in self.images if image.file_axes != "YX"]
        if axes is not None and stacks and not any(axes in image.axes_choices for image in stacks):
            raise _wrong_axes(self, axes)
        images = self.images if axes is None else _with_axes(self.images, axes)
        return replace(self, images=tuple(image.edited(choices) for image in images))

    @property
    def embryos(self) -> "OpenPlan":
        """The plan without results of this program and label files, which are not images of embryos.

        Raises
        ------
        ImageError
            If nothing is left.
        """
        pictures = tuple(image for image in self.images if image.header.role == "picture")
        others = tuple(dict.fromkeys(image.header.path.name for image in self.images if image.header.role != "picture"))
        if not others:
            return self
        names = ", ".join((*others[:3], "...")[: len(others)])
        if not pictures:
            raise complaint(
                self.path, f"it holds results or labels ({names})", "images of embryos are needed", "Choose those"
            )
        left = f"results and label files are left out ({len(others)}: {names})"
        return replace(self, images=pictures, notes=(*self.notes, left))

    @property
    def axes_choices(self) -> tuple[str, ...]:
        """The possible axes of the first image."""
        return self.images[0].axes_choices if self.images else ()

    @property
    def are_axes_assumed(self) -> bool:
        """Whether a file does not say what its axes are."""
        return any(image.are_axes_assumed for image in self.images)

    @property
    def said(self) -> tuple[str, ...]:
        """All assumptions, doubts and omissions, one line each; those of many images are combined."""
        by_note: dict[str, list[str]] = {}
        for image in self.images:
            for note in (*image.notes, *image.problems):
                by_note.setdefault(note, []).append(image.name)
        return (*self.notes, *(f"{_names_text(names)}: {note}" for note, names in by_note.items()))

    def text(self, most: int = 20) -> str:
        """The plan as text, such as "12 frames, 7 planes, no pixel size known"."""
        lines = [f"{self.path.name}: {_count(len(self.images), 'image')}"]
        lines += [f"  {image.text()}" for image in self.images[:most]]
        lines += [f"  ... and {len(self.images) - most} more"] if len(self.images) > most else []
        lines += [f"note: {text}" for text in self.notes]
        lines += [f"cannot be opened: {text}" for text in self.problems[:most]]
        lines += [f"... and {len(self.problems) - most} more"] if len(self.problems) > most else []
        return "\n".join(lines)


def _names_text(names: Sequence[str]) -> str:
    return (
        names[0]
        if len(names) == 1
        else f"{len(names)} images ({', '.join(names[:2])}{', ...'[: 5 * (len(names) > 2)]})"
    )


def _wrong_axes(plan: OpenPlan, axes: str) -> ImageError:
    shapes = sorted({str(image.header.shape if image.is_one_file else image.stored_shape) for image in plan.images})
    known = sorted({choice for image in plan.images for choice in image.axes_choices})
    return complaint(
        plan.path,
        f"the axes {axes!r} were requested for an image of shape {' or '.join(shapes[:3])}",
        f"it can be read as {' or '.join(known)}",
        "Choose one of these",
    )


def _with_axes(images: Sequence[PlannedImage], axes: str) -> Iterator[PlannedImage]:
    """The images with other axes; the channels of one file are planned anew, together."""
    for image in images:
        if axes not in image.axes_choices:
            yield replace(image, assumed=(*image.assumed, f"it cannot have the axes {axes}: it is {image.file_axes}"))
        elif axes == image.file_axes and not image.is_one_file:
            yield image
        elif not image.is_one_file:
            yield replace(image, axes=axes, focus_um=None, row_hours=None, assumed=())
        elif image.channel == 0:
            planned = plan_of_header(image.header.with_axes(axes))
            keeps_name = len(planned) == 1 and not image.is_channel
            yield from (
                replace(each, info=image.info, name=image.name if keeps_name else each.name) for each in planned
            )


def _count(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def plan_file(path: Path | str) -> OpenPlan:
    """Plan how to read one file, without reading its pixels.

    Parameters
    ----------
    path
        TIFF, OME-TIFF, PNG, JPEG, BMP, GIF, NPY or a video.

    Returns
    -------
    OpenPlan
        One image, or one per series and channel.

    Raises
    ------
    ImageError
        Naming the file, what it holds, what is needed and what to do.
    """
    path = Path(path)
    return OpenPlan(path, tuple(image for header in read_headers(path) for image in plan_of_header(header)))


def plan_of_header(header: Header) -> tuple[PlannedImage, ...]:
    """The images in one file."""
    axes, assumed = _name_axes(header)
    header = replace(header, axes=axes + "S" * header.axes.endswith("S"))
    name = " ".join(part for part in (image_stem(header.path), header.title) if part)
    whole = PlannedImage(
        name=name,
        files=((header.path,),),
        header=header,
        axes=axes.replace("C", ""),
        focus_um=header.focus_um,
        pixel_size_um=believed(header.pixel_size_um),
        assumed=assumed,
        are_axes_assumed=bool(assumed),
    )
    n_channels = header.sizes.get("C", 1)
    if n_channels == 1:
        return (whole,)
    names = header.names or tuple(f"channel {i + 1}" for i in range(n_channels))
    return tuple(replace(whole, name=f"{name} {each}", channel=i) for i, each in enumerate(names))


def _name_axes(header: Header) -> tuple[str, tuple[str, ...]]:
    """The axes without color, and the assumptions made to find them."""
    axes = header.axes.removesuffix("S")
    named = [axis for axis in axes if axis != "?"]
    free = [axis for axis in "TF" if axis not in named]
    if axes.count("?") > len(free) or len(set(named)) < len(named):
        raise complaint(
            header.path,
            f"it has {len(header.shape)} axes of shape {header.shape} and does not say what they mean",
            "at most time and focal planes before Y and X are understood",
            "Save one part of it, or an OME-TIFF with named axes",
        )
    full = "".join(free.pop(0) if axis == "?" else axis for axis in axes)
    assumed = tuple(
        f"the axis of length {size} is {_WORDS[axis]}: the file does not say. Choose other axes if it is not"
        for old, axis, size in zip(axes, full, header.shape, strict=False)
        if old == "?"
    )
    return full, assumed


_WORDS = {"T": "time", "F": "focal planes"}


def check_is_one(plan: OpenPlan) -> PlannedImage:
    """The only image of a plan."""
    if len(plan.images) != 1:
        names = ", ".join(image.name for image in plan.images[:4])
        raise ImageError(
            f"{plan.path}: it holds {len(plan.images)} images ({names}); one is needed. "
            "Use plan_file and open_plan, which open each of them."
        )
    return plan.images[0]
