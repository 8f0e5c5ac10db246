"""LabelMe JSON beside the pictures: polygons, rectangles and circles."""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo import io
from napari_embryo.data.embryos import reduced
from napari_embryo.data.image_files import SUFFIXES, Entry, by_stem, check_size, read_gray, refuse
from napari_embryo.data.polygons import Polygons, Ring, blastocyst_masks, circle, fill, rectangle
from napari_embryo.data.sample import Bools, Truth
from napari_embryo.families import BLASTOCYST_CLASSES

LOOKED_FOR = "LabelMe JSON files beside the pictures"
CELL = "cell"
RINGS = ("zp_outer", "zp_inner", "cavity", "icm")
_FEWEST_POINTS = {"polygon": 3, "rectangle": 2, "circle": 2}
_MALFORMED = (KeyError, TypeError, IndexError, ValueError, AttributeError)


def fits(folder: Path, classes: Sequence[str]) -> bool:
    """Whether a LabelMe file lies in the folder."""
    return any(_is_labelme(path) for path in folder.glob("*.json"))


def _is_labelme(path: Path) -> bool:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "shapes" in content


def entries(folder: Path, classes: Sequence[str]) -> Iterator[Entry]:
    """Every LabelMe file; a class that is drawn nowhere in the folder is unknown, not empty."""
    files = sorted(folder.glob("*.json"))
    used = frozenset().union(*map(_labels_of, files))
    for path in files:
        yield Entry(path.stem, partial(read, path, tuple(classes), used))
    for stem in sorted(by_stem(folder).keys() - {path.stem for path in files}):
        yield Entry(stem, partial(refuse, "no LabelMe file of the same name lies beside it"))


def _labels_of(path: Path) -> frozenset[str]:
    try:
        return frozenset(read_polygons(path))
    except (OSError, ValueError):
        return frozenset()


def read_polygons(path: Path) -> Polygons:
    """LabelMe's outlines by label; (N, 2) arrays of (y, x).

    Raises
    ------
    ValueError
        When it is no LabelMe file, or a shape is none that has an area.
    """
    rings: Polygons = {}
    for label, _, ring in _shapes(path, _content(path)):
        rings.setdefault(label, []).append(ring)
    return rings


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: not a LabelMe file with polygons under 'shapes' ({error})") from error
    is_labelme = isinstance(content, dict) and isinstance(content.get("shapes"), list)
    if not is_labelme:
        raise ValueError(f"{path}: not a LabelMe file with polygons under 'shapes'")
    return dict(content)


def _shapes(path: Path, content: Mapping[str, Any]) -> list[tuple[str, Any, Ring]]:
    """Label, group and outline of every shape."""
    try:
        return [(str(s["label"]), s.get("group_id"), _ring(s)) for s in content["shapes"]]
    except _MALFORMED as error:
        raise ValueError(f"{path}: not a LabelMe file with polygons under 'shapes' ({error!r})") from error


def _ring(shape: Mapping[str, Any]) -> Ring:
    kind = shape.get("shape_type") or "polygon"
    if kind not in _FEWEST_POINTS:
        raise ValueError(f"{shape['label']} is a {kind}; draw it as {', '.join(_FEWEST_POINTS)}")
    points = np.asarray(shape["points"], float)[:, ::-1]
    if len(points) < _FEWEST_POINTS[kind] or not np.isfinite(points).all():
        raise ValueError(f"{shape['label']}: {len(points)} points for a {kind}")
    makers = {"rectangle": rectangle, "circle": circle}
    return makers[kind](points) if kind in makers else points


def read(path: Path, classes: Sequence[str], used: frozenset[str]) -> Truth:
    """One picture with its drawing; ``used`` are the labels that occur in the folder."""
    content = _content(path)
    image = _image(path, content)
    shapes = _shapes(path, content)
    try:
        _check_drawing(content, shapes, image)
        masks, known = _masks([(label, ring) for label, _, ring in shapes], classes, image.shape, used)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Truth(image, masks, known, _cells(shapes, image.shape))


def _check_drawing(
    content: Mapping[str, Any], shapes: Sequence[tuple[str, Any, Ring]], image: npt.NDArray[Any]
) -> None:
    if not shapes:
        raise ValueError("no shape is drawn; draw it or remove the file")
    height, width = content.get("imageHeight"), content.get("imageWidth")
    if height and width:
        check_size("the drawing", (height, width), image)
    for label, _, ring in shapes:
        if _is_outside(ring, image.shape):
            raise ValueError(f"{label} lies outside the picture of {image.shape[0]} x {image.shape[1]} pixels")


