"""LabelMe JSON beside the pictures: polygons, rectangles, circles and AI masks."""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo import io
from napari_embryo.data.embryos import reduced
from napari_embryo.data.image_files import Entry, by_stem, check_size, read_gray, refuse
from napari_embryo.data.json_files import read_json
from napari_embryo.data.labelme_shapes import Shape, parse
from napari_embryo.data.labels import CELL, RINGS, has_a_meaning, known_classes
from napari_embryo.data.painting import paint
from napari_embryo.data.polygons import (
    Outline,
    Patch,
    blastocyst_masks,
    check_cells,
    check_work,
    cropped,
    fill,
    stacked,
)
from napari_embryo.data.sample import Bools, Remark, Truth, unused_labels
from napari_embryo.families import BLASTOCYST_CLASSES
from napari_embryo.io.header import SINGLE

LOOKED_FOR = "LabelMe JSON files beside the images"
_ZONA = frozenset(("zp_outer", "zp_inner"))
_MALFORMED = (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError)


def fits(folder: Path, classes: Sequence[str]) -> bool:
    """Whether the folder holds a LabelMe file."""
    return any(_is_labelme(path) for path in folder.glob("*.json"))


def _is_labelme(path: Path) -> bool:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "shapes" in content


def entries(folder: Path, classes: Sequence[str]) -> Iterator[Entry]:
    """Every LabelMe file of the folder."""
    files = sorted(folder.glob("*.json"))
    used = frozenset().union(*map(_labels_of, files))
    for path in files:
        yield Entry(path.stem, partial(read, path, tuple(classes), used))
    for stem in sorted(by_stem(folder).keys() - {path.stem for path in files}):
        yield Entry(stem, partial(refuse, "no LabelMe file of the same name lies beside it"))


def _labels_of(path: Path) -> frozenset[str]:
    try:
        return frozenset(shape.label for shape in _shapes(path, _content(path))[0])
    except (OSError, ValueError):
        return frozenset()


