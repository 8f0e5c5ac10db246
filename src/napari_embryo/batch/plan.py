"""Plan jobs from folders by names alone, without opening images."""

import gc
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path

from napari_embryo import io
from napari_embryo.batch.job import Job, LeftOut, Plan, Problem, printable
from napari_embryo.batch.names import safe_name, safe_part, told_apart
from napari_embryo.notes import Note
from napari_embryo.settings import BatchSettings

OTHER_PICTURES = frozenset(
    (".webp", ".jp2", ".heic", ".heif", ".avif", ".psd", ".pic", ".dcm", ".lsm", ".oib", ".oif")
) | frozenset((".vsi", ".ims", ".h5", ".hdf5", ".webm"))
"""Suffixes of unsupported images and videos, which are listed instead of ignored."""

_RESULT = re.compile(r"\.ome\.tiff?$|_overlay\.png$", re.IGNORECASE)
_OWN_IMAGE = re.compile(r"(?<!_attention)\.ome\.tiff?$", re.IGNORECASE)
"""An image saved with this program is not a result, unless its pixels are labels."""
_NUMBER = re.compile(r"\d+(?=[^/\\]*$)")
_SNIFFED = 16384
"""Bytes at the start of a file that identify a result."""


def plan(sources: Sequence[Path | str], out: Path | str, settings: BatchSettings | None = None) -> Plan:
    """Plan a batch; folders are searched to any depth.

    Parameters
    ----------
    sources
        Folders and files.
    out
        Folder for the results; may be one of the sources, or inside one.
    settings
        Which files to use and how to group them.

    Returns
    -------
    Plan
        Every image is in one of its jobs, or left out with the reason.
    """
    settings = settings or BatchSettings()
    walk = _Walk(settings)
    roots = [Path(source) for source in dict.fromkeys(map(os.path.abspath, sources))]
    folders = [root for root in roots if root.is_dir() and root.suffix.lower() not in io.ZARR]
    prefixes = _prefixes(folders)
    with _garbage_later():
        for root in roots:
            if root in prefixes:
                walk.look_into(str(root), prefixes[root])
            else:
                walk.take_file(root)
    names = told_apart([draft.name for draft in walk.jobs], [draft.path for draft in walk.jobs])
    jobs = tuple(
        Job(draft.root, draft.files, name, draft.home, draft.planes, draft.why)
        for draft, name in zip(walk.jobs, names, strict=True)
    )
    count = _differ_in_numbers(draft.path for draft in walk.jobs if len(draft.files) == 1)
    notes = tuple(Note("warning", text) for text in io.bare_numbers(count))
    return Plan(jobs, tuple(walk.left_out), tuple(walk.problems), notes, Path(out), settings, tuple(roots))


