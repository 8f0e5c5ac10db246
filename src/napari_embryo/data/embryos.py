"""Derive the embryo of an image, all images of which must stay on one side of a split."""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Self

from napari_embryo.io.header import SINGLE
from napari_embryo.settings import DataSettings

_EMBRYO_PATTERNS = (
    re.compile(r"(?<![^\W_])(?P<embryo>(?i:[RT])\d{2}-\d+)[A-Za-z]?(?=_|$)"),  # clinic's patient, siblings a, b, ...
    re.compile(r"^stork_(?P<embryo>\d+)"),
    re.compile(r"^(?P<embryo>\d{8})_-?\d+_[1-6][A-C]"),  # focal planes: number, plane, Gardner grade
    re.compile(r"_PCRM_(?P<embryo>\d{5,})_D\d$"),
    re.compile(r"(?:^|_PCRM_)(?P<embryo>d5\.\d+)"),
    re.compile(r"(?:^|_PCRM_)(?P<embryo>\d+_x_\w+_d5)_(?:left|right)$"),
    re.compile(r"^D\d{4}\.\d{2}\.\d{2}_(?P<embryo>S\d+_I\d+.*?WELL\d+)"),
    re.compile(r"^seq_(?P<embryo>.+)_\d+$"),  # frames of one time-lapse
    re.compile(r"^(?P<embryo>.+?)[_ -](?i:RUN)[_ -]?\d+$"),
)
_PATIENT = re.compile(r"[rt]\d{2}-\d+")
_COPY = re.compile(r" \[\d+\]$")
"""Suffix that napari adds to a layer name that is taken."""


def embryo_of(name: str) -> str:
    """Patient or embryo in a file name; the name itself, with ``_`` for spaces, if no known pattern matches.

    >>> embryo_of("Blast_PCRM_R13-0140b"), embryo_of("stork_32176207_0_2BB-"), embryo_of("my embryo [1]")
    ('R13-0140', '32176207', 'my_embryo')
    """
    return known_embryo(name) or _plain(name)


def known_embryo(name: str) -> str | None:
    """The same, but None if no known pattern matches.

    >>> known_embryo("Blast_PCRM_R13-0140b"), known_embryo("my embryo [1]")
    ('R13-0140', None)
    """
    embryo = _first_match(_EMBRYO_PATTERNS, _plain(name))
    return embryo.upper() if embryo and _PATIENT.fullmatch(embryo) else embryo


def _plain(name: str) -> str:
    return _COPY.sub("", name).replace(" ", "_")


def digest(embryo: str) -> str:
    """Digest of an embryo's name for weights, sufficient to recognize it, since the name may identify a person.

    >>> digest("R13-0140")
    'd158c183cd2e2467'
    """
    return sha256(embryo.encode()).hexdigest()[:16]


def _first_match(patterns: Iterable[re.Pattern[str]], name: str) -> str | None:
    found = (pattern.search(name) for pattern in patterns)
    return next((match["embryo"] for match in found if match), None)


@dataclass(frozen=True)
class Embryos:
    """Determines the embryo of a file.

    In this order: the table of the settings, their pattern, the ``embryos.csv`` of the folder, the annotation itself,
    and the names of known clinics and incubators.

    Parameters
    ----------
    pattern
        Pattern of the settings.
    table
        Table of the settings: file stem -> embryo.
    of_folder
        The same from the folder's ``embryos.csv``.
    """

    pattern: re.Pattern[str] | None = None
    table: Mapping[str, str] = field(default_factory=dict)
    of_folder: Mapping[str, str] = field(default_factory=dict)

    def with_table(self, of_folder: Mapping[str, str]) -> Self:
        """The same for a folder with its own table."""
        return replace(self, of_folder=of_folder)

    @classmethod
    def of(cls, settings: DataSettings) -> Self:
        """Read the pattern and the table of the settings.

        Raises
        ------
        ValueError
            If the pattern is not a regular expression with a group ``embryo``, or the table lacks a column.
        FileNotFoundError
            If there is no such table.
        """
        pattern = compiled(settings.embryo_pattern) if settings.embryo_pattern else None
        return cls(pattern, read_table(Path(settings.embryo_table)) if settings.embryo_table else {})

    def name(self, image: str, told: str | None) -> str:
        """The embryo of the image ``image``; ``told`` is the one stated by its source."""
        patterned = _first_match([self.pattern], image) if self.pattern else None
        return self.table.get(image) or patterned or self.of_folder.get(image) or told or embryo_of(image)

    def check_used(self, images: Iterable[str]) -> None:
        """Refuse a table or pattern that matches no image at all, which splitting by file name would hide."""
        names = list(images)
        if self.pattern and names and not any(map(self.pattern.search, names)):
            raise ValueError(
                f"embryo_pattern {self.pattern.pattern!r} matches no image, such as {names[0]!r}; correct it"
            )
        if self.table and names and self.table.keys().isdisjoint(names):
            raise ValueError(
                f"embryo_table names none of the images: it has {next(iter(self.table))!r}, the folders have "
                f"{names[0]!r}; its column 'image' needs their file names"
            )


