"""From a folder to a plan: which files belong together, in which order, and what is wrong with some of them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_embryo.io.errors import ImageError, MissingImageError, complaint, unreadable
from napari_embryo.io.headers import SUFFIXES, Header, read_header
from napari_embryo.io.names import (
    FileName,
    focal_folder,
    focal_names,
    incubator_name,
    natural_key,
    ranges_text,
    sequence_names,
)
from napari_embryo.io.plan import Grouping, OpenPlan, PlannedImage, plan_file, plan_of_header

HEADERS_LOOKED_AT = 64
"""Of a long sequence only so many files are opened for planning; the others are checked when they are read."""

DEPTH = 3
"""Folders within folders are looked into so deep, where the ones above hold no image."""


def plan_folder(path: Path | str, grouping: Grouping = "auto") -> OpenPlan:
    """Look at a folder without reading a pixel.

    Names decide what belongs together: incubator names give wells and runs, focal planes come as folders ``F-15``,
    ``F0`` or as names ``ID_-15_GRADE``, files that differ in one number are a sequence in time, every other file is an
    image of its own. The plan says what was assumed.

    Parameters
    ----------
    path
        The folder. If it holds no image, the folders in it are looked into.
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
    found = list(_look_into(path, DEPTH))
    if not found:
        raise complaint(
            path, "there is no image in this folder", f"files ending in {', '.join(SUFFIXES)}", "Choose another folder"
        )
    plan = _plan([name for home, files in found for name in _names(home, files, grouping)], path)
    if not plan.images:
        raise ImageError(f"{path}: none of its images can be opened.\n" + "\n".join(plan.problems[:10]))
    return plan


def plan_path(path: Path | str, grouping: Grouping = "auto") -> OpenPlan:
    """Look at a file or a folder; see `plan_file` and `plan_folder`."""
    return plan_folder(path, grouping) if Path(path).is_dir() else plan_file(path)


def plan_files(paths: Sequence[Path | str], grouping: Grouping = "auto") -> OpenPlan:
    """Look at chosen files as `plan_folder` looks at those of a folder."""
    files = sorted(map(Path, paths), key=lambda file: natural_key(str(file)))
    home = files[0].parent
    return _plan(_names(home, [(file, None) for file in files], grouping), home)


def list_images(folder: Path | str) -> tuple[Path, ...]:
    """The files in a folder whose endings can be read, in natural order; folders within are not looked into."""
    return tuple(file for file in _entries(Path(folder)) if _is_image(file))


# --- finding --------------------------------------------------------------------------------------------------------

Found = tuple[Path, int | None]
"""A file and the focal plane that its folder stands for."""


def _entries(folder: Path) -> list[Path]:
    if not folder.exists():
        raise MissingImageError(f"{folder}: there is no such folder. Check the path.")
    try:
        visible = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise unreadable(folder, error) from error
    return sorted(visible, key=lambda entry: natural_key(entry.name))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _look_into(folder: Path, depth: int) -> Iterable[tuple[Path, list[Found]]]:
    entries = _entries(folder)
    folders = [entry for entry in entries if entry.suffix != ".zarr" and entry.is_dir()]
    files: list[Found] = [(entry, None) for entry in entries if _is_image(entry)]
    for inner in folders:
        plane = focal_folder(inner.name)
        if plane is not None:
            files += [(file, plane) for file in list_images(inner)]
    if files:
        yield folder, files
    elif depth > 1:
        for inner in folders:
            yield from _look_into(inner, depth - 1)


def _names(home: Path, files: list[Found], grouping: Grouping) -> list[FileName]:
    if grouping == "separate":
        return [FileName(path, ("single", str(path)), path.stem) for path, _ in files]
    if grouping == "stack":
        return [FileName(path, ("stack", str(home)), home.name, i) for i, (path, _) in enumerate(files)]
    known = [name for path, plane in files if (name := incubator_name(path, home, plane))]
    known += focal_names((path for path, plane in files if plane is None and not _has(known, path)), home)
    taken = {name.path for name in known}
    return known + sequence_names(((path, plane) for path, plane in files if path not in taken), home)


def _has(names: Sequence[FileName], path: Path) -> bool:
    return bool(names) and incubator_name(path, path.parent, None) is not None


# --- planning -------------------------------------------------------------------------------------------------------


def _plan(names: Sequence[FileName], path: Path) -> OpenPlan:
    groups: dict[tuple[str, ...], list[FileName]] = {}
    for name in names:
        groups.setdefault(name.group, []).append(name)
    parts = [_plan_group(group) for group in groups.values()]
    images = [image for part in parts for image in part.images]
    return OpenPlan(
        path,
        tuple(_named_apart(sorted(images, key=lambda image: natural_key(str(image.source / image.name))))),
        problems=tuple(problem for part in parts for problem in part.problems),
    )


def _named_apart(images: Sequence[PlannedImage]) -> Iterable[PlannedImage]:
    """No two images of a plan have one name, since results are named after them."""
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


@dataclass(frozen=True)
class _Part:
    images: tuple[PlannedImage, ...]
    problems: tuple[str, ...]


