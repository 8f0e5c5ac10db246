"""Parse file names: embryo, time and focal plane."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from napari_embryo.io.numbers import decimal

INCUBATOR = re.compile(
    r"D(?P<year>\d{4})\.(?P<month>\d\d)\.(?P<day>\d\d)_S(?P<slide>\d+)_I(?P<instrument>\d+)(?:_[A-Z]+)?"
    r"_WELL(?P<well>\d+)(?:_.*)?",
    re.IGNORECASE,
)
"""``D2013.01.28_S0717_I132_WELL7_RUN93``: date, slide, instrument, well, run."""

GRADED = re.compile(r"(?P<id>.+)_(?P<plane>-?\d+)_(?P<grade>[^_]+)")
"""``32176207_-15_2BB-``: embryo, plane in micrometers, grade. Used only if an embryo has a plane below 0."""

RUN_WORDS = ("run", "frame", "timepoint", "time", "tp", "t")
"""Words before a number that counts frames; if a name has several, the first in this list is used."""

PLANE_WORDS = ("zid", "fp", "plane", "focus", "focal", "slice", "z", "f")
"""Words before a number that counts focal planes."""

HOUR_WORDS = ("hours", "hour", "hpi")
"""Words before a number of hours; after a number ``h``, ``hr`` and ``hrs`` are understood, too."""

UNHELPFUL = ("", "img", "image", "images", "pic", "picture", "photo", "snap", "snapshot", "capture", "screenshot",
             "dsc", "dscn", "pxl", "mvimg", "whatsapp image", "scan", "embryo", "untitled", "default")  # fmt: skip
"""Words that cameras and people write before a number and that do not name an embryo."""

_LETTERS = r"[^\W\d_]"
_AXIS = rf"(?:{'|'.join(('xy', 'ch', 'pos', 'well', 'w', 'p', 's', 'c', 't', 'z', 'f'))})\d"
_NUMBERED = re.compile(rf"(?P<word>{_LETTERS}+)(?P<gap>[ _=#.]{{0,2}}-?)(?P<number>\d+)")
_HOURS = re.compile(
    r"(?<![\d.,])(?P<number>\d+(?:[.,]\d+)?)[ _]?(?:(?:hours?|hrs?|hpi|h)(?:(?P<minutes>[0-5]\d)(?:min|m)?)?|"
    rf"(?P<only_minutes>min))(?!{_LETTERS}|\d)",
    re.IGNORECASE,
)
_STAMP = re.compile(
    r"(?<!\d)(?P<y>(?:19|20)\d\d)(?P<sep>[-_.]?)(?P<m>\d\d)(?P=sep)(?P<d>\d\d)(?:[ _T.-]|\s+at\s+|_at_)?"
    r"(?:(?P<H>\d\d)(?P<M>\d\d)(?P<S>\d\d)|(?P<H2>\d\d)[-_.:h](?P<M2>\d\d)(?:[-_.:m](?P<S2>\d\d)s?)?)(?!\d)"
)
_MICRO_MANAGER = re.compile(r"img_(?P<run>\d{9})_(?P<channel>.*)_(?P<plane>\d{3,})")


@dataclass(frozen=True, slots=True)
class Plane:
    """A focal plane: its number, and whether that is a height in micrometers."""

    number: int
    is_um: bool = False


@dataclass(frozen=True, slots=True)
class NameWords:
    """The information in one file name.

    Parameters
    ----------
    rest
        The name without the parts below; equal for the files of one embryo.
    run
        Its number in time.
    hours
        Its hours.
    stamp
        Date and time of day.
    plane
        Its focal plane.
    words
        The words that gave this information, as written.
    info
        Date, slide, instrument, well, grade.
    """

    rest: str
    run: int | None = None
    hours: float | None = None
    stamp: datetime | None = None
    plane: Plane | None = None
    words: tuple[str, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_time(self) -> bool:
        return self.run is not None or self.hours is not None or self.stamp is not None

    @property
    def title(self) -> str:
        """The rest as a title; empty if it does not name an embryo."""
        text = re.sub(r"[\s_.=-]*[\0\1\2\3][\s_.=-]*", "_", self.rest).strip(" _-.=")
        return "" if text.lower() in UNHELPFUL else text


def read_name(stem: str) -> NameWords:
    """Parse the words in a name; a number without one of them remains part of the embryo's name.

    Parameters
    ----------
    stem
        The file name without its suffix.

    Returns
    -------
    NameWords
        What it says.

    Examples
    --------
    >>> said = read_name("MTL-0130-P03-FP2")
    >>> said.plane, said.title
    (Plane(number=2, is_um=False), 'MTL-0130-P03')
    >>> read_name("embryo_12").has_time
    False
    """
    if match := _MICRO_MANAGER.fullmatch(stem):
        rest = f"img_\1_{match['channel']}_\2"
        return NameWords(rest, int(match["run"]), plane=Plane(int(match["plane"])), words=("time", "z"))
    said: list[_Said] = [part for part in (_stamp(stem), _hours(stem)) if part]
    numbered = [match for match in _NUMBERED.finditer(stem) if not any(part.overlaps(match) for part in said)]
    said += [part for part in (_run(stem, numbered), _plane(stem, numbered)) if part]
    values = {part.kind: part.value for part in said}
    return NameWords(
        _without(stem, said), **values, words=tuple(part.word for part in said), info=_incubator_info(stem)
    )


@dataclass(frozen=True)
class _Said:
    kind: str
    value: Any
    word: str
    start: int
    end: int

    def overlaps(self, match: re.Match[str]) -> bool:
        return match.start() < self.end and self.start < match.end()


_MARKS = {"run": "\1", "plane": "\2", "hours": "\3", "stamp": "\0"}


def _without(stem: str, said: list[_Said]) -> str:
    for part in sorted(said, key=lambda part: -part.start):
        stem = stem[: part.start] + _MARKS[part.kind] + stem[part.end :]
    return stem


def _stamp(stem: str) -> _Said | None:
    for match in _STAMP.finditer(stem):
        is_compact = match["H"] is not None
        if not is_compact and not match["sep"] and match["S2"] is None:
            continue  # 20230501-12-05 may as well be the fifth picture of patient 12
        names = (*"ymd", *(("H", "M", "S") if is_compact else ("H2", "M2", "S2")))
        year, month, day, hour, minute, second = (int(match[name] or 0) for name in names)
        try:
            moment = datetime(year, month, day, hour, minute, second)
        except ValueError:
            continue
        return _Said("stamp", moment, "date and time", match.start(), match.end())
    return None


def _hours(stem: str) -> _Said | None:
    for match in _HOURS.finditer(stem):
        start = match.start()
        if start and stem[start - 1].lower() == "t" and not stem[start - 2 : start - 1].isalnum():
            start -= 1
        elif start and stem[start - 1].isalpha():
            continue
        hours = decimal(match["number"])
        hours = hours / 60 if match["only_minutes"] else hours + int(match["minutes"] or 0) / 60
        return _Said("hours", hours, "min" if match["only_minutes"] else "h", start, match.end())
    return _word_before(stem, list(_NUMBERED.finditer(stem)), HOUR_WORDS, "hours")


def _run(stem: str, numbered: list[re.Match[str]]) -> _Said | None:
    return _word_before(stem, numbered, RUN_WORDS, "run")


def _plane(stem: str, numbered: list[re.Match[str]]) -> _Said | None:
    said = _word_before(stem, numbered, PLANE_WORDS, "plane")
    if said is None:
        return None
    is_um = said.word == "F"
    minus = stem[said.start : said.end].count("-") and said.word.lower() in ("f", "z")
    plane = Plane(-said.value if minus else said.value, is_um)
    return _Said("plane", plane, said.word, said.start, said.end)


def _word_before(stem: str, numbered: list[re.Match[str]], words: tuple[str, ...], kind: str) -> _Said | None:
    known = [(word, match) for match in numbered if (word := _last_word(match["word"])).lower() in words]
    for wanted in words if known else ():
        for word, match in known:
            start = match.end("word") - len(word)
            if word.lower() == wanted and _counts(stem, start, match):
                return _Said(kind, int(match["number"]), word, start, match.end())
    return None


def _last_word(letters: str) -> str:
    """``T`` of ``embryoT``, ``Frame`` of ``bestFrame``; otherwise all letters."""
    if letters.islower():
        return letters
    match = re.search(r"(?<=[a-z])[A-Z][a-z]*$", letters)
    return match[0] if match and match[0].lower() in (*RUN_WORDS, *PLANE_WORDS, *HOUR_WORDS) else letters


def _counts(stem: str, start: int, match: re.Match[str]) -> bool:
    """Whether a word and its number stand alone, unlike a single letter within a code such as ``A0F2D``."""
    word = _last_word(match["word"])
    if len(word) > 1:
        return True
    if word == "f" or (word == "F" and match["gap"] not in ("", "-")) or " " in match["gap"]:
        return False
    before, after = stem[:start], stem[match.end() :]
    begins = not before[-1:].isdigit() or re.search(rf"(?<!{_LETTERS}){_AXIS}\d*$", before, re.IGNORECASE) is not None
    ends = not after[:1].isalnum() or re.match(_AXIS, after, re.IGNORECASE) is not None
    return begins and ends


def _incubator_info(stem: str) -> dict[str, Any]:
    match = INCUBATOR.fullmatch(stem)
    if match is None:
        return {}
    return {
        "date": f"{match['year']}-{match['month']}-{match['day']}",
        "slide": match["slide"],
        "instrument": match["instrument"],
        "well": int(match["well"]),
    }


FOLDER_PLANE = re.compile(r"(?P<word>F|FP|zid|z|plane)[ _]?(?P<number>-?\d+)", re.IGNORECASE)
"""``F-15``, ``F0``, ``FP3``, ``z02``: one folder per focal plane."""

_FOLDER_SUFFIX = re.compile(r"(?P<base>.+)[ _]F(?P<number>-?\d+)")


def plane_of_folder(name: str) -> Plane | None:
    """The focal plane that a folder represents, if any."""
    match = FOLDER_PLANE.fullmatch(name)
    return None if match is None else Plane(int(match["number"]), match["word"].lower() == "f")


def plane_beside(name: str) -> tuple[str, Plane] | None:
    """``embryo_dataset_F15`` represents plane 15 of ``embryo_dataset``."""
    match = _FOLDER_SUFFIX.fullmatch(name)
    return None if match is None else (match["base"], Plane(int(match["number"]), is_um=True))


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key in which 2 comes before 10."""
    parts = re.split(r"(\d+)", text.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def image_stem(path: Path) -> str:
    """The file name without its suffix; ``.ome.tif`` counts as one suffix."""
    return re.sub(r"\.ome$", "", path.stem, flags=re.IGNORECASE)
