"""Folders -> samples: which layout a folder has, and which of its pictures can be used."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from napari_embryo.data import coco, empty, grades, labelme, mask_files, napari_samples
from napari_embryo.data.duplicates import without_duplicates
from napari_embryo.data.embryos import Embryos, table_of
from napari_embryo.data.image_files import Entry, subfolders
from napari_embryo.data.labels import are_cells
from napari_embryo.data.sample import Contents, Found, Remark, Sample, Skipped, Truth, with_embryo
from napari_embryo.families import BLASTOCYST_CLASSES, FRAGMENT_CLASSES
from napari_embryo.settings import DataSettings


@dataclass(frozen=True)
class Reader:
    """One layout: what it looks like, whether a folder has it, and the pictures that such a folder offers."""

    looked_for: str
    fits: Callable[[Path, Sequence[str]], bool]
    entries: Callable[[Path, Sequence[str]], Iterator[Entry]]


READERS: dict[str, Reader] = {
    "saeedi": Reader(mask_files.LOOKED_FOR_SAEEDI, mask_files.fits_saeedi, mask_files.saeedi_entries),
    "masks": Reader(mask_files.LOOKED_FOR_MASKS, mask_files.fits_masks, mask_files.mask_entries),
    "napari": Reader(napari_samples.LOOKED_FOR, napari_samples.fits, napari_samples.entries),
    "labelme": Reader(labelme.LOOKED_FOR, labelme.fits, labelme.entries),
    "kins": Reader(coco.LOOKED_FOR_KINS, coco.fits_kins, partial(coco.entries, kins=True)),
    "coco": Reader(coco.LOOKED_FOR, coco.fits, coco.entries),
    "labels": Reader(mask_files.LOOKED_FOR_LABELS, mask_files.fits_labels, mask_files.label_entries),
    "grades": Reader(grades.LOOKED_FOR, grades.fits, grades.entries),
    "empty": Reader(empty.LOOKED_FOR, empty.fits, empty.no_entries),
}
"""In the order in which they are tried."""
_SHOWN_REASONS = 5
_SHOWN_NAMES = 3
_LEARNED_FROM_MASKS = frozenset(BLASTOCYST_CLASSES)
"""Classes for which cells and grades are no annotation; a class that is learned from those stays out of it."""


def find_samples(settings: DataSettings, classes: Sequence[str], *, cells: bool | None = None) -> Found:
    """Find every usable picture of the folders; each is read once to check it, and unusable ones are reported.

    Parameters
    ----------
    settings
        Folders, layout, and how to tell embryos apart. A folder may also be a COCO or CSV file.
    classes
        The classes of the masks, in this order.
    cells
        Whether a picture is of use only if single cells are drawn on it; None: if the classes are cells.

    Returns
    -------
    Found
        The samples, what was skipped and why, and notes on how the pictures were read.

    Raises
    ------
    FileNotFoundError
        If a folder does not exist.
    ValueError
        If a folder has no known layout, no picture can be used, or embryos cannot be told apart as requested.
    """
    embryos = Embryos.of(settings)
    homes = [home for folder in _folders(settings) for home in _homes(folder, settings.layout, classes)]
    sources = _sources([path for path, _ in homes])
    check = partial(_check, classes=classes, cells=are_cells(classes) if cells is None else cells)
    found = [
        _read_folder(
            sources[path], _entries(path, layout, classes, settings), check, embryos.with_table(table_of(path))
        )
        for path, layout in homes
    ]
    everything = Found(
        tuple(sample for each in found for sample in each.samples),
        tuple(skipped for each in found for skipped in each.skipped),
        {sample: contents for each in found for sample, contents in each.contents.items()},
        tuple(note for each in found for note in _notes(each)),
    )
    if not everything.samples:
        raise ValueError(_nothing_usable(homes, everything.skipped))
    embryos.check_used(sample.name for sample in everything.samples)
    return everything


def _folders(settings: DataSettings) -> list[Path]:
    if not settings.folders:
        raise ValueError("no folder of annotated images was given; name at least one (data: folders, or --data)")
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
        If nothing fits; the message says what was looked for.
    """
    if layout != "auto":
        return [(folder, layout)]
    inside = (folder, *subfolders(folder))
    here = _layout(folder, classes)
    fitting = [(folder, here)] if here else [(sub, how) for sub in inside[1:] if (how := _layout(sub, classes))]
    if fitting:
        return fitting
    looked_for = "\n".join(f"  {name}: {reader.looked_for}" for name, reader in READERS.items())
    raise ValueError(f"{folder}: no annotated images were recognized there. Looked for:\n{looked_for}")


def _layout(folder: Path, classes: Sequence[str]) -> str | None:
    return next(_layouts(folder, classes), None)


def _layouts(folder: Path, classes: Sequence[str]) -> Iterator[str]:
    """Every layout that the folder has; a file may be a table or COCO."""
    if folder.is_file():
        readers: Iterable[str] = ("grades",) if folder.suffix.lower() == ".csv" else ("kins", "coco")
    else:
        readers = READERS
    return (name for name in readers if READERS[name].fits(folder, classes))


