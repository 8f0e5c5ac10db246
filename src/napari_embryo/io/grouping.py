"""Which files are one embryo, by the words in their names; files without such words stay apart."""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_embryo.io.finding import Found
from napari_embryo.io.names import GRADED, NameWords, Plane, image_stem, natural_key, read_name

Grouping = Literal["auto", "stack", "separate"]
"""How the files of a folder belong together: by their names, all in one stack, or each separately."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a group: its moment and its focal plane."""

    path: Path
    words: NameWords
    plane: Plane | None = None
    moment: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Files of one embryo.

    Parameters
    ----------
    members
        In natural order.
    home
        Their folder.
    title
        Name for the embryo.
    reason
        Why they were grouped, in words; empty for a single file.
    moments
        What orders the frames: ``run``, ``hours``, ``stamp``, ``order`` (chosen by the user), or None.
    info
        Date, slide, instrument, well, grade.
    """

    members: tuple[Member, ...]
    home: Path
    title: str
    reason: str = ""
    moments: Literal["run", "hours", "stamp", "order"] | None = None
    info: dict[str, Any] = field(default_factory=dict)


def group_files(files: Sequence[Found], grouping: Grouping = "auto") -> list[Group]:
    """Decide which files are one embryo.

    Parameters
    ----------
    files
        In any order.
    grouping
        ``auto``: by the words in the names; ``stack``: all files of a folder; ``separate``: none.

    Returns
    -------
    list of Group
        Every file is in one of them.
    """
    files = sorted(files, key=lambda found: natural_key(str(found.path)))
    if grouping == "separate":
        return [_alone(found) for found in files]
    if grouping == "stack":
        return [_in_order(home, own) for home, own in _by(files, lambda found: found.home)]
    graded = _graded(files)
    taken = {member.path for group in graded for member in group.members}
    left = [(found, read_name(image_stem(found.path))) for found in files if not taken or found.path not in taken]
    return graded + [group for _, own in _by(left, _identity) for group in _named(own)]


def differ_in_numbers(single: Iterable[Path]) -> int:
    """How many of the files differ from another one only in a number."""
    alike = Counter((path.parent, _template(path), path.suffix.lower()) for path in single)
    return sum(count for count in alike.values() if count > 1)


Keyed = tuple[Found, NameWords]


def _by(items: Iterable[Any], key: Callable[[Any], Hashable]) -> Iterable[tuple[Any, list[Any]]]:
    groups: dict[Hashable, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups.items()


def _template(path: Path) -> str:
    return re.sub(r"\d+", "#", path.stem).lower()


def _identity(keyed: Keyed) -> Hashable:
    found, words = keyed
    return found.home, words.rest.lower(), found.path.suffix.lower()


# --- by words -------------------------------------------------------------------------------------------------------


def _named(files: list[Keyed]) -> list[Group]:
    """The files of one folder whose names differ only in the moment and the plane."""
    members = _with_base_plane([Member(found.path, words, words.plane or found.plane) for found, words in files])
    home, words = files[0][0].home, files[0][1]
    moments = _moments(members)
    if moments == "stamp" and not words.title and not _is_regular([member.words.stamp for member in members]):
        return [_single(member, home) for member in members]
    if moments is None and _are_wells_or_ages(members):
        return [_single(member, home) for member in members]
    if len(members) == 1:
        return [_single(members[0], home)]
    timed = _timed(members, moments)
    return [Group(tuple(timed), home, words.title or home.name, _reason(timed), moments, dict(words.info))]


def _are_wells_or_ages(members: Sequence[Member]) -> bool:
    """Whether ``F1``, ``F2`` may be wells of a plate, or ``F34`` a woman's age: focal planes lie around 0."""
    planes = [member.words.plane for member in members]
    return all(plane is not None and plane.is_um and plane.number > 0 for plane in planes)


