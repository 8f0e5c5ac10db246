"""COCO JSON: complete (amodal) outlines as polygons or run lengths, with the visible parts where the file has them.

Files in the style of KINS, which has different names for amodal and visible outlines, are read by the same code. KINS
itself is two files in one folder, below which KITTI's ``training/`` and ``testing/`` have images of the same names.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from napari_embryo.data.json_files import read_json
from napari_embryo.data.labels import CELL, canonical, has_a_meaning, known_classes
from napari_embryo.data.official_split import part_meant, part_of
from napari_embryo.data.painting import paint
from napari_embryo.data.polygons import Patch, check_cells, check_work, cropped, fill, stacked
from napari_embryo.data.sample import Bools, Remark, Truth, unused_labels

LOOKED_FOR = "a COCO JSON file with images and annotations (also in annotations/)"
LOOKED_FOR_KINS = "a COCO JSON file whose annotations have a_segm and i_segm, or segmentation and inmodal_seg"
NO_AREA = "annotations without an area were left out"
_AMODAL = ("a_segm", "segmentation")
_VISIBLE = ("visible_segmentation", "i_segm", "inmodal_seg")
_PIXEL_CENTER = 0.499
"""COCO counts from a pixel's corner, our outlines from its center; the rest decides ties as COCO's own code does."""
_FARTHEST = 1e7
"""Coordinates beyond this are invalid."""
_FEWEST = 6
"""Number of values of a polygon with three corners."""


@dataclass(frozen=True)
class Names:
    """How a file calls its categories.

    Parameters
    ----------
    by_id
        Name as it is written, by the category's id as text.
    all_are_cells
        Whether every annotation is a separate object, as in KINS.
    annotated
        Canonical names of the categories that have an annotation in any file of the folder.
    """

    by_id: Mapping[str, str]
    all_are_cells: bool
    annotated: frozenset[str] = frozenset()

    def is_cell(self, annotation: Mapping[str, Any]) -> bool:
        return not annotation.get("iscrowd") and (self.all_are_cells or self.of(annotation) == CELL)

    def of(self, annotation: Mapping[str, Any]) -> str:
        return canonical(self.written(annotation))

    def written(self, annotation: Mapping[str, Any]) -> str:
        number = _key(annotation.get("category_id"))
        return self.by_id.get(number, f"category {number}")


def _key(number: Any) -> str:
    """An id as text: files from other tools write 1, "1" or 1.0 for the same thing."""
    return str(int(number)) if isinstance(number, float) and number.is_integer() else str(number).strip()


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
    """Those that may be COCO: in the folder and its annotations/, or the file itself where a file is named."""
    return sorted([*folder.glob("*.json"), *folder.glob("annotations/*.json")]) if folder.is_dir() else [folder]


def _parsed(path: Path) -> dict[str, Any] | None:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return None
    lists = isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "annotations"))
    return content if lists else None


def entries(folder: Path, classes: Sequence[str], kins: bool = False) -> Iterator[Entry]:
    """Every picture that the JSON files of the folder name."""
    found = ((path, _parsed(path)) for path in json_files(folder))
    files = [_File.of(path, content, kins or _is_kins(content)) for path, content in found if content is not None]
    annotated = frozenset().union(*(file.annotated for file in files))
    for file in files:
        yield from _file_entries(file, annotated, tuple(classes))


@dataclass(frozen=True, eq=False)
class _File:
    """A COCO file: its images, and its annotations by the image's id."""

    path: Path
    names: Names
    images: Sequence[Mapping[str, Any]]
    drawn: Mapping[str, Sequence[Mapping[str, Any]]]

    @classmethod
    def of(cls, path: Path, content: Mapping[str, Any], kins: bool) -> "_File":
        try:
            names = Names({_key(c["id"]): str(c["name"]) for c in content.get("categories") or ()}, kins)
            drawn: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
            for annotation in content["annotations"]:
                drawn[_key(annotation["image_id"])].append(annotation)
            images = [
                {**image, "id": _key(image["id"]), "file_name": str(image["file_name"])} for image in content["images"]
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not a COCO file: {error!r} is missing or of another kind") from error
        return cls(path, names, images, drawn)

    @property
    def annotated(self) -> frozenset[str]:
        return frozenset(self.names.of(annotation) for each in self.drawn.values() for annotation in each)

    @property
    def shared(self) -> set[str]:
        """Ids shared by several images, for which it is unknown which one was annotated."""
        return {number for number, count in Counter(image["id"] for image in self.images).items() if count > 1}

    @property
    def orphans(self) -> int:
        """How many annotations belong to no image."""
        numbers = {image["id"] for image in self.images}
        return sum(len(each) for number, each in self.drawn.items() if number not in numbers)


def _file_entries(file: _File, annotated: frozenset[str], classes: tuple[str, ...]) -> Iterator[Entry]:
    path, shared = file.path, file.shared
    names = replace(file.names, annotated=annotated)
    folder = path.parent.parent if path.parent.name == "annotations" else path.parent
    lying = _PicturesOfParts(folder, part_of(path.stem)) if names.all_are_cells else _Pictures(folder)
    for image in file.images:
        picture = lying.find(image["file_name"])
        if image["id"] in shared:
            picture = f"several images of {path.name} have the id {image['id']}, so that their annotations are mixed up"
        entry = _entry(picture, image, tuple(file.drawn.get(image["id"], ())), names, classes)
        yield _named_by_part(entry, lying.part(picture))
    if file.orphans:
        yield Entry(path.stem, partial(refuse, f"{file.orphans} of its annotations belong to no image of the file"))


def _entry(
    picture: Path | str,
    image: Mapping[str, Any],
    annotations: tuple[Mapping[str, Any], ...],
    names: Names,
    classes: tuple[str, ...],
) -> Entry:
    index = tuple(image.get("index", ()))
    name = "_".join((Path(image["file_name"].replace("\\", "/")).stem, *map(str, index)))
    embryo = image.get("embryo", image.get("patient_id"))
    told = None if embryo is None else str(embryo)
    if isinstance(picture, str):
        return Entry(name, partial(refuse, picture), told)
    size = (image["height"], image["width"]) if {"height", "width"} <= image.keys() else None
    return Entry(name, partial(read, picture, size, annotations, names, classes, index), told)


def _named_by_part(entry: Entry, part: str | None) -> Entry:
    """Name of an image whose name also occurs in another part, and its embryo unless known."""
    if part is None:
        return entry
    return replace(entry, name=f"{part}_{entry.name}", embryo=entry.embryo or known_embryo(entry.name))


class _Pictures:
    """Finds the pictures that a JSON file names: beside it, in a sub-folder, or anywhere below by their names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, file_name: str) -> Path | str:
        """The file, or the reason why there is none."""
        told = reduced(file_name)
        direct = (self._folder / told, self._folder / "images" / told)
        found = next((path for path in direct if path.is_file()), None)
        return found or self._search(told.name)

    def part(self, picture: Path | str) -> str | None:
        """The part of this image, if images of the same name exist in several parts."""
        return None

    @cached_property
    def _below(self) -> dict[str, list[Path]]:
        return _all_below(self._folder)

    def _search(self, name: str) -> Path | str:
        lying = self._below.get(name, [])
        if len(lying) == 1:
            return lying[0]
        if lying:
            return f"{len(lying)} images below {self._folder.name}/ have this name; include the folder in file_name"
        return f"there is no {name} in {self._folder.name}/ or below it"


class _PicturesOfParts(_Pictures):
    """The same for a file that holds one part of a data set next to others whose images have the same names.

    Parameters
    ----------
    folder
        The file's folder.
    part
        The part in the file's name; None if there is none.
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
        """The part to search, if a folder's name gives it."""
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
        return (
            f"{name} exists below {self._folder.name}/ only in {self._told(lying[0])}, but is expected in {self._meant}"
        )


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
    """One picture with its annotations.

    Parameters
    ----------
    picture
        The file.
    size
        Height and width of the annotated image, if the file gives them.
    annotations
        Those of this picture.
    names
        Names of the categories.
    classes
        In the order of the masks.
    index
        Place of the picture in a stack, as our own files of cells give it.
    """
    image = _read_plane(picture, index) if index else read_gray(picture)
    if size is not None:
        check_size(picture, size, image)
    try:
        return _truth(image, annotations, names, classes)
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"an outline is neither polygons nor run lengths ({error!r})") from error