def _plan_group(names: list[FileName]) -> _Part:
    headers, problems = _look_at(names)
    left = [name for name in names if name.path not in problems]
    said = tuple(problems.values())
    if not left:
        return _Part((), said)
    if len(left) == 1 or not all(header.is_picture for header in headers.values()):
        return _each_alone([(name, headers.get(name.path)) for name in left], said)
    kinds = Counter((header.hw, header.dtype) for header in headers.values())
    ((kind, count),) = kinds.most_common(1)
    if 2 * count <= len(headers):
        return _each_alone(
            [(name, headers.get(name.path)) for name in left], said, "sizes or types of the files differ"
        )
    odd = {path: header for path, header in headers.items() if (header.hw, header.dtype) != kind}
    stack = _stack([name for name in left if name.path not in odd], headers)
    return _Part((stack,), said + tuple(_odd_text(header, kind) for header in odd.values()))


def _odd_text(header: Header, kind: tuple[tuple[int, int], np.dtype[Any]]) -> str:
    (height, width), dtype = kind
    return (
        f"{header.path}: {header.hw[1]} x {header.hw[0]} {header.dtype}, but the rest of its stack has "
        f"{width} x {height} {dtype}; it is left out. Open it on its own."
    )


def _look_at(names: Sequence[FileName]) -> tuple[dict[Path, Header], dict[Path, str]]:
    headers: dict[Path, Header] = {}
    problems = {name.path: text for name in names if (text := _empty_file(name.path))}
    for name in _some([name for name in names if name.path not in problems]):
        try:
            headers[name.path] = read_header(name.path)
        except ImageError as error:
            problems[name.path] = str(error)
    return headers, problems


def _empty_file(path: Path) -> str | None:
    is_empty = path.stat().st_size == 0
    return f"{path}: the file is empty (0 bytes). Export or copy it again." if is_empty else None


def _some(names: list[FileName]) -> list[FileName]:
    """All of a few, else the first, the last and an even choice between them."""
    if len(names) <= HEADERS_LOOKED_AT:
        return names
    return [names[i] for i in np.linspace(0, len(names) - 1, HEADERS_LOOKED_AT).astype(int)]


def _each_alone(found: Sequence[tuple[FileName, Header | None]], problems: tuple[str, ...], why: str = "") -> _Part:
    images: list[PlannedImage] = []
    for name, header in found:
        try:
            images += _alone(name, header or read_header(name.path), why if len(found) > 1 else "")
        except ImageError as error:
            problems = (*problems, str(error))
    return _Part(tuple(images), problems)


def _alone(name: FileName, header: Header, why: str) -> list[PlannedImage]:
    assumed = (f"an image of its own ({why})",) if why else ()
    info = dict(name.info) | ({} if name.run is None or "well" not in name.info else {"run": name.run})
    return [replace(image, info=info, assumed=(*image.assumed, *assumed)) for image in plan_of_header(header)]


def _stack(names: list[FileName], headers: dict[Path, Header]) -> PlannedImage:
    runs = sorted({name.run for name in names if name.run is not None})
    cells, problems = _cells(names)
    frames: list[int | None] = [*runs] or [None]
    planes, dropped = _planes(cells, max(1, len(runs)))
    rows = tuple(tuple(cells.get((run, plane)) for plane in planes) for run in frames)
    incomplete = tuple(run for run, row in zip(runs, rows, strict=False) if None in row)
    if incomplete:
        problems.append(f"runs {ranges_text(incomplete)} lack a focal plane and are treated as missing")
    kind = names[0].group[0]
    first = next(path for row in rows for path in row if path is not None)
    header = headers.get(first) or read_header(first)
    return PlannedImage(
        name=names[0].title,
        files=rows,
        header=header,
        axes=("T" if len(rows) > 1 else "") + ("F" if len(planes) > 1 else "") + "YX",
        runs=tuple(runs) if runs and kind != "stack" else None,
        focus_um=tuple(float(plane) for plane in planes if plane is not None) or None if len(planes) > 1 else None,
        pixel_size_um=header.pixel_size_um,
        assumed=_assumed(kind, len(rows)),
        problems=(*problems, *dropped),
        info=names[0].info,
    )


def _assumed(kind: str, n_rows: int) -> tuple[str, ...]:
    return (f"the {n_rows} files are frames in time (no name says so)",) if kind in ("sequence", "stack") else ()


Cells = dict[tuple[int | None, int | None], Path]


def _cells(names: Sequence[FileName]) -> tuple[Cells, list[str]]:
    cells: Cells = {}
    problems: list[str] = []
    for name in names:
        kept = cells.setdefault((name.run, name.plane), name.path)
        if kept is not name.path:
            problems.append(f"{name.path.name} is left out: {kept.name} is the same run and plane")
    return cells, problems


def _planes(cells: Cells, n_runs: int) -> tuple[list[int | None], list[str]]:
    """The planes that at least half of the frames have, from below to above; and what is said of the others."""
    counts = Counter(plane for _, plane in cells)
    kept = [plane for plane, count in counts.items() if 2 * count >= n_runs]
    dropped = [plane for plane in counts if plane not in kept]
    said = [f"focal plane {plane} is left out: only {counts[plane]} of {n_runs} frames have it" for plane in dropped]
    return sorted(kept, key=lambda plane: (plane is not None, plane or 0)), said
