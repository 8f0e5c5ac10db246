"""COCO JSON: complete (amodal) outlines as polygons or run lengths, and the visible parts where they are told.

KINS-style files, whose amodal and visible outlines have names of their own, are read by the same code. KINS itself is
two files in one folder, of which KITTI's ``training/`` and ``testing/`` below hold pictures of the same names.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo import io
from napari_embryo.data import rle
from napari_embryo.data.embryos import known_embryo, reduced
from napari_embryo.data.image_files import Entry, check_size, pictures, read_gray, refuse, subfolders
from napari_embryo.data.official_split import part_meant, part_of
from napari_embryo.data.polygons import fill
from napari_embryo.data.sample import Bools, Truth

LOOKED_FOR = "a COCO JSON file with images and annotations (also in annotations/)"
LOOKED_FOR_KINS = "a COCO JSON file whose annotations have a_segm and i_segm, or segmentation and inmodal_seg"
CELLS = frozenset(("cell", "cells", "blastomere", "blastomeres"))
_AMODAL = ("a_segm", "segmentation")
_VISIBLE = ("visible_segmentation", "i_segm", "inmodal_seg")
_PIXEL_CENTER = 0.499
"""COCO counts from a pixel's corner, our outlines from its center; the rest decides ties as COCO's own code does."""


@dataclass(frozen=True)
class Names:
    """What a file calls its categories: by id, in small letters; in KINS everything is an object of its own."""

    by_id: Mapping[Any, str]
    all_are_cells: bool

    def is_cell(self, annotation: Mapping[str, Any]) -> bool:
        return not annotation.get("iscrowd") and (self.all_are_cells or self.of(annotation) in CELLS)

    def of(self, annotation: Mapping[str, Any]) -> str:
        return self.by_id.get(annotation.get("category_id"), "")


def fits(folder: Path, classes: Sequence[str]) -> bool:
    """Whether a COCO file lies in the folder."""
    return any(_parsed(path) is not None for path in json_files(folder))


def fits_kins(folder: Path, classes: Sequence[str]) -> bool:
    """Whether a COCO file in the folder has KINS' names for outlines."""
    found = (_parsed(path) for path in json_files(folder))
    return any(_is_kins(content) for content in found if content is not None)


def _is_kins(content: Mapping[str, Any]) -> bool:
    first: Any = next(iter(content["annotations"]), None)
    return isinstance(first, dict) and bool({"a_segm", "i_segm", "inmodal_seg"} & first.keys())


def json_files(folder: Path) -> list[Path]:
    """Those that may be COCO: in the folder and its annotations/; the file itself, where one is named."""
    return sorted([*folder.glob("*.json"), *folder.glob("annotations/*.json")]) if folder.is_dir() else [folder]


def _parsed(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    lists = isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "annotations"))
    return content if lists else None


def entries(folder: Path, classes: Sequence[str], kins: bool = False) -> Iterator[Entry]:
    """Every picture that the JSON files of the folder name."""
    for path in json_files(folder):
        content = _parsed(path)
        if content is not None:
            yield from _file_entries(path, content, classes, kins or _is_kins(content))


