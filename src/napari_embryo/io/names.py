"""What the names of files say: well, run, focal plane, place in a sequence."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

INCUBATOR = re.compile(
    r"D(?P<year>\d{4})\.(?P<month>\d\d)\.(?P<day>\d\d)_S(?P<slide>\d+)_I(?P<instrument>\d+)(?:_[A-Z]+)?"
    r"_WELL(?P<well>\d+)_RUN(?P<run>\d+)(?:_F(?P<plane>-?\d+))?",
    re.IGNORECASE,
)
"""``D2013.01.28_S0717_I132_WELL7_RUN93``: date, slide, instrument, well, run."""

FOCAL = re.compile(r"(?P<id>.+)_(?P<plane>-?\d+)_(?P<grade>[^_]+)")
"""``32176207_-15_2BB-``: embryo, plane in micrometers, grade. Believed where one embryo has a plane below 0."""

FOCAL_FOLDER = re.compile(r"F(?P<plane>-?\d+)", re.IGNORECASE)
"""``F-15``, ``F0``, ``F15``: one folder per focal plane."""


@dataclass(frozen=True)
class FileName:
    """What one file's name says.

    Parameters
    ----------
    path
        The file.
    group
        Equal for the files of one embryo.
    title
        What the embryo can be called.
    run
        Its number in time, where the name has one.
    plane
        Its focal plane, where name or folder say so.
    info
        Date, slide, instrument, well, grade.
    """

    path: Path
    group: tuple[str, ...]
    title: str
    run: int | None = None
    plane: int | None = None
    info: Mapping[str, Any] = field(default_factory=dict)


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key in which 2 comes before 10."""
    parts = re.split(r"(\d+)", text.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def focal_folder(name: str) -> int | None:
    """The plane that a folder stands for, if it does."""
    match = FOCAL_FOLDER.fullmatch(name)
    return None if match is None else int(match["plane"])


def incubator_name(path: Path, home: Path, plane: int | None) -> FileName | None:
    """Read a time-lapse incubator's name; None if it is not one."""
    match = INCUBATOR.fullmatch(path.stem)
    if match is None:
        return None
    title = path.stem[: match.start("run") - len("_RUN")]
    info = {
        "date": f"{match['year']}-{match['month']}-{match['day']}",
        "slide": match["slide"],
        "instrument": match["instrument"],
        "well": int(match["well"]),
    }
    plane = int(match["plane"]) if match["plane"] is not None else plane
    return FileName(path, ("incubator", str(home), title.lower()), title, int(match["run"]), plane, info)


def focal_names(paths: Iterable[Path], home: Path) -> list[FileName]:
    """The files whose names give focal planes of an embryo: several planes, at least one of them below 0."""
    found = [(path, match) for path in paths if (match := FOCAL.fullmatch(path.stem))]
    below = {(match["id"], match["grade"]) for _, match in found if match["plane"].startswith("-")}
    count = {key: sum((match["id"], match["grade"]) == key for _, match in found) for key in below}
    return [
        FileName(
            path,
            ("focal", str(home), match["id"], match["grade"]),
            f"{match['id']}_{match['grade']}",
            None,
            int(match["plane"]),
            {"grade": match["grade"]},
        )
        for path, match in found
        if count.get((match["id"], match["grade"]), 0) > 1
    ]


def sequence_names(paths: Iterable[tuple[Path, int | None]], home: Path) -> list[FileName]:
    """The other files: those that differ in one number are runs of one embryo, every other file is one of its own."""
    families: dict[tuple[str, str], list[tuple[Path, int | None]]] = {}
    for path, plane in paths:
        families.setdefault((_template(path), path.suffix.lower()), []).append((path, plane))
    return [name for family in families.values() for name in _family(family, home)]


def _template(path: Path) -> str:
    return re.sub(r"\d+", "#", path.stem).lower()


def _numbers(path: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", path.stem)))


def _family(files: list[tuple[Path, int | None]], home: Path) -> list[FileName]:
    numbers = [_numbers(path) for path, _ in files]
    varying = [place for place in range(len(numbers[0])) if len({each[place] for each in numbers}) > 1]
    in_planes = any(plane is not None for _, plane in files)
    if len(varying) == 1 and is_count(each[varying[0]] for each in numbers):
        group = ("sequence", str(home), _template(files[0][0]), files[0][0].suffix.lower(), str(in_planes))
        return [
            FileName(path, group, home.name, each[varying[0]], plane)
            for (path, plane), each in zip(files, numbers, strict=True)
        ]
    return [_single(path, plane, home) for path, plane in files]


def _single(path: Path, plane: int | None, home: Path) -> FileName:
    if plane is None:
        return FileName(path, ("single", str(path)), path.stem)
    return FileName(path, ("planes", str(home), path.stem.lower()), home.name, None, plane)


def is_count(numbers: Iterable[int]) -> bool:
    """Whether the numbers look like a count (from 0 or 1, or nearly without gaps), not like names of patients."""
    values = tuple(sorted(set(numbers)))
    return len(values) > 1 and (values[0] <= 1 or 5 * len(missing_numbers(values)) <= len(values))


def regular_step(numbers: tuple[int, ...]) -> int:
    """The greatest step of which all distances are multiples; 1 for a single number."""
    return int(np.gcd.reduce(np.diff(numbers))) if len(numbers) > 1 else 1


def missing_numbers(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """What a count with its regular step should have had between its first and its last number."""
    if len(numbers) < 2:
        return ()
    present = set(numbers)
    return tuple(n for n in range(numbers[0], numbers[-1] + 1, regular_step(numbers)) if n not in present)


def ranges_text(numbers: tuple[int, ...], most: int = 6) -> str:
    """Numbers for a reader: 87, 90-95, ..."""
    if not numbers:
        return "none"
    cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
    parts = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in np.split(np.array(numbers), cuts)]
    return ", ".join(parts[:most]) + (", ..." if len(parts) > most else "")