def _with_base_plane(members: list[Member]) -> list[Member]:
    """Treat a file next to the folders of its other focal planes (``F-15``, ``F15``) as plane 0."""
    planes = {member.plane for member in members}
    if None not in planes or len(planes) == 1:
        return members
    return [member if member.plane else replace(member, plane=Plane(0, is_um=True)) for member in members]


def _moments(members: Sequence[Member]) -> Literal["run", "hours", "stamp"] | None:
    words = members[0].words
    if words.run is not None:
        return "run"
    return "hours" if words.hours is not None else "stamp" if words.stamp is not None else None


def _timed(members: Sequence[Member], moments: str | None) -> list[Member]:
    if moments is None:
        return list(members)
    if moments != "stamp":
        return [replace(member, moment=getattr(member.words, moments)) for member in members]
    first = min(member.words.stamp for member in members if member.words.stamp)
    return [
        replace(member, moment=(member.words.stamp - first).total_seconds() / 3600)
        for member in members
        if member.words.stamp
    ]


def _is_regular(stamps: Sequence[Any]) -> bool:
    """Whether times of day are those of an instrument: several, at one interval, of which some may be missing."""
    seconds = np.array(sorted((stamp - stamps[0]).total_seconds() for stamp in set(stamps)))
    steps = np.diff(seconds)
    if len(steps) < 2 or steps.min() <= 0:
        return len(steps) == 0
    count = steps / np.median(steps)
    return bool((count > 0.5).all() and (np.abs(count - np.rint(count)) < 0.2).all())


def _single(member: Member, home: Path) -> Group:
    return Group((member,), home, image_stem(member.path), info=dict(member.words.info))


def _reason(members: Sequence[Member]) -> str:
    """Why files were grouped, such as "4 files are one embryo: their names count frames in time (RUN)"."""
    return f"{len(members)} files are one embryo: {' and '.join(_counted(members))}"


def _counted(members: Sequence[Member]) -> list[str]:
    words = members[0].words
    by_plane = words.plane is not None
    time_words = [word for word in words.words if not by_plane or word != words.words[-1]]
    parts = []
    if len({member.moment for member in members}) > 1:
        parts.append(f"their names count frames in time ({', '.join(time_words)})")
    if len({member.plane for member in members}) > 1:
        how = f"names count focal planes ({words.words[-1]})" if by_plane else "folders are focal planes"
        parts.append(f"their {how}")
    return parts


# --- otherwise ------------------------------------------------------------------------------------------------------


def _graded(files: Sequence[Found]) -> list[Group]:
    """Files called ID_PLANE_GRADE: several planes, at least one of them below 0."""
    matches = [(found, match) for found in files if (match := GRADED.fullmatch(found.path.stem))]
    groups = []
    for (home, name, grade, _), own in _by(
        matches, lambda each: (each[0].home, each[1]["id"], each[1]["grade"], each[0].path.suffix.lower())
    ):
        planes = {int(match["plane"]) for _, match in own}
        if len(planes) > 1 and min(planes) < 0:
            members = tuple(
                Member(found.path, NameWords(found.path.stem), Plane(int(match["plane"]), is_um=True))
                for found, match in own
            )
            reason = f"{len(members)} files are one embryo: their names count focal planes ({name}_PLANE_{grade})"
            groups.append(Group(members, home, f"{name}_{grade}", reason, info={"grade": grade}))
    return groups


def _alone(found: Found) -> Group:
    words = read_name(image_stem(found.path))
    return _single(Member(found.path, words, words.plane or found.plane), found.home)


def _in_order(home: Path, files: Sequence[Found]) -> Group:
    members = tuple(
        Member(found.path, read_name(image_stem(found.path)), None, place) for place, found in enumerate(files)
    )
    if len(members) == 1:
        return _single(members[0], home)
    reason = f"{len(members)} files are frames in time in the order of their names, as chosen"
    return Group(members, home, home.name, reason, "order", dict(members[0].words.info))