def _file_entries(path: Path, content: Mapping[str, Any], classes: Sequence[str], kins: bool) -> Iterator[Entry]:
    try:
        names = Names({c["id"]: str(c["name"]).lower() for c in content.get("categories", ())}, kins)
        drawn: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            drawn[annotation["image_id"]].append(annotation)
        about = [(image, str(image["file_name"]), tuple(drawn[image["id"]])) for image in content["images"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a COCO file: {error!r} is missing or of another kind") from error
    folder = path.parent.parent if path.parent.name == "annotations" else path.parent
    lying = _PicturesOfParts(folder, part_of(path.stem)) if kins else _Pictures(folder)
    for image, file_name, annotations in about:
        picture = lying.find(file_name)
        entry = _entry(picture, file_name, image, annotations, names, tuple(classes))
        yield _named_by_part(entry, lying.part(picture))


def _entry(
    picture: Path | str,
    file_name: str,
    image: Mapping[str, Any],
    annotations: tuple[Mapping[str, Any], ...],
    names: Names,
    classes: tuple[str, ...],
) -> Entry:
    index = tuple(image.get("index", ()))
    name = "_".join((Path(file_name.replace("\\", "/")).stem, *map(str, index)))
    embryo = image.get("embryo", image.get("patient_id"))
    told = None if embryo is None else str(embryo)
    if isinstance(picture, str):
        return Entry(name, partial(refuse, picture), told)
    size = (image["height"], image["width"]) if {"height", "width"} <= image.keys() else None
    return Entry(name, partial(read, picture, size, annotations, names, classes, index), told)


def _named_by_part(entry: Entry, part: str | None) -> Entry:
    """Another picture of this name lies in another part: neither the picture nor, unless it is known, its embryo."""
    if part is None:
        return entry
    return replace(entry, name=f"{part}_{entry.name}", embryo=entry.embryo or known_embryo(entry.name))


class _Pictures:
    """Where the pictures lie that a JSON file names: beside it, in a sub-folder, or anywhere below by its name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, file_name: str) -> Path | str:
        """The file, or why there is none."""
        told = reduced(file_name)
        direct = (self._folder / told, self._folder / "images" / told)
        found = next((path for path in direct if path.is_file()), None)
        return found or self._search(told.name)

    def part(self, picture: Path | str) -> str | None:
        """Where pictures of the same name lie in several parts, that of this one."""
        return None

    @cached_property
    def _below(self) -> dict[str, list[Path]]:
        return _all_below(self._folder)

    def _search(self, name: str) -> Path | str:
        lying = self._below.get(name, [])
        if len(lying) == 1:
            return lying[0]
        if lying:
            return f"{len(lying)} pictures below {self._folder} have this name; name its folder in file_name"
        return f"{name} does not lie in {self._folder} or below it"


class _PicturesOfParts(_Pictures):
    """Those of a file that is one part of a data set, beside others whose pictures have the same names.

    Parameters
    ----------
    folder
        Where the file lies.
    part
        What its name tells; None: nothing.
    """

    def __init__(self, folder: Path, part: str | None) -> None:
        super().__init__(folder)
        self._part = part

    def part(self, picture: Path | str) -> str | None:
        if isinstance(picture, str) or len({self._told(path) for path in self._below.get(picture.name, ())}) < 2:
            return None
        return self._told(picture)

    @cached_property
    def _meant(self) -> str | None:
        """The part to look in, where a folder tells it."""
        return part_meant(self._part, (self._told(path) for paths in self._below.values() for path in paths))

    def _told(self, picture: Path) -> str | None:
        return part_of(*picture.relative_to(self._folder).parent.parts)

    def _search(self, name: str) -> Path | str:
        lying = self._below.get(name, [])
        if self._meant is None or not lying:
            return super()._search(name)
        mine = [path for path in lying if self._told(path) == self._meant]
        mine = mine or [path for path in lying if self._told(path) is None]
        if len(mine) == 1:
            return mine[0]
        if mine:
            return super()._search(name)
        return f"{name} lies below {self._folder} in {self._told(lying[0])} alone; looked for in {self._meant}"


def _all_below(folder: Path, depth: int = 3) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in pictures(folder):
        found[path.name].append(path)
    for sub in subfolders(folder) if depth else ():
        for name, paths in _all_below(sub, depth - 1).items():
            found[name] += paths
    return found


def read(
    picture: Path,
    size: tuple[int, int] | None,
    annotations: Sequence[Mapping[str, Any]],
    names: Names,
    classes: Sequence[str],
    index: tuple[int, ...] = (),
) -> Truth:
    """One picture with its annotations; ``index`` is its place in a stack, as our own files of cells tell it."""
    image = _read_plane(picture, index) if index else read_gray(picture)
    if size is not None:
        check_size(picture, size, image)
    if not annotations:
        raise ValueError("it has no annotation")
    try:
        masks = [_union(annotations, names, name.lower(), image.shape) for name in classes]
        known = np.array([name.lower() in names.by_id.values() for name in classes])
        cells, visible = _cells([a for a in annotations if names.is_cell(a)], image.shape)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"an outline that is neither polygons nor run lengths came ({error!r})") from error
    return Truth(image, np.stack(masks), known, cells, visible)


def _read_plane(picture: Path, index: tuple[int, ...]) -> npt.NDArray[Any]:
    image = io.read_image(picture)
    leading = image.shape[:-2]
    if len(index) != len(leading) or any(not 0 <= i < size for i, size in zip(index, leading, strict=True)):
        raise ValueError(f"{picture}: picture {index} was drawn on, but the file has {leading} of them")
    return np.asarray(image.data[index])


def _union(annotations: Sequence[Mapping[str, Any]], names: Names, name: str, shape: tuple[int, ...]) -> Bools:
    mask = np.zeros(shape, bool)
    for annotation in annotations:
        if names.of(annotation) == name:
            mask |= segment(_first(annotation, _AMODAL), shape)
    return mask


def _cells(annotations: Sequence[Mapping[str, Any]], shape: tuple[int, ...]) -> tuple[Bools, Bools | None]:
    """Complete and visible silhouettes; what covers no pixel is left out, what has no visible part told is visible."""
    whole = [segment(_first(a, _AMODAL), shape) for a in annotations]
    seen = [
        segment(_first(a, _VISIBLE), shape) & w if _first(a, _VISIBLE) else w
        for a, w in zip(annotations, whole, strict=True)
    ]
    kept = [i for i, mask in enumerate(whole) if mask.any()]
    nothing = np.zeros((0, *shape), bool)
    cells = np.stack([whole[i] for i in kept]) if kept else nothing
    if not any(_first(a, _VISIBLE) for a in annotations):
        return cells, None
    return cells, np.stack([seen[i] for i in kept]) if kept else nothing


def _first(annotation: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((annotation[key] for key in keys if annotation.get(key)), None)


def segment(outline: Any, shape: tuple[int, ...]) -> Bools:
    """(H, W) bool of one annotation: polygons ``[[x, y, x, y, ...], ...]`` or run lengths ``{counts, size}``.

    Raises
    ------
    ValueError
        When it is of another size than the picture, or a polygon has fewer than three corners.
    """
    if isinstance(outline, Mapping):
        size = (int(outline["size"][0]), int(outline["size"][1]))
        mask = rle.decode(outline["counts"], size)
        if size != tuple(shape):
            raise ValueError(
                f"run lengths for {size[0]} x {size[1]} pixels came; the picture has {shape[0]} x {shape[1]}"
            )
        return mask
    rings = [np.asarray(flat, float) for flat in outline]
    if not rings or any(r.ndim != 1 or r.size < 6 or r.size % 2 or not np.isfinite(r).all() for r in rings):
        raise ValueError("an annotation has no outline, or one of fewer than three corners")
    return fill([r.reshape(-1, 2)[:, ::-1] - _PIXEL_CENTER for r in rings], shape)
