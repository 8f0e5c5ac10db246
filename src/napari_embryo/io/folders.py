"""From a folder to a plan: one image per embryo, and what is wrong with some of the files."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_embryo.io.errors import ImageError, complaint
from napari_embryo.io.finding import Found, find_images
from napari_embryo.io.grouping import Group, Grouping, Member, differ_in_numbers, group_files
from napari_embryo.io.header import SUFFIXES, Header, is_image_file
from napari_embryo.io.headers import read_headers
from napari_embryo.io.names import natural_key
from napari_embryo.io.numbers import ranges_text
from napari_embryo.io.plan import OpenPlan, plan_file, plan_of_header
from napari_embryo.io.planned import PlannedImage, believed
from napari_embryo.io.sidecars import Sidecar, read_sidecars

HEADERS_LOOKED_AT = 64
"""How many files of a long sequence are opened for planning; the others are checked when they are read."""


def plan_folder(path: Path | str, grouping: Grouping = "auto") -> OpenPlan:
    """Plan how to read a folder, without reading a pixel.

    Files become frames or focal planes of one embryo only for a reason: a word before the number that differs (RUN,
    frame, time, t; plane, z, zid, FP, F-15), hours or a date and time in the names, or folders ``F-15``, ``F0``,
    ``F15``. Names that differ in a bare number, wells and positions are different embryos. The plan states all
    assumptions.

    Parameters
    ----------
    path
        The folder. If it holds no image, the folders in it are searched.
    grouping
        ``stack`` makes one stack of all files in natural order, ``separate`` opens each file on its own.

    Returns
    -------
    OpenPlan
        Nothing is read yet; edit it with `OpenPlan.edited`, open it with `open_plan`.

    Raises
    ------
    ImageError
        If there is no image in it.
    """
    path = Path(path)
    found, passed = find_images(path)
    if not found:
        raise complaint(
            path, "there is no image in this folder", f"files ending in {', '.join(SUFFIXES)}", "Choose another folder"
        )
    plan = _plan(group_files(found, grouping), path)
    if not plan.images:
        raise ImageError(f"{path}: none of its images can be opened.\n" + "\n".join(plan.problems[:10]))
    return replace(plan, notes=(*plan.notes, *passed))


def plan_path(path: Path | str, grouping: Grouping = "auto") -> OpenPlan:
    """Plan how to read a file or a folder; see `plan_file` and `plan_folder`."""
    is_folder = Path(path).is_dir() and not is_image_file(Path(path))
    return plan_folder(path, grouping) if is_folder else plan_file(path)


def plan_files(paths: Sequence[Path | str], grouping: Grouping = "auto") -> OpenPlan:
    """Plan chosen files like `plan_folder` does those of a folder."""
    files = sorted(map(Path, paths), key=lambda file: natural_key(str(file)))
    home = files[0].parent
    return _plan(group_files([Found(file, home) for file in files], grouping), home)


def plan_group(files: Sequence[Found], grouping: Grouping = "auto") -> OpenPlan:
    """Plan the files of one `Group`."""
    return _plan(group_files(files, grouping), files[0].home)


def _plan(groups: Sequence[Group], path: Path) -> OpenPlan:
    parts = [_plan_group(group) for group in groups]
    found = [image for part in parts for image in part.images]
    found.sort(key=lambda image: natural_key(str(image.source / image.name)))
    images, shared = _once(found)
    single = [image.header.path for image in images if image.is_one_file and image.header.role == "picture"]
    return OpenPlan(
        path,
        tuple(_named_apart(images)),
        problems=tuple(problem for part in parts for problem in part.problems),
        notes=(*bare_numbers(differ_in_numbers(single)), *shared),
    )


def _once(images: Sequence[PlannedImage]) -> tuple[list[PlannedImage], tuple[str, ...]]:
    """Of files that are parts of one OME-TIFF each opens the whole: it is opened once."""
    seen: set[tuple[frozenset[Path], int, int]] = set()
    kept: list[PlannedImage] = []
    for image in images:
        header = image.header
        whole = (frozenset((header.path.resolve(), *header.other_files)), header.series, image.channel)
        if not header.other_files or whole not in seen:
            kept.append(image)
        seen.add(whole)
    n_left = len(images) - len(kept)
    return kept, (f"{n_left} files are parts of an OME-TIFF that is opened as a whole",) if n_left else ()


def part_of(plan: OpenPlan) -> Path | None:
    """The file that opens the whole OME-TIFF of which the only file of a plan is a later part; None for any other."""
    headers = [image.header for image in plan.images if image.is_one_file]
    others = [
        path for header in headers[:1] for path in header.other_files if path.parent == header.path.resolve().parent
    ]
    first = min((path.name for path in others), key=natural_key, default=None)
    if first is None or natural_key(first) > natural_key(headers[0].path.name):
        return None
    return headers[0].path.with_name(first)


def bare_numbers(count: int) -> tuple[str, ...]:
    """A note where so many files were not grouped that a reader may take for frames of one embryo."""
    if not count:
        return ()
    return (
        f"{count} files differ only in numbers that no word (RUN, frame, t, z) explains: each is opened as a separate "
        "embryo. If they are frames of one embryo, group them as one stack.",
    )


def _named_apart(images: Sequence[PlannedImage]) -> Iterable[PlannedImage]:
    """Give all images of a plan different names, since results are named after them."""
    counts = Counter(image.name for image in images)
    folders: dict[str, set[Path]] = {}
    for image in images:
        folders.setdefault(image.name, set()).add(image.header.path.parent)
    given: Counter[str] = Counter()
    for image in images:
        name = image.name if counts[image.name] == 1 else _longer_name(image, len(folders[image.name]) > 1)
        given[name] += 1
        yield replace(image, name=name if given[name] == 1 else f"{name}_{given[name]}")


def _longer_name(image: PlannedImage, by_folder: bool) -> str:
    path = image.header.path
    return f"{path.parent.name}_{image.name}" if by_folder else f"{image.name}_{path.suffix[1:].lower()}"


# --- one group ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    images: tuple[PlannedImage, ...]
    problems: tuple[str, ...]


def _plan_group(group: Group) -> _Part:
    headers, problems = _look_at([member.path for member in group.members])
    left = tuple(member for member in group.members if member.path not in problems)
    said = tuple(problems.values())
    first = {path: each[0] for path, each in headers.items()}
    if len(left) <= 1 or not all(map(_is_one_picture, headers.values())):
        return _each_alone(left, headers, said)
    kinds = Counter((header.hw, header.dtype) for header in first.values())
    ((kind, count),) = kinds.most_common(1)
    if 2 * count <= len(headers):
        return _each_alone(left, headers, said, "opened separately: sizes or types of the files differ")
    odd = {path: header for path, header in first.items() if (header.hw, header.dtype) != kind}
    stack = _stack(replace(group, members=tuple(member for member in left if member.path not in odd)), first)
    return _Part((stack,), said + tuple(_odd_text(header, kind) for header in odd.values()))


def _is_one_picture(headers: Sequence[Header]) -> bool:
    return len(headers) == 1 and headers[0].is_picture and headers[0].role == "picture"


def _odd_text(header: Header, kind: tuple[tuple[int, int], np.dtype[Any]]) -> str:
    (height, width), dtype = kind
    return (
        f"{header.path}: {header.hw[1]} x {header.hw[0]} {header.dtype}, but the rest of its stack has "
        f"{width} x {height} {dtype}; it is left out. Open it separately."
    )


Headers = dict[Path, tuple[Header, ...]]


def _look_at(paths: Sequence[Path]) -> tuple[Headers, dict[Path, str]]:
    headers: Headers = {}
    problems = {path: text for path in paths if (text := _empty_file(path))}
    for path in _some([path for path in paths if path not in problems]):
        try:
            headers[path] = read_headers(path)
        except ImageError as error:
            problems[path] = str(error)
    return headers, problems


def _empty_file(path: Path) -> str | None:
    is_empty = path.is_file() and path.stat().st_size == 0
    return f"{path}: the file is empty (0 bytes). Export or copy it again." if is_empty else None


def _some(paths: list[Path]) -> list[Path]:
    """All of a few; of many the first, the last and evenly spaced ones in between."""
    if len(paths) <= HEADERS_LOOKED_AT:
        return paths
    return [paths[i] for i in np.linspace(0, len(paths) - 1, HEADERS_LOOKED_AT).astype(int)]


def _each_alone(members: Sequence[Member], headers: Headers, problems: tuple[str, ...], why: str = "") -> _Part:
    images: list[PlannedImage] = []
    for member in members:
        try:
            for header in headers.get(member.path) or read_headers(member.path):
                images += _alone(member, header, why)
        except ImageError as error:
            problems = (*problems, str(error))
    return _Part(tuple(images), problems)


def _alone(member: Member, header: Header, why: str) -> list[PlannedImage]:
    words = member.words
    info = dict(words.info) | {
        key: value for key, value in (("run", words.run), ("hours", words.hours)) if value is not None
    }
    assumed = (why,) if why else ()
    return [replace(image, info=info, assumed=(*image.assumed, *assumed)) for image in plan_of_header(header)]


# --- a stack --------------------------------------------------------------------------------------------------------

Cell = tuple[float | None, int | None]
"""A moment and a focal plane."""


def _stack(group: Group, headers: dict[Path, Header]) -> PlannedImage:
    cells, repeated = _cells(group.members)
    frames: list[float | None] = [*sorted({moment for moment, _ in cells if moment is not None})] or [None]
    planes, dropped = _planes([plane for _, plane in cells], len(frames))
    rows = tuple(tuple(cells.get((moment, plane)) for plane in planes) for moment in frames)
    files = tuple(tuple(None if member is None else member.path for member in row) for row in rows)
    first = next(path for row in files for path in row if path is not None)
    header = headers.get(first) or read_headers(first)[0]
    beside = read_sidecars(group.home, group.title)
    hours, unknown_hours = _hours(group, [next(member for member in row if member is not None) for row in rows], beside)
    return PlannedImage(
        name=group.title,
        files=files,
        header=header,
        axes=("T" if len(rows) > 1 else "") + ("F" if len(planes) > 1 else "") + "YX",
        runs=tuple(int(moment) for moment in frames if moment is not None) or None if group.moments == "run" else None,
        row_hours=hours,
        focus_um=_heights(group.members, planes, beside),
        pixel_size_um=believed(header.pixel_size_um) or believed(_square(beside.pixel_size_um)),
        hours_per_frame=beside.hours_per_frame if hours is None else None,
        assumed=(group.reason, *(f"{name} was read" for name in beside.sources), *repeated, *unknown_hours),
        problems=(*_incomplete(group, frames, files), *dropped),
        info=group.info | ({"phases": beside.phases} if beside.phases else {}),
    )


def _square(side: float | None) -> tuple[float, float] | None:
    return None if side is None else (side, side)


def _incomplete(group: Group, frames: Sequence[float | None], files: Sequence[Sequence[Path | None]]) -> list[str]:
    moments = [moment for moment, row in zip(frames, files, strict=True) if None in row and moment is not None]
    if not moments:
        return []
    if group.moments != "run":
        return [f"{len(moments)} frames lack a focal plane and are treated as missing"]
    return [f"runs {ranges_text(tuple(map(int, moments)))} lack a focal plane and are treated as missing"]


def _hours(
    group: Group, members: Sequence[Member], beside: Sidecar
) -> tuple[tuple[float, ...] | None, tuple[str, ...]]:
    """Hours of every frame, from the table next to the images or the names; and why there are none."""
    if group.moments == "run" and beside.hours:
        runs = tuple(int(member.moment or 0) for member in members)
        lacking = tuple(run for run in runs if run not in beside.hours)
        if lacking:
            return None, (f"{beside.sources[0]} has no hours for the runs {ranges_text(lacking)}: no hours are used",)
        return tuple(beside.hours[run] for run in runs), ()
    if group.moments == "stamp":
        return tuple(float(member.moment or 0.0) for member in members), ()
    hours = tuple(member.words.hours for member in members if member.words.hours is not None)
    return (hours if len(hours) == len(members) and group.moments is not None else None), ()


def _heights(members: Sequence[Member], planes: Sequence[int | None], beside: Sidecar) -> tuple[float, ...] | None:
    numbers = [plane for plane in planes if plane is not None]
    if len(planes) < 2 or len(numbers) < len(planes):
        return None
    if all(member.plane is not None and member.plane.is_um for member in members):
        return tuple(map(float, numbers))
    return None if beside.spacing_um is None else tuple(beside.spacing_um * number for number in numbers)


def _cells(members: Sequence[Member]) -> tuple[dict[Cell, Member], list[str]]:
    cells: dict[Cell, Member] = {}
    repeated: list[Member] = []
    # Of duplicate files, those nearest to the embryo's folder are kept.
    for member in sorted(members, key=lambda member: len(member.path.parts)):
        kept = cells.setdefault((member.moment, None if member.plane is None else member.plane.number), member)
        if kept is not member:
            repeated.append(member)
    if not repeated:
        return cells, []
    example = f"{repeated[0].path.parent.name}/{repeated[0].path.name}"
    return cells, [f"{len(repeated)} files duplicate a frame and plane and are left out ({example})"]


def _planes(found: Sequence[int | None], n_frames: int) -> tuple[list[int | None], list[str]]:
    """The planes that at least half of the frames have, from bottom to top; and notes about the others."""
    counts = Counter(found)
    kept = [plane for plane, count in counts.items() if 2 * count >= n_frames]
    dropped = [plane for plane in counts if plane not in kept]
    said = [f"focal plane {plane} is left out: only {counts[plane]} of {n_frames} frames have it" for plane in dropped]
    return sorted(kept, key=lambda plane: (plane is not None, plane or 0)), said