def _read_plane(picture: Path, index: tuple[int, ...]) -> npt.NDArray[Any]:
    image = io.read_image(picture)
    leading = image.shape[:-2]
    if len(index) != len(leading) or any(not 0 <= i < size for i, size in zip(index, leading, strict=True)):
        raise ValueError(f"{picture}: plane {index} is annotated, but the file has {leading}")
    return np.asarray(image.data[index])


def _truth(
    image: npt.NDArray[Any], annotations: Sequence[Mapping[str, Any]], names: Names, classes: Sequence[str]
) -> Truth:
    shape = image.shape
    check_work((ring for each in annotations for ring in _rings(_first(each, _AMODAL))), shape)
    check_cells(sum(map(names.is_cell, annotations)), shape)
    pairs = [(each, _region(_first(each, _AMODAL), shape)) for each in annotations]
    good = [(each, region) for each, region in pairs if region.mask.any()]
    left_out = tuple(Remark(NO_AREA, names.written(each)) for each, region in pairs if not region.mask.any())
    if left_out and not good:
        raise ValueError(
            "nothing with an area is drawn on it: its annotations have no outline, one of fewer than three corners, or "
            "one outside the image"
        )
    masks, cut = paint([(names.of(each), region) for each, region in good], classes, shape)
    known = known_classes(classes, masks.any(axis=(1, 2)), names.annotated)
    cells, visible = _cells([(each, fill([region], shape)) for each, region in good if names.is_cell(each)], shape)
    unused = [names.written(each) for each, _ in good if not _is_used(each, names, classes)]
    remarks = (*left_out, *cut, *unused_labels(unused, classes))
    return Truth(image, masks, known, cells, visible, is_blank=not annotations, remarks=remarks)