def _content(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except ValueError as error:
        raise ValueError(f"not a LabelMe file with polygons under 'shapes': {error}") from error
    is_labelme = isinstance(content, dict) and isinstance(content.get("shapes"), list)
    if not is_labelme:
        raise ValueError(f"{path}: not a LabelMe file with polygons under 'shapes'")
    return dict(content)


def _shapes(path: Path, content: Mapping[str, Any]) -> tuple[list[Shape], tuple[Remark, ...]]:
    try:
        return parse(content["shapes"])
    except _MALFORMED as error:
        said = str(error) if isinstance(error, ValueError) else repr(error)
        raise ValueError(f"{path}: not a LabelMe file with polygons under 'shapes' ({said})") from error


def read(path: Path, classes: Sequence[str], used: frozenset[str]) -> Truth:
    """One picture with its drawing.

    Parameters
    ----------
    path
        The JSON file.
    classes
        In the order of the masks.
    used
        Canonical labels that occur anywhere in the folder: a class that is none of them was not annotated.
    """
    content = _content(path)
    image = _image(path, content)
    shapes, remarks = _shapes(path, content)
    try:
        _check_drawing(content, shapes, remarks, image)
        cells = _cells(shapes, image.shape)
        masks, known, cut = _masks(shapes, classes, image.shape, used)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    unused = [shape.written for shape in shapes if not has_a_meaning(shape.label, classes)]
    remarks = (*remarks, *cut, *unused_labels(unused, classes))
    return Truth(image, masks, known, cells, is_blank=not content["shapes"], remarks=remarks)


def _check_drawing(
    content: Mapping[str, Any], shapes: Sequence[Shape], remarks: Sequence[Remark], image: npt.NDArray[Any]
) -> None:
    if remarks and not shapes:
        raise ValueError(f"nothing with an area is drawn on it: {', '.join(each.what for each in remarks)}")
    height, width = content.get("imageHeight"), content.get("imageWidth")
    if height and width:
        check_size("the drawing", (height, width), image)
    for shape in shapes:
        if _is_outside(shape.outline, image.shape):
            raise ValueError(f"{shape.written} lies outside the image of {image.shape[0]} x {image.shape[1]} pixels")
    check_work((shape.outline for shape in shapes), image.shape)


def _is_outside(outline: Outline, shape: tuple[int, ...]) -> bool:
    if isinstance(outline, Patch):
        low = np.array(outline.corner)
        high = low + outline.mask.shape - 1
    else:
        low, high = outline.min(axis=0), outline.max(axis=0)
    return bool((high < 0).any() or (low > np.array(shape) - 1).any())


def _masks(
    shapes: Sequence[Shape], classes: Sequence[str], shape: tuple[int, ...], used: frozenset[str]
) -> tuple[Bools, Bools, tuple[Remark, ...]]:
    """(C, H, W), (C,) and remarks: from labels that are a class's name, or from the outlines of a blastocyst."""
    labels = {each.label for each in shapes}
    is_by_outlines = bool(_ZONA & (labels or used)) and not {"te", "zp"} & labels
    taken = [each for each in shapes if not (is_by_outlines and each.label in RINGS)]
    drawn = [(each.label, cropped([each.outline], shape)) for each in taken]
    masks, remarks = paint(drawn, classes, shape)
    known = known_classes(classes, masks.any(axis=(1, 2)), used)
    for i, (mask, is_known) in (_from_outlines(shapes, classes, shape) if is_by_outlines else {}).items():
        masks[i], known[i] = mask, is_known
    return masks, known, remarks


def _from_outlines(
    shapes: Sequence[Shape], classes: Sequence[str], shape: tuple[int, ...]
) -> dict[int, tuple[Bools, bool]]:
    """Place of each part of a blastocyst among the classes -> its mask and whether it is known."""
    wanted = {i: BLASTOCYST_CLASSES.index(name) for i, name in enumerate(classes) if name in BLASTOCYST_CLASSES}
    drawn: dict[str, list[Outline]] = {}
    for each in shapes:
        if each.label in RINGS:
            drawn.setdefault(each.label, []).append(each.outline)
    if not wanted or (len(wanted) < len(classes) and not drawn.keys() >= _ZONA):
        return {i: (np.zeros(shape, bool), False) for i in wanted}
    masks, known = blastocyst_masks(drawn, shape)
    return {i: (masks[part], bool(known[part])) for i, part in wanted.items()}


def _cells(shapes: Sequence[Shape], shape: tuple[int, ...]) -> Bools:
    """(N, H, W): one silhouette per shape, or per group of shapes."""
    groups: dict[Any, list[Outline]] = {}
    for number, each in enumerate(shapes):
        if each.label == CELL:
            key = ("alone", number) if each.group is None else ("group", str(each.group))
            groups.setdefault(key, []).append(each.outline)
    check_cells(len(groups), shape)
    return stacked([fill(outlines, shape) for outlines in groups.values()], shape)


def _image(path: Path, content: Mapping[str, Any]) -> npt.NDArray[Any]:
    """The picture beside the file, or where the file says it is, or the one embedded in it."""
    beside = _image_beside(path, str(content.get("imagePath") or ""))
    if beside is not None:
        return read_gray(beside)
    if isinstance(content.get("imageData"), str):
        return _embedded(path, content["imageData"])
    raise FileNotFoundError(f"{path}: no image of the same name ({', '.join(SINGLE)}) lies beside it")


def _image_beside(path: Path, told: str) -> Path | None:
    named = path.parent / reduced(told)
    same_name = [path.with_suffix(each) for suffix in SINGLE for each in (suffix, suffix.upper())]
    ranked = [named, *same_name] if named in same_name else [*same_name, named]
    return next((p for p in ranked if p.suffix.lower() in SINGLE and p.is_file()), None)


def _embedded(path: Path, data: str) -> npt.NDArray[Any]:
    from PIL import Image, ImageOps

    try:
        with Image.open(BytesIO(base64.b64decode(data))) as stored:
            picture = ImageOps.exif_transpose(stored)
            pixels = np.asarray(picture if picture.mode in ("L", "RGB", "RGBA", "I;16") else picture.convert("RGB"))
    except (binascii.Error, OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: its imageData is not an image ({error}); put the image next to it") from error
    return io.to_gray(pixels) if pixels.ndim == 3 else pixels