def _is_outside(ring: Ring, shape: tuple[int, ...]) -> bool:
    return bool((ring.max(axis=0) < 0).any() or (ring.min(axis=0) > np.array(shape) - 1).any())


def _masks(
    rings: Sequence[tuple[str, Ring]], classes: Sequence[str], shape: tuple[int, ...], used: frozenset[str]
) -> tuple[Bools, Bools]:
    """(C, H, W) and (C,): from labels that are a class's name, else from the rings of a blastocyst."""
    named = {name.lower() for name in used}
    by_rings = _blastocyst(rings, classes, shape, named)
    pairs = [by_rings.get(name) or _by_name(rings, name, shape, named) for name in classes]
    return np.stack([mask for mask, _ in pairs]), np.array([known for _, known in pairs])


def _by_name(
    rings: Sequence[tuple[str, Ring]], name: str, shape: tuple[int, ...], named: set[str]
) -> tuple[Bools, bool]:
    return fill([ring for label, ring in rings if label.lower() == name.lower()], shape), name.lower() in named


def _blastocyst(
    rings: Sequence[tuple[str, Ring]], classes: Sequence[str], shape: tuple[int, ...], named: set[str]
) -> dict[str, tuple[Bools, bool]]:
    """The classes that come from the rings; icm is both a ring and a class's name, and zp_inner decides."""
    from_rings = not {"te", "zp"} & named and ("icm" not in named or bool({"zp_outer", "zp_inner"} & named))
    wanted = [name for name in classes if name in BLASTOCYST_CLASSES] if from_rings else []
    drawn: Polygons = {}
    for label, ring in rings:
        drawn.setdefault(label, []).append(ring)
    if not wanted or (len(wanted) < len(classes) and not {"zp_outer", "zp_inner"} <= drawn.keys()):
        return {name: (np.zeros(shape, bool), False) for name in wanted}
    masks, known = blastocyst_masks({k: v for k, v in drawn.items() if k in RINGS}, shape)
    at = [BLASTOCYST_CLASSES.index(name) for name in wanted]
    return {name: (masks[i], bool(known[i])) for name, i in zip(wanted, at, strict=True)}


def _cells(shapes: Sequence[tuple[str, Any, Ring]], shape: tuple[int, ...]) -> Bools:
    """(N, H, W): one silhouette per shape, or per group of shapes."""
    groups: dict[Any, list[Ring]] = {}
    for number, (label, group, ring) in enumerate(shapes):
        if label.lower() == CELL:
            groups.setdefault(("alone", number) if group is None else ("group", str(group)), []).append(ring)
    filled = [fill(rings, shape) for rings in groups.values()]
    return np.stack(filled) if filled else np.zeros((0, *shape), bool)


def _image(path: Path, content: Mapping[str, Any]) -> npt.NDArray[Any]:
    """The picture beside the file, else where the file says, else the one embedded in it."""
    beside = _image_beside(path, str(content.get("imagePath") or ""))
    if beside is not None:
        return read_gray(beside)
    if isinstance(content.get("imageData"), str):
        return _embedded(path, content["imageData"])
    raise FileNotFoundError(f"{path}: no image of the same name ({', '.join(SUFFIXES)}) lies beside it")


def _image_beside(path: Path, told: str) -> Path | None:
    named = path.parent / reduced(told)
    same_name = [path.with_suffix(each) for suffix in SUFFIXES for each in (suffix, suffix.upper())]
    ranked = [named, *same_name] if named in same_name else [*same_name, named]
    return next((p for p in ranked if p.suffix.lower() in SUFFIXES and p.is_file()), None)


def _embedded(path: Path, data: str) -> npt.NDArray[Any]:
    from PIL import Image

    try:
        with Image.open(BytesIO(base64.b64decode(data))) as picture:
            pixels = np.asarray(picture if picture.mode in ("L", "RGB", "RGBA", "I;16") else picture.convert("RGB"))
    except (binascii.Error, OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: its imageData is no picture ({error}); put the picture beside it") from error
    return io.to_gray(pixels) if pixels.ndim == 3 else pixels
