"""Pictures that are known to show no embryo: named in a list, or annotated without anything drawn."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from napari_embryo.data.embryos import image_stem
from napari_embryo.data.image_files import Entry, by_stem, folder_like, read_gray, refuse
from napari_embryo.data.sample import Truth, empty_truth

LOOKED_FOR = "images named in empty.txt (one file name per line), which show no embryo"
_NAMES = ("empty.txt", "empty.csv", "empty")
_HEADERS = frozenset(("image", "name", "file", "file_name", "picture"))


def fits(folder: Path, classes: Sequence[str]) -> bool:
    """Whether the folder holds a list of empty pictures."""
    return list_in(folder) is not None


def list_in(folder: Path) -> Path | None:
    """The folder's list of empty pictures, where it has one."""
    home = folder.parent if folder.is_file() else folder
    return next((path for name in _NAMES if (path := home / name).is_file()), None)


def read_list(path: Path) -> tuple[str, ...]:
    """Stems of the pictures that a list names: one file name per line, the first column of a table.

    Raises
    ------
    ValueError
        If it is not a text file in UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file in UTF-8 ({error}); write one file name per line") from error
    names = [line.split(",")[0].strip().strip('"') for line in lines]
    kept = (name for name in names if name and not name.startswith("#") and name.lower() not in _HEADERS)
    return tuple(dict.fromkeys(map(image_stem, kept)))


def no_entries(folder: Path, classes: Sequence[str]) -> Iterator[Entry]:
    """A folder with nothing but the list offers no other pictures."""
    return iter(())


def with_empty(folder: Path, entries: Iterator[Entry], classes: tuple[str, ...], *, blank: bool) -> Iterator[Entry]:
    """The entries of a layout, where those that the folder's list names show no embryo.

    Parameters
    ----------
    folder
        The folder, or the annotation file in it.
    entries
        What the layout offers.
    classes
        In the order of the masks.
    blank
        Whether a picture whose annotation holds nothing shows no embryo either.
    """
    path = list_in(folder)
    named = dict.fromkeys(read_list(path) if path else ())
    drawn: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in named:
            drawn.setdefault(entry.name, entry)
        else:
            yield Entry(entry.name, partial(_or_empty, entry.load, classes), entry.embryo) if blank else entry
    for name in named:
        yield _named(path or folder, name, drawn.get(name), classes)


def _or_empty(load: Callable[[], Truth], classes: tuple[str, ...]) -> Truth:
    truth = load()
    return empty_truth(truth.image, classes) if truth.is_blank else truth


def _named(path: Path, name: str, entry: Entry | None, classes: tuple[str, ...]) -> Entry:
    files = _pictures(path.parent).get(name, [])
    embryo = entry.embryo if entry else None
    if len(files) != 1:
        said = "no image" if not files else " and ".join(file.name for file in files)
        return Entry(name, partial(refuse, f"{path.name} names it, but {said} of this name lies there; one is needed"))
    return Entry(name, partial(read_empty, files[0], entry.load if entry else None, path.name, classes), embryo)


def _pictures(home: Path) -> Mapping[str, list[Path]]:
    inside = folder_like(home, "images")
    return {**(by_stem(inside) if inside else {}), **by_stem(home)}


def read_empty(picture: Path, load: Callable[[], Truth] | None, list_name: str, classes: tuple[str, ...]) -> Truth:
    """A picture that a list calls empty.

    Raises
    ------
    ValueError
        If something is drawn on it all the same.
    """
    if load is not None and _is_drawn(load):
        raise ValueError(f"{list_name} says that it shows no embryo, but something is drawn on it; correct one of them")
    return empty_truth(read_gray(picture), classes)


def _is_drawn(load: Callable[[], Truth]) -> bool:
    try:
        truth = load()
    except (ValueError, OSError):  # it has no annotation, which is as it should be
        return False
    return bool(truth.masks.any() or truth.cells.any())
