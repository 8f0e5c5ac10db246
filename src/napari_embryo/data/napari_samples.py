"""Samples saved from napari: image and labels as OME-TIFF, numbered, and never overwritten."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo import io
from napari_embryo.data.embryos import digest, embryo_of
from napari_embryo.data.image_files import Entry, check_size, refuse
from napari_embryo.data.labels import canonical, known_classes
from napari_embryo.data.sample import Bools, Truth, no_cells

LOOKED_FOR = "samples saved from napari (NAME.v001.json)"
FORMAT = "napari-embryo sample"
CELL = ("cell",)
"""With this as the only class, every label is one cell."""
_FILE = re.compile(r"^(?P<name>.+)\.v(?P<version>\d{3,})\.json$")


def save_sample(
    folder: Path,
    name: str,
    image: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    classes: Sequence[str],
    about: Mapping[str, Any],
) -> Path:
    """Save an image with its labels as the next version of ``name``; earlier ones are kept.

    If existing versions are of another image (another name or ``about["source"]``), the name becomes ``name-2``.

    Parameters
    ----------
    folder
        Folder to save to; created if needed.
    name
        Name of the image; characters that are invalid in a file name become ``_``.
    image
        (H, W) gray.
    labels
        (H, W) integers: 0 is background, i + 1 is ``classes[i]``. With ``classes == ("cell",)`` each number is one
        cell; or (N, H, W), one cell each, nonzero within complete silhouettes that may overlap.
    classes
        Names of the labels.
    about
        Anything that JSON can represent. ``known``: annotated classes (by default ICM, TE, ZP and the embryo of the
        fragments are known if painted, and all other classes are known). ``embryo``: the embryo shown.

    Returns
    -------
    Path
        The JSON file, ``NAME.v001.json``; beside it lie ``NAME.v001.image.ome.tif`` and ``NAME.v001.labels.ome.tif``.

    Raises
    ------
    ValueError
        If image and labels do not fit each other or the classes.
    """
    image, labels = np.asarray(image), np.asarray(labels)
    _check(name, image, labels, classes)
    content = {
        "format": FORMAT,
        "name": name,
        "classes": list(classes),
        "known": list(about.get("known", _known(labels, classes))),
        "saved": datetime.now(UTC).isoformat(timespec="seconds"),
        "picture": _picture(about),
        "about": io.without_folders(dict(about)),
    }
    text = json.dumps(content, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as undo:
        path = _reserve(folder, _base(folder, name, about))
        undo.callback(_remove, path)
        io.write_ome_tiff(_beside(path, "image"), image, "YX", name=name)
        axes, names = ("YX", tuple(classes)) if labels.ndim == 2 else ("CYX", _numbered(len(labels)))
        io.write_ome_tiff(_beside(path, "labels"), labels, axes, name=name, kind="labels", names=names)
        with io.replacing(path, lasting=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
        undo.pop_all()
    return path


def _numbered(cells: int) -> tuple[str, ...]:
    return tuple(f"{CELL[0]} {number}" for number in range(1, cells + 1))


def _check(name: str, image: npt.NDArray[Any], labels: npt.NDArray[Any], classes: Sequence[str]) -> None:
    fits = labels.shape == image.shape or (labels.ndim == 3 and len(labels) and tuple(classes) == CELL)
    if image.ndim != 2 or not fits or labels.shape[-2:] != image.shape:
        raise ValueError(
            f"{name}: the image has shape {image.shape} and the labels {labels.shape}; one gray image (height, width) "
            "with labels of the same size is needed, for cells also one layer each"
        )
    highest = np.inf if tuple(classes) == CELL else len(classes)
    if labels.dtype.kind not in "iub" or labels.min(initial=0) < 0 or labels.max(initial=0) > highest:
        meant = ", ".join(f"{i} {each}" for i, each in enumerate(classes, start=1))
        raise ValueError(
            f"{name}: the labels range from {labels.min(initial=0)} to {labels.max(initial=0)} with type "
            f"{labels.dtype}, but must be integers: 0 background, {meant}"
        )


def _known(labels: npt.NDArray[Any], classes: Sequence[str]) -> list[str]:
    painted = [(labels == i).any() for i in range(1, len(classes) + 1)]
    known = known_classes(classes, painted, set(map(canonical, classes)))
    return [name for name, is_known in zip(classes, known, strict=True) if is_known]


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._-")[:120] or "sample"


def _base(folder: Path, name: str, about: Mapping[str, Any]) -> str:
    """The first name that is not used for versions of another image."""
    first = _file_name(name)
    versions = _versions(folder)
    candidates = chain([first], (f"{first}-{number}" for number in count(2)))
    return next(base for base in candidates if _is_of(versions.get(base, ()), name, about))


def _is_of(newest_first: Iterable[Path], name: str, about: Mapping[str, Any]) -> bool:
    """Whether the newest readable version is of the same image; true if there is none."""
    for path in newest_first:
        with suppress(ValueError):
            content = _content(path)
            return bool(content["name"] == name and content.get("picture", "") == _picture(about))
    return True


def _picture(about: Mapping[str, Any]) -> str:
    """Tells pictures of one name apart without keeping the folders they lie in."""
    return digest(str(about["source"])) if about.get("source") else ""


def _versions(folder: Path) -> dict[str, list[Path]]:
    """The JSON files by name, newest first."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in folder.glob("*.json"):
        if match := _FILE.match(path.name):
            found.setdefault(match["name"], []).append((int(match["version"]), path))
    return {name: [path for _, path in sorted(saved, reverse=True)] for name, saved in found.items()}


