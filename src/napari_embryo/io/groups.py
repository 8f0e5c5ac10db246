"""Which files of a folder are one image, told by their names alone, and the same files planned later."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_embryo.io.folders import _names, _plan
from napari_embryo.io.names import FileName, focal_folder
from napari_embryo.io.ome import stem
from napari_embryo.io.plan import Grouping, OpenPlan, plan_file

Found = tuple[str, int | None]
"""A file, relative to the folder, and the focal plane that its own folder stands for."""


@dataclass(frozen=True, slots=True)
class FileGroup:
    """Files that are one image.

    Parameters
    ----------
    files
        Relative to the folder.
    title
        What the image can be called.
    why
        Why they belong together; empty for a single file.
    """

    files: tuple[str, ...]
    title: str
    why: str = ""


_WHY = {
    "incubator": "same slide and well in the names",
    "focal": "focal planes of one embryo by the names",
    "planes": "one focal plane per folder",
    "sequence": "names that differ in one running number",
    "stack": "grouping: stack",
}


def group_files(home: Path, found: Sequence[Found], grouping: Grouping = "auto") -> Iterator[FileGroup]:
    """The images that the files of a folder make, in the order of their first files; no file is opened."""
    relative = {home / file: file for file, _ in found}
    groups: dict[tuple[str, ...], list[FileName]] = {}
    for name in _names(home, [(home / file, plane) for file, plane in found], grouping):
        groups.setdefault(name.group, []).append(name)
    for (kind, *_), names in groups.items():
        files = tuple(relative[name.path] for name in names)
        if len(files) > 1:
            yield FileGroup(files, names[0].title, _WHY.get(kind, ""))
        else:
            yield FileGroup(files, stem(names[0].path))


def plan_group(home: Path, files: Sequence[Path], grouping: Grouping = "auto") -> OpenPlan:
    """What the files of one group will become; the same names give the same group again."""
    if len(files) == 1:
        return plan_file(files[0])
    return _plan(_names(home, [(file, _plane(home, file)) for file in files], grouping), home)


def _plane(home: Path, file: Path) -> int | None:
    return None if file.parent == home else focal_folder(file.parent.name)