def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern, checked to be one that names embryos."""
    needed = r"use a regular expression with a group named 'embryo', such as '(?P<embryo>R\d+-\d+)'"
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"embryo_pattern {pattern!r} is not a regular expression ({error}); {needed}") from error
    if "embryo" not in expression.groupindex:
        raise ValueError(f"embryo_pattern {pattern!r} has no group 'embryo'; {needed}")
    return expression


FOLDER_TABLE = "embryos.csv"
_IMAGE_COLUMNS = ("image", "name", "file", "file_name")


def table_of(folder: Path) -> dict[str, str]:
    """Content of the ``embryos.csv`` of a folder of annotations; empty if there is none.

    Raises
    ------
    ValueError
        If the table lacks a column.
    """
    path = (folder if folder.is_dir() else folder.parent) / FOLDER_TABLE
    return read_table(path) if path.is_file() else {}


def read_table(path: Path) -> dict[str, str]:
    """File stem -> embryo, of a CSV with the columns ``image`` (or ``name``) and ``embryo``; empty embryos are skipped.

    Raises
    ------
    FileNotFoundError
        If there is no such table.
    ValueError
        If it lacks a column.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such embryo table; give a CSV with the columns image and embryo")
    rows = read_rows(path)
    columns = list(rows[0]) if rows else []
    image = next((name for name in _IMAGE_COLUMNS if name in columns), None)
    if image is None or "embryo" not in columns:
        raise ValueError(
            f"{path}: its columns are {', '.join(columns) or '(none)'}, but the columns image and embryo are needed"
        )
    return {image_stem(row[image]): row["embryo"] for row in rows if row["embryo"]}


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV, with lowercase column names, stripped cells, and empty missing cells."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a table in UTF-8 with commas ({error}); save it as 'CSV UTF-8'") from error
    return [{_clean(key).lower(): _clean(cell) for key, cell in row.items() if isinstance(key, str)} for row in rows]


def _clean(cell: str | None) -> str:
    return (cell or "").strip()


_IMAGE_SUFFIX = re.compile(rf"(\.ome)?({'|'.join(map(re.escape, SINGLE))})$", re.IGNORECASE)


def image_stem(file_name: str) -> str:
    """Name of an image without folders and image suffix; other dots belong to the name.

    >>> image_stem("images/d5.12.PNG"), image_stem("d5.12")
    ('d5.12', 'd5.12')
    """
    return _IMAGE_SUFFIX.sub("", file_name.replace("\\", "/").rsplit("/", 1)[-1])


def inside(file_name: str) -> Path | None:
    """Path named by a table or an annotation; None if it leads out of their folder.

    >>> inside("masks/a.png").name, inside("../a.png"), inside("/home/a.png")
    ('a.png', None, None)
    """
    path = Path(file_name.replace("\\", "/"))
    leads_out = path.is_absolute() or path.drive or ".." in path.parts
    return None if leads_out else path


def reduced(file_name: str) -> Path:
    """The same, but a path out of the folder is reduced to its file name.

    >>> str(reduced("../../a.png")), reduced("masks/a.png").name
    ('a.png', 'a.png')
    """
    return inside(file_name) or Path(Path(file_name.replace("\\", "/")).name)