def _reserve(folder: Path, name: str) -> Path:
    """Create an empty file of the next free version, so that concurrent processes get different versions."""
    taken = [int(m["version"]) for p in folder.iterdir() if (m := _FILE.match(p.name)) and m["name"] == name]
    versions = (folder / f"{name}.v{version:03d}.json" for version in count(max(taken, default=0) + 1))
    return next(path for path in versions if _is_created(path))


def _is_created(path: Path) -> bool:
    try:
        path.open("x").close()
    except FileExistsError:
        return False
    return True


def _remove(path: Path) -> None:
    for each in (path, _beside(path, "image"), _beside(path, "labels")):
        each.unlink(missing_ok=True)


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name.removesuffix('.json')}.{what}.ome.tif")


# --- back -----------------------------------------------------------------------------------------------------------


def fits(folder: Path, classes: Sequence[str]) -> bool:
    """Whether a saved sample lies in the folder."""
    return any(_FILE.match(path.name) for path in folder.glob("*.json"))


def entries(folder: Path, classes: Sequence[str]) -> Iterator[Entry]:
    """The newest complete version of each name."""
    for name, newest_first in sorted(_versions(folder).items()):
        complete = next(
            (path for path in newest_first if path.stat().st_size), None
        )  # empty: being saved, or interrupted
        yield _entry(name, complete, classes)


def _entry(name: str, path: Path | None, classes: Sequence[str]) -> Entry:
    if path is None:
        return Entry(name, partial(refuse, "no version of it was saved completely"))
    try:
        content = _content(path)
    except ValueError as error:
        return Entry(name, partial(refuse, str(error)))
    whose = str(content["about"].get("embryo") or embryo_of(content["name"]))
    return Entry(name, partial(read, path, tuple(classes)), whose)


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); delete this version or save it again") from error
    kinds = {"name": str, "classes": list, "known": list, "about": dict}
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: not a sample saved from napari")
    wrong = [key for key, kind in kinds.items() if not isinstance(content.get(key), kind)]
    if wrong:
        raise ValueError(f"{path}: {', '.join(wrong)} is missing or of another kind; save it again")
    return content


def read(path: Path, classes: Sequence[str]) -> Truth:
    """One version with the requested classes; those it was not saved with are unknown."""
    content = _content(path)
    image, labels = (np.asarray(io.read_ome_tiff(_beside(path, what)).data) for what in ("image", "labels"))
    check_size(_beside(path, "labels"), labels.shape[-2:], image)
    saved, known = ([canonical(str(name)) for name in content[key]] for key in ("classes", "known"))
    flat = labels if labels.ndim == 2 else np.any(labels, axis=0, keepdims=True)[0]
    masks = np.stack([_mask(flat, saved, canonical(name)) for name in classes])
    cells = _cells(labels) if tuple(saved) == CELL else no_cells(image)
    is_known = known_classes(classes, masks.any(axis=(1, 2)), known)
    return Truth(image, masks, is_known, cells, is_blank=not flat.any())


def _mask(labels: npt.NDArray[Any], saved: Sequence[str], name: str) -> Bools:
    if name not in saved:
        return np.zeros(labels.shape, bool)
    mask: Bools = labels > 0 if tuple(saved) == CELL else labels == saved.index(name) + 1
    return mask


def _cells(labels: npt.NDArray[Any]) -> Bools:
    """(N, H, W): one mask per number or layer, without empty ones."""
    if labels.ndim == 3:
        layers: Bools = labels[labels.any(axis=(1, 2))] > 0
        return layers
    numbers = np.unique(labels[labels > 0])
    cells: Bools = labels[None] == numbers[:, None, None]
    return cells
