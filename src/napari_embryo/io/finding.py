"""Finding image files: in a folder, in the folders of its focal planes, in those of its embryos."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from napari_embryo.io.errors import MissingImageError, unreadable
from napari_embryo.io.header import ZARR, is_image_file
from napari_embryo.io.names import Plane, natural_key, plane_beside, plane_of_folder

DEPTH = 3
"""Folders within folders are searched this deep, where those above hold no image."""


@dataclass(frozen=True, slots=True)
class Found:
    """An image file.

    Parameters
    ----------
    path
        The file.
    home
        The folder of its embryos: that of the file, or the one to which the folder of a focal plane belongs.
    plane
        The focal plane that its folder stands for.
    """

    path: Path
    home: Path
    plane: Plane | None = None


def find_images(folder: Path) -> tuple[list[Found], tuple[str, ...]]:
    """The image files of a folder, or if it has none those of the folders in it; and what was passed over."""
    found: list[Found] = []
    passed: list[str] = []
    for each in _look_into(folder, DEPTH, passed):
        found += each
    return _joined(found, folder), tuple(passed)


def list_images(folder: Path | str) -> tuple[Path, ...]:
    """The files in a folder whose endings can be read, in natural order; the folders in it are not searched."""
    return tuple(file for file in _entries(Path(folder)) if _is_image(file))


def stored_files(path: str) -> tuple[str, ...]:
    """The files in which an image is stored: the file itself, or those of an OME-Zarr without its labels."""
    if not path.lower().endswith(ZARR):
        return (path,)
    found = (
        file
        for file in sorted(Path(path).rglob("*"))
        if "labels" not in file.relative_to(path).parts and file.is_file()
    )
    return tuple(map(str, found))


def _entries(folder: Path) -> list[Path]:
    if not folder.exists():
        raise MissingImageError(f"{folder}: there is no such folder. Check the path.")
    try:
        visible = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise unreadable(folder, error) from error
    return sorted(visible, key=lambda entry: natural_key(entry.name))


def _is_image(path: Path) -> bool:
    return is_image_file(path)


def _look_into(folder: Path, depth: int, passed: list[str]) -> Iterator[list[Found]]:
    entries = _entries(folder)
    folders = [entry for entry in entries if entry.suffix.lower() not in ZARR and entry.is_dir()]
    planes = {inner: plane for inner in folders if (plane := plane_of_folder(inner.name))}
    files = [Found(entry, folder) for entry in entries if _is_image(entry)]
    for inner, plane in planes.items():
        files += [Found(file, folder, plane) for file in list_images(inner)]
    others = [inner for inner in folders if inner not in planes]
    if files:
        passed += _passed_over(folder, others)
        yield files
    elif depth > 1:
        for inner in others:
            yield from _look_into(inner, depth - 1, passed)


def _passed_over(folder: Path, folders: Iterable[Path]) -> list[str]:
    names = [inner.name for inner in folders if _holds_images(inner)]
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    return [f"{folder.name} holds images itself: the folders in it are not opened ({shown})"] if names else []


def _holds_images(folder: Path) -> bool:
    try:
        return any(_is_image(entry) for entry in folder.iterdir())
    except OSError:
        return False


def plane_homes(folders: Iterable[str]) -> dict[str, tuple[str, Plane | None]]:
    """For every folder with images, relative to one root: the folder of its embryos, and the plane it stands for."""
    found = {folder: Found(Path(folder), Path(folder)) for folder in folders}
    for folder, each in found.items():
        if plane := plane_of_folder(each.home.name):
            found[folder] = Found(each.path, each.home.parent, plane)
    joined = _joined(list(found.values()), Path())
    return {
        folder: (str(each.home) if each.home.parts else "", each.plane)
        for folder, each in zip(found, joined, strict=True)
    }


def _joined(found: list[Found], root: Path) -> list[Found]:
    """Files below ``data_F15`` and ``data_F-15`` belong to those below ``data``, if that is there as well."""
    names = {part for file in found for part in file.home.relative_to(root).parts}
    bases: dict[str, set[int]] = {}
    for name in names:
        if (beside := plane_beside(name)) is not None:
            bases.setdefault(beside[0], set()).add(beside[1].number)
    real = {base for base, planes in bases.items() if base in names or min(planes) <= 0 < len(planes) - 1}
    return [_in_base(file, root, real) for file in found]


def _in_base(found: Found, root: Path, bases: set[str]) -> Found:
    parts: list[str] = []
    plane = found.plane
    for part in found.home.relative_to(root).parts:
        beside = plane_beside(part)
        if beside is not None and beside[0] in bases:
            part, plane = beside[0], plane or beside[1]
        parts.append(part)
    return replace(found, home=root.joinpath(*parts), plane=plane)