def layout_doubts(settings: DataSettings, classes: Sequence[str]) -> tuple[str, ...]:
    """Say which folders could also be read in another way, one line each.

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
    others = [other for other in others if other != "empty"]  # a list beside any other layout
    if taken == "kins":  # which is COCO with names of its own
        others.remove("coco")
    if not others:
        return ""
    *first, last = (taken, *others)
    choice = " or ".join(others)
    return (
        f"{path} looks like {', '.join(first)} and {last}; it is read as {taken}; set layout: {choice} "
        f"(--layout {others[0]}) to change that"
    )


def _sources(paths: Sequence[Path]) -> dict[Path, str]:
    """The shortest end of each path that no other has; a file is named after its folder, unless it holds several."""
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
        checked = check(entry) if entry.name not in names else "another image has the same name"
        if isinstance(checked, str):
            skipped.append(Skipped(f"{source}/{entry.name}", checked))
            continue
        names.add(entry.name)
        samples.append(Sample(entry.name, embryos.name(entry.name, entry.embryo), source, entry.load))
        contents[samples[-1]] = checked
    return Found(tuple(samples), tuple(skipped), contents)


def _entries(path: Path, layout: str, classes: Sequence[str], settings: DataSettings) -> Iterator[Entry]:
    asked = tuple(classes)
    offered = READERS[layout].entries(path, asked)
    is_blank_empty = settings.without_annotations == "empty"
    for entry in empty.with_empty(path, offered, asked, blank=is_blank_empty):
        yield replace(entry, load=partial(_completed, entry.load, asked))


def _completed(load: Callable[[], Truth], classes: tuple[str, ...]) -> Truth:
    """What is true of every layout: a cell counts once, and the embryo is made of its parts."""
    truth = without_duplicates(load())
    return with_embryo(truth, classes) if set(FRAGMENT_CLASSES) <= set(classes) else truth


def _check(entry: Entry, classes: Sequence[str], cells: bool) -> Contents | str:
    """What the picture holds, or why it cannot be used."""
    try:
        truth = entry.load()
    except (ValueError, OSError, MemoryError) as error:
        return str(error) or type(error).__name__
    return objection(truth, classes, cells) or Contents.of(truth, classes)


def objection(truth: Truth, classes: Sequence[str], cells: bool = False) -> str | None:
    """Why a picture that could be read cannot be learned from; None where it can.

    If ``cells`` are learned from, a picture without any is of no use, whatever else is drawn on it, unless it is known
    to be empty.
    """
    if truth.image.dtype.kind not in "uifb":
        return f"its values are of type {truth.image.dtype}; gray values are needed"
    if truth.image.dtype.kind == "f" and not np.isfinite(truth.image).all():
        return f"{np.count_nonzero(~np.isfinite(truth.image))} of its pixels are not a number (NaN or infinite)"
    if truth.is_empty:
        return None
    if cells:
        return None if truth.cells.any() else _lacking("no cell is drawn on it", truth)
    if not _LEARNED_FROM_MASKS.issuperset(classes) and _teaches_without_masks(truth):
        return None
    return None if truth.known.any() else _lacking(f"none of {', '.join(classes)} is drawn on it", truth)


def _lacking(what: str, truth: Truth) -> str:
    """With what the picture has instead."""
    if truth.is_blank:
        return "no shape is drawn on it; if it shows no embryo, name it in empty.txt or set without_annotations: empty"
    instead = "; ".join(f"{kind}: {things}" for kind, things in _by_kind(truth.remarks).items())
    return f"{what} ({instead})" if instead else what


def _by_kind(remarks: Iterable[Remark]) -> dict[str, str]:
    kinds: dict[str, dict[str, None]] = defaultdict(dict)
    for remark in remarks:
        kinds[remark.kind][remark.what] = None
    return {kind: ", ".join(things) for kind, things in kinds.items()}


def _notes(found: Found) -> Iterator[str]:
    """One line for each kind of remark on the pictures of a folder."""
    of_kind: dict[str, list[tuple[Sample, Remark]]] = defaultdict(list)
    for sample, contents in found.contents.items():
        for remark in contents.remarks:
            of_kind[remark.kind].append((sample, remark))
    for kind, told in of_kind.items():
        things = _by_kind(remark for _, remark in told)[kind]
        names = list(dict.fromkeys(sample.name for sample, _ in told))
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        yield f"{told[0][0].source}: {kind}: {things} (in {', '.join(names[:_SHOWN_NAMES])}{more})"


def _teaches_without_masks(truth: Truth) -> bool:
    """Whether it has cells, a grade or a ratio, from which only some classes are learned."""
    return bool(truth.ratio is not None or truth.grade is not None or len(truth.cells))


def _nothing_usable(homes: Sequence[tuple[Path, str]], skipped: Sequence[Skipped]) -> str:
    where = ", ".join(str(path) for path, _ in homes)
    reasons = "\n".join(f"  {s.name}: {s.reason}" for s in skipped[:_SHOWN_REASONS])
    more = f"\n  and {len(skipped) - _SHOWN_REASONS} more" if len(skipped) > _SHOWN_REASONS else ""
    looked_for = "; ".join(dict.fromkeys(READERS[layout].looked_for for _, layout in homes))
    said = f"What was left out:\n{reasons}{more}" if skipped else f"Looked for: {looked_for}"
    return f"{where}: no image there can be used. {said}"
