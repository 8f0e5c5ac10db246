"""A CSV of image-level labels: grades, fragmentation ratios, and masks where the table names them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from napari_embryo.data.embryos import image_stem, inside, read_rows
from napari_embryo.data.image_files import Entry, by_stem, folder_like, pictures, refuse
from napari_embryo.data.mask_files import read_masks
from napari_embryo.data.sample import Truth
from napari_embryo.settings import GRADES

LOOKED_FOR = "a CSV with the columns image and grade (A-D) or ratio (0-1)"
_WHOSE = ("embryo", "patient_id", "patient")
_SHORT = {"frag": ("fragment", "fragments", "fragmentation")}
"""Short names of classes in a table's mask columns."""


def fits(folder: Path, classes: Sequence[str]) -> bool:
    """Whether a table with the needed columns lies in the folder."""
    return any(_lacking(path) is None for path in _tables(folder))


def _tables(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    return sorted(p for p in folder.iterdir() if p.suffix.lower() == ".csv" and not p.name.startswith("."))


def _lacking(path: Path) -> str | None:
    """Why a table is not one of grades; None where it is."""
    try:
        rows = read_rows(path)
    except ValueError as error:
        return str(error)
    columns = set(rows[0]) if rows else set()
    if "image" in columns and columns & {"grade", "ratio"}:
        return None
    named = ", ".join(rows[0]) if rows else "none"
    return (
        f"{path}: not a table of fragmentation grades: it has the columns {named}, but needs image, and grade (A-D) "
        "or ratio (0-1). A Gardner grade of a blastocyst is neither"
    )


def entries(folder: Path, classes: Sequence[str]) -> Iterator[Entry]:
    """Every row of the tables in the folder.

    Raises
    ------
    ValueError
        If no table has the required columns.
    """
    reasons = {path: _lacking(path) for path in _tables(folder)}
    good = [path for path, reason in reasons.items() if reason is None]
    if not good:
        raise ValueError("; ".join(filter(None, reasons.values())) or f"{folder}: no CSV; {LOOKED_FOR} is needed")
    for path in good:
        yield from _rows(path, classes)


def _rows(path: Path, classes: Sequence[str]) -> Iterator[Entry]:
    home = path.parent
    places = [home, *filter(None, [folder_like(home, "images")])]
    lying = {p.name: p for place in places for p in pictures(place)}
    stems = {stem: paths for place in places for stem, paths in by_stem(place).items()}
    for row in read_rows(path):
        name = image_stem(row["image"])
        candidates = [lying[Path(row["image"]).name]] if Path(row["image"]).name in lying else stems.get(name, [])
        whose = next((row[key] for key in _WHOSE if row.get(key)), None)
        yield Entry(name, _load(home, candidates, row, classes), whose)


def _load(home: Path, candidates: Sequence[Path], row: Mapping[str, str], classes: Sequence[str]) -> partial[Truth]:
    if len(candidates) != 1:
        found = "no image" if not candidates else " and ".join(p.name for p in candidates)
        return partial(refuse, f"{found} with this name next to the table or in images/; exactly one is needed")
    told = {name: row[column] for name in classes if (column := _mask_column(row, name))}
    masks = {name: home / path for name, file in told.items() if (path := inside(file))}
    if outside := [file for name, file in told.items() if name not in masks]:
        return partial(refuse, f"{', '.join(outside)} leads out of {home}; put the mask there and name it from there")
    return partial(read, candidates[0], row.get("ratio", ""), row.get("grade", ""), masks, tuple(classes))


def _mask_column(row: Mapping[str, str], name: str) -> str | None:
    """The column with the file of a class's mask, such as ``icm_mask``, where this row has one."""
    names = [name.lower(), *(short for short, meant in _SHORT.items() if name.lower() in meant)]
    return next((f"{each}_mask" for each in names if row.get(f"{each}_mask")), None)


def read(picture: Path, ratio: str, grade: str, masks: Mapping[str, Path], classes: Sequence[str]) -> Truth:
    """A picture with its weak label; classes without a mask are unknown."""
    return replace(read_masks(picture, masks, classes), ratio=_ratio(ratio), grade=_grade(grade))


def _ratio(text: str) -> float | None:
    try:
        ratio = float(text) if text else None
    except ValueError as error:
        raise ValueError(f"the ratio is {text!r}, but must be a number between 0 and 1") from error
    if ratio is not None and not 0 <= ratio <= 1:
        raise ValueError(f"the ratio is {text}, but must be a share between 0 and 1, not a percentage")
    return ratio


def _grade(text: str) -> str | None:
    if text and text.upper() not in GRADES:
        raise ValueError(f"the grade is {text!r}, but must be one of {', '.join(GRADES)}")
    return text.upper() or None