def _is_used(annotation: Mapping[str, Any], names: Names, classes: Iterable[str]) -> bool:
    return names.all_are_cells or has_a_meaning(names.of(annotation), classes)


def _cells(drawn: Sequence[tuple[Mapping[str, Any], Bools]], shape: tuple[int, ...]) -> tuple[Bools, Bools | None]:
    """Complete and visible silhouettes; a cell whose visible part is not given is visible as a whole."""
    cells = stacked([mask for _, mask in drawn], shape)
    if not any(_first(each, _VISIBLE) for each, _ in drawn):
        return cells, None
    seen = [segment(_first(each, _VISIBLE), shape) & mask if _first(each, _VISIBLE) else mask for each, mask in drawn]
    return cells, stacked(seen, shape)


def _first(annotation: Mapping[str, Any], keys: Sequence[str]) -> Any:
    told = [annotation[key] for key in keys if key in annotation]
    return next((each for each in told if each), told[0] if told else None)


def segment(outline: Any, shape: tuple[int, ...]) -> Bools:
    """(H, W) bool of one annotation: polygons ``[[x, y, x, y, ...], ...]`` or run lengths ``{counts, size}``.

    Polygons of fewer than three corners cover nothing.

    Raises
    ------
    ValueError
        If it is of another size than the picture, or a polygon is no list of finite numbers.
    """
    if isinstance(outline, Mapping):
        size = (int(outline["size"][0]), int(outline["size"][1]))
        if size != tuple(shape):
            raise ValueError(f"run lengths for {size[0]} x {size[1]} pixels, but the image has {shape[0]} x {shape[1]}")
        return rle.decode(outline["counts"], size)
    return fill(_rings(outline), shape)


def _region(outline: Any, shape: tuple[int, ...]) -> Patch:
    """What one annotation covers, without the rest of the picture."""
    if not isinstance(outline, Mapping):
        return cropped(_rings(outline), shape)
    mask = segment(outline, shape)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return Patch((0, 0), np.zeros((0, 0), bool))
    top, left = int(rows[0]), int(columns[0])
    return Patch((top, left), mask[top : rows[-1] + 1, left : columns[-1] + 1].copy())


def _rings(outline: Any) -> list[npt.NDArray[np.float64]]:
    """Polygons of at least three corners as (y, x) in pixel centers; empty for run lengths."""
    if isinstance(outline, Mapping):
        return []
    if isinstance(outline, str):
        raise TypeError(f"text {outline[:20]!r}")
    flat = [np.asarray(each, float) for each in outline]
    if any(each.ndim != 1 or not (np.abs(each) < _FARTHEST).all() for each in flat):
        raise ValueError("a polygon is no flat list of coordinates x, y, x, y, ... within an image")
    odd = [each.size for each in flat if each.size % 2]
    if odd and max(odd) >= _FEWEST:
        raise ValueError(f"a polygon of {odd[0]} numbers; x and y of each corner are needed")
    return [each.reshape(-1, 2)[:, ::-1] - _PIXEL_CENTER for each in flat if each.size >= _FEWEST]