@contextmanager
def _garbage_later() -> Iterator[None]:
    """A million values that all stay make the search for garbage the longest part of the work."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _differ_in_numbers(paths: Iterable[str]) -> int:
    """How many files differ from another one of their folder in a number alone."""
    alike = Counter(_NUMBER.sub("#", path).lower() for path in paths)
    return sum(count for count in alike.values() if count > 1)


def _prefixes(folders: Sequence[Path]) -> dict[Path, str]:
    """Subfolder for the results of each folder: none for a single folder, otherwise its name."""
    if len(folders) == 1:
        return {folders[0]: ""}
    return dict(zip(folders, told_apart([safe_part(f.name) for f in folders], [str(f) for f in folders]), strict=True))


@dataclass(slots=True)
class _Draft:
    """A job whose name may not be unique yet."""

    root: str
    files: tuple[str, ...]
    name: str
    home: str = ""
    planes: tuple[io.Plane | None, ...] = ()
    why: str = ""

    @property
    def path(self) -> str:
        return os.path.join(self.root, self.files[0])  # noqa: PTH118 - a million of them


@dataclass
class _Walk:
    """Searches folders and collects files."""

    settings: BatchSettings
    jobs: list[_Draft] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seen: set[tuple[int, int]] = set()
        self.include, self.exclude = (
            re.compile("|".join(map(translate, patterns)), re.IGNORECASE) if patterns else None
            for patterns in (self.settings.include, self.settings.exclude)
        )

    def take_file(self, path: Path) -> None:
        """Add a named file, unless it is unsupported."""
        if not path.exists():
            self._problem(path, "there is no such file or folder.", "Check the path.")
        elif self._ending(path.name) not in io.SUFFIXES:
            self._problem(path, f"{path.suffix or 'a name without an ending'} is not read.", _READS)
        else:
            self.jobs.append(_Draft(str(path.parent), (path.name,), safe_part(io.image_stem(path))))

    def look_into(self, root: str, prefix: str) -> None:
        """Add a folder and its subfolders."""
        before = len(self.jobs) + len(self.left_out) + len(self.problems)
        files: dict[str, list[str]] = {}
        folders = [""]
        while folders:
            folder = folders.pop()
            own, inner = self._listed(root, folder)
            files |= {folder: own} if own else {}
            folders += [_join(folder, name) for name in sorted(inner, key=io.natural_key, reverse=True)]
        self._take(root, files, prefix)
        if len(self.jobs) + len(self.left_out) + len(self.problems) == before:
            self._problem(Path(root), "there is no image in this folder.", f"{_READS} Choose another folder.")

    def _take(self, root: str, files: Mapping[str, Sequence[str]], prefix: str) -> None:
        """Turn files into jobs by embryo folder, which may have a subfolder for each focal plane."""
        homes: dict[str, list[tuple[str, io.Plane | None]]] = {}
        for folder, (home, plane) in io.plane_homes(files).items():
            homes.setdefault(home, []).append((folder, plane))
        for home, folders in homes.items():
            base = Path(root, home)
            found = [
                io.Found(path / name, base, plane)
                for path, folder, plane in ((Path(root, folder), folder, plane) for folder, plane in folders)
                for name in files[folder]
            ]
            self.jobs += (_draft(root, home, prefix, group) for group in io.group_files(found, self.settings.grouping))

    def _listed(self, root: str, folder: str) -> tuple[list[str], list[str]]:
        """Names of the files and folders in natural order."""
        path = os.path.join(root, folder)  # noqa: PTH118 - may be no text
        try:
            stat = os.stat(path)  # noqa: PTH116
            if (stat.st_dev, stat.st_ino) in self.seen:
                self._leave_out(path, "this folder is in the batch already, under another name")
                return [], []
            self.seen.add((stat.st_dev, stat.st_ino))
            with os.scandir(path) as entries:
                names = [(entry.name, entry.is_dir()) for entry in entries]
        except OSError as error:
            self._problem(Path(path), f"this folder cannot be read ({error.strerror}).", "Ask its owner or copy it.")
            return [], []
        names.sort()
        is_file = {name: not is_folder or name.lower().endswith(io.ZARR) for name, is_folder in names}
        files = [name for name in is_file if is_file[name] and self._is_taken(path, folder, name)]
        return files, [name for name in is_file if not is_file[name] and not name.startswith(".")]

    def _is_taken(self, path: str, folder: str, name: str) -> bool:
        """Whether a file is to be processed; skipped images are recorded."""
        ending = self._ending(name)
        if ending not in io.SUFFIXES and ending not in OTHER_PICTURES:
            return False
        reason = self._reason(path, folder, name, ending)
        if reason:
            self._leave_out(f"{path}{os.sep}{name}", reason)
        return not reason

    def _reason(self, path: str, folder: str, name: str, ending: str) -> str:
        if name.startswith("."):
            return "a hidden file"
        if ending not in io.SUFFIXES:
            return f"{ending} is not read"
        if _RESULT.search(name) and is_result(f"{path}{os.sep}{name}"):
            return "a result of napari-embryo"
        relative = _join(folder, name).replace(os.sep, "/")
        if self.include and not (self.include.match(relative) or self.include.match(name)):
            return "does not match the filter"
        if self.exclude and (self.exclude.match(relative) or self.exclude.match(name)):
            return "excluded by the filter"
        return ""

    def _ending(self, name: str) -> str:
        return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a million of them

    def _leave_out(self, path: str, reason: str) -> None:
        self.left_out.append(LeftOut(printable(path), reason))

    def _problem(self, path: Path, reason: str, hint: str) -> None:
        self.problems.append(Problem(printable(str(path)), "planning", reason, hint))


def _draft(root: str, home: str, prefix: str, group: io.Group) -> _Draft:
    files = tuple(str(member.path)[len(root.rstrip(os.sep)) + 1 :] for member in group.members)
    planes = tuple(member.plane for member in group.members) if group.reason else ()
    name = safe_name(home, group.title, files[0])
    return _Draft(root, files, f"{prefix}/{name}" if prefix else name, home, planes, group.reason)


_READS = f"Files that end in {', '.join(io.SUFFIXES)} are read."


def _join(folder: str, name: str) -> str:
    return f"{folder}{os.sep}{name}" if folder else name


def is_result(path: str) -> bool:
    """Whether a file was written by this program: labels, cells, attention maps or an overlay."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a million of them
            start = file.read(_SNIFFED)
    except OSError:
        return False
    is_ours = b"napari-embryo" in start
    return is_ours and (not _OWN_IMAGE.search(path) or b"&quot;kind&quot;: &quot;labels&quot;" in start)
