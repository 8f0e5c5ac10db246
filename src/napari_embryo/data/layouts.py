"""Folders -> samples: which layout a folder has, and which of its pictures can be used."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from napari_embryo.data import coco, grades, labelme, maskfiles, napari_samples
from napari_embryo.data.embryos import Embryos
from napari_embryo.data.image_files import Entry, subfolders
from napari_embryo.data.sample import Contents, Found, Sample, Skipped, Truth, with_embryo
from napari_embryo.families import BLASTOCYST_CLASSES, FRAGMENT_CLASSES
from napari_embryo.settings import DataSettings


@dataclass(frozen=True)
class Reader:
    """One layout: what it looks like, whether a folder has it, and what a folder of it offers."""

    looked_for: str
    fits: Callable[[Path, Sequence[str]], bool]
    entries: Callable[[Path, Sequence[str]], Iterator[Entry]]


READERS: dict[str, Reader] = {
    "saeedi": Reader(maskfiles.LOOKED_FOR_SAEEDI, maskfiles.fits_saeedi, maskfiles.saeedi_entries),
    "masks": Reader(maskfiles.LOOKED_FOR_MASKS, maskfiles.fits_masks, maskfiles.mask_entries),
    "napari": Reader(napari_samples.LOOKED_FOR, napari_samples.fits, napari_samples.entries),
    "labelme": Reader(labelme.LOOKED_FOR, labelme.fits, labelme.entries),
    "kins": Reader(coco.LOOKED_FOR_KINS, coco.fits_kins, partial(coco.entries, kins=True)),
    "coco": Reader(coco.LOOKED_FOR, coco.fits, coco.entries),
    "grades": Reader(grades.LOOKED_FOR, grades.fits, grades.entries),
}
"""In the order in which they are tried."""
_SHOWN_REASONS = 5
_LEARNED_FROM_MASKS = frozenset(BLASTOCYST_CLASSES)
"""Classes for which cells and grades are no annotation; a class that is learned from those stays out of it."""


def are_cells(classes: Sequence[str]) -> bool:
    """Whether single cells are what counts, each with a silhouette of its own, and not the masks of whole classes.

    >>> are_cells(("cell",)), are_cells(("fragment", "embryo"))
    (True, False)
    """
    return bool(classes) and {name.lower() for name in classes} <= coco.CELLS


def find_samples(settings: DataSettings, classes: Sequence[str], *, cells: bool | None = None) -> Found:
    """Every usable picture of the folders; each is read once to check it, and a bad one is told and left out.

    Parameters
    ----------
    settings
        Folders, layout, and how to tell embryos apart. A folder may also be a COCO or CSV file.
    classes
        What the masks shall be of, in this order.
    cells
        Whether a picture is of use only where single cells are drawn on it; None: with classes that are cells.

    Returns
    -------
    Found
        The samples, and what was skipped and why.

    Raises
    ------
    FileNotFoundError
        When a folder is not there.
    ValueError
        When a folder has no layout that is known, no picture can be used, or embryos cannot be told as asked.
    """
    embryos = Embryos.of(settings)
    homes = [home for folder in _folders(settings) for home in _homes(folder, settings.layout, classes)]
    sources = _sources([path for path, _ in homes])
    check = partial(_check, classes=classes, cells=are_cells(classes) if cells is None else cells)
    found = [_read_folder(sources[path], _entries(path, layout, classes), check, embryos) for path, layout in homes]
    everything = Found(
        tuple(sample for each in found for sample in each.samples),
        tuple(skipped for each in found for skipped in each.skipped),
        {sample: contents for each in found for sample, contents in each.contents.items()},
    )
    if not everything.samples:
        raise ValueError(_nothing_usable(homes, everything.skipped))
    embryos.check_used(sample.name for sample in everything.samples)
    return everything


def _folders(settings: DataSettings) -> list[Path]:
    if not settings.folders:
        raise ValueError("no folder of annotated pictures is named; give at least one (data: folders, or --data)")
    folders = list(dict.fromkeys(Path(folder).expanduser().resolve() for folder in settings.folders))
    missing = [str(folder) for folder in folders if not folder.exists()]
    if missing:
        raise FileNotFoundError(f"{', '.join(missing)}: there is no such folder; check the path")
    return folders


def _homes(folder: Path, layout: str, classes: Sequence[str]) -> list[tuple[Path, str]]:
    """The folder with its layout, or those of its sub-folders that have one.

    Raises
    ------
    ValueError
        When nothing fits; it says what was looked for.
    """
    if layout != "auto":
        return [(folder, layout)]
    inside = (folder, *subfolders(folder))
    here = _layout(folder, classes)
    fitting = [(folder, here)] if here else [(sub, how) for sub in inside[1:] if (how := _layout(sub, classes))]
    if fitting:
        return fitting
    looked_for = "\n".join(f"  {name}: {reader.looked_for}" for name, reader in READERS.items())
    raise ValueError(f"{folder}: no annotated pictures were recognized there. Looked for:\n{looked_for}")


def _layout(folder: Path, classes: Sequence[str]) -> str | None:
    return next(_layouts(folder, classes), None)


def _layouts(folder: Path, classes: Sequence[str]) -> Iterator[str]:
    """Every one that the folder has; a file may be a table, or COCO."""
    if folder.is_file():
        readers: Iterable[str] = ("grades",) if folder.suffix.lower() == ".csv" else ("kins", "coco")
    else:
        readers = READERS
    return (name for name in readers if READERS[name].fits(folder, classes))


def layout_doubts(settings: DataSettings, classes: Sequence[str]) -> tuple[str, ...]:
    """Which folders could be read in another way, too: one line each.

    Parameters
    ----------
    settings, classes
        As for :func:`find_samples`, which takes the first layout that fits.
    """
    if settings.layout != "auto":
        return ()
    homes = [path for folder in _folders(settings) for path, _ in _homes(folder, "auto", classes)]
    return tuple(line for path in homes if (line := _doubt(path, classes)))


def _doubt(path: Path, classes: Sequence[str]) -> str:
    taken, *others = _layouts(path, classes)
    if taken == "kins":  # which is COCO with names of its own
        others.remove("coco")
    if not others:
        return ""
    *first, last = (taken, *others)
    choice = " or ".join(others)
    return (
        f"{path} looks like {', '.join(first)} and {last}; read as {taken}; say layout: {choice} "
        f"(--layout {others[0]}) to change"
    )


def _sources(paths: Sequence[Path]) -> dict[Path, str]:
    """The shortest end of each path that no other one has; a file goes by its folder, unless that has two of them."""
    homes = [path.parent for path in paths if path.is_file()]
    folders = {path: path.parent if path.is_file() and homes.count(path.parent) == 1 else path for path in paths}
    names: dict[Path, str] = {}
    for path, folder in folders.items():
        others = [other for other in folders.values() if other != folder]
        lengths = range(1, len(folder.parts) + 1)
        alone = (n for n in lengths if all(other.parts[-n:] != folder.parts[-n:] for other in others))
        names[path] = "/".join(folder.parts[-next(alone, 1) :])
    return names


def _read_folder(
    source: str, entries: Iterable[Entry], check: Callable[[Entry], Contents | str], embryos: Embryos
) -> Found:
    samples: list[Sample] = []
    skipped: list[Skipped] = []
    contents: dict[Sample, Contents] = {}
    names: set[str] = set()
    for entry in entries:
        checked = check(entry) if entry.name not in names else "another picture has the same name"
        if isinstance(checked, str):
            skipped.append(Skipped(f"{source}/{entry.name}", checked))
            continue
        names.add(entry.name)
        samples.append(Sample(entry.name, embryos.name(entry.name, entry.embryo), source, entry.load))
        contents[samples[-1]] = checked
    return Found(tuple(samples), tuple(skipped), contents)


def _entries(path: Path, layout: str, classes: Sequence[str]) -> Iterator[Entry]:
    for entry in READERS[layout].entries(path, classes):
        if set(FRAGMENT_CLASSES) <= set(classes):
            entry = replace(entry, load=partial(with_embryo, entry.load, tuple(classes)))
        yield entry


def _check(entry: Entry, classes: Sequence[str], cells: bool) -> Contents | str:
    """What the picture holds, or why it cannot be used."""
    try:
        truth = entry.load()
    except (ValueError, OSError, MemoryError) as error:
        return str(error) or type(error).__name__
    return objection(truth, classes, cells) or Contents.of(truth, classes)


def objection(truth: Truth, classes: Sequence[str], cells: bool = False) -> str | None:
    """What speaks against learning from a picture that could be read; None where nothing does.

    Where ``cells`` are learned from, every one that lacks speaks against it, whatever else is drawn.
    """
    if truth.image.dtype.kind not in "uifb":
        return f"its values are of type {truth.image.dtype}; needed are gray values"
    if truth.image.dtype.kind == "f" and not np.isfinite(truth.image).all():
        return f"{np.count_nonzero(~np.isfinite(truth.image))} of its pixels are not a number (NaN or infinite)"
    if cells:
        return None if truth.cells.any() else "no cell is drawn on it"
    if not _LEARNED_FROM_MASKS.issuperset(classes) and _teaches_without_masks(truth):
        return None
    if not truth.known.any():
        return f"none of {', '.join(classes)} is drawn on it"
    if set(classes) <= set(BLASTOCYST_CLASSES) and not truth.masks.any():
        return "its drawing is empty"
    return None


def _teaches_without_masks(truth: Truth) -> bool:
    """Cells, a grade or a ratio: what only some classes are learned from."""
    return bool(truth.ratio is not None or truth.grade is not None or len(truth.cells))


def _nothing_usable(homes: Sequence[tuple[Path, str]], skipped: Sequence[Skipped]) -> str:
    where = ", ".join(str(path) for path, _ in homes)
    reasons = "\n".join(f"  {s.name}: {s.reason}" for s in skipped[:_SHOWN_REASONS])
    more = f"\n  and {len(skipped) - _SHOWN_REASONS} more" if len(skipped) > _SHOWN_REASONS else ""
    looked_for = "; ".join(dict.fromkeys(READERS[layout].looked_for for _, layout in homes))
    came = f"What was left out:\n{reasons}{more}" if skipped else f"Looked for: {looked_for}"
    return f"{where}: no picture there can be used. {came}"
