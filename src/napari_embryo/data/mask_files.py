"""Masks as pictures: beside the image, in a folder per class (Saeedi et al.), or in ``masks/`` next to ``images/``."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo.data.image_files import (
    LOSSY,
    Entry,
    by_stem,
    check_size,
    folder_like,
    read_gray,
    read_label_image,
    read_mask,
    refuse,
)
from napari_embryo.data.instances import cells_of_labels
from napari_embryo.data.labels import are_cells, canonical, known_classes
from napari_embryo.data.sample import Bools, Remark, Truth, no_cells

LOOKED_FOR_SAEEDI = "Images/ with GT_<class>/ folders, or NAME_<class>_Mask files beside the images"
LOOKED_FOR_MASKS = (
    "images/ with masks/ or labels/ (one label image per image, or a sub-folder or name ending per class)"
)
LOOKED_FOR_LABELS = "label images beside the images (NAME_masks or NAME_cp_masks, as Cellpose writes them)"
MaskFiles = Mapping[str, Path]
"""One mask file per class; a class without one is unknown."""
_LABEL_FOLDERS = ("masks", "labels")
_LABEL_ENDING = re.compile(r"[ _-](cp[ _-])?(masks?|labels?)$", re.IGNORECASE)
_IMAGE_ENDING = re.compile(r"[ _-]im(g|age)$", re.IGNORECASE)
_BINARY = 2


# --- Saeedi et al.: a folder per class, or masks beside the pictures ------------------------------------------------


def fits_saeedi(folder: Path, classes: Sequence[str]) -> bool:
    """Whether the folder holds a ground truth folder or a mask file of one of the classes."""
    return any(folder_like(folder, f"GT_{name}") for name in classes) or bool(_beside(folder, classes))


def saeedi_entries(folder: Path, classes: Sequence[str]) -> Iterator[Entry]:
    """``Images/NAME.BMP`` with ``GT_ICM/NAME ICM_Mask.bmp``, or ``NAME.png`` with ``NAME_ICM_Mask.png`` beside it."""
    truths = {name: sub for name in classes if (sub := folder_like(folder, f"GT_{name}"))}
    if not truths:
        return _with_masks(folder, _beside(folder, classes), classes)
    pictures = folder_like(folder, "images")
    if pictures is None:
        raise ValueError(
            f"{folder}: there is {', '.join(p.name for p in truths.values())}, but no folder Images/ with the images"
        )
    found: dict[str, dict[str, Path]] = {}
    for name, sub in truths.items():
        for stem, path in _masks_of(sub, name).items():
            found.setdefault(stem, {})[name] = path
    return _with_masks(pictures, found, classes)


def _beside(folder: Path, classes: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Stem of a picture -> class -> mask file, of mask files in the same folder."""
    found: dict[str, dict[str, Path]] = {}
    for name in classes:
        for stem, path in _masks_of(folder, name).items():
            found.setdefault(stem, {})[name] = path
    return found


def _masks_of(folder: Path, name: str) -> dict[str, Path]:
    ending = _class_ending(name, "[ _-]masks?")
    matched = ((ending.match(stem), paths[0]) for stem, paths in by_stem(folder).items())
    return {match["stem"]: path for match, path in matched if match}


def _class_ending(name: str, then: str) -> re.Pattern[str]:
    return re.compile(rf"(?P<stem>.+?)[ _-]{re.escape(name)}{then}$", re.IGNORECASE)


def _with_masks(folder: Path, masks: Mapping[str, MaskFiles], classes: Sequence[str]) -> Iterator[Entry]:
    """Pictures of the folder with their masks; masks without a picture and pictures without masks are reported."""
    files = {path for of_picture in masks.values() for path in of_picture.values()}
    stems = {stem: rest for stem, paths in by_stem(folder).items() if (rest := [p for p in paths if p not in files])}
    for stem, paths in stems.items():
        if len(paths) > 1:
            yield Entry(stem, partial(refuse, f"{' and '.join(p.name for p in paths)} have the same name"))
        elif stem not in masks:
            yield Entry(stem, partial(refuse, "it has no mask"))
        else:
            yield Entry(stem, partial(read_masks, paths[0], dict(masks[stem]), tuple(classes)))
    for stem in sorted(masks.keys() - stems.keys()):
        yield Entry(stem, partial(refuse, f"it has masks, but there is no image of this name in {folder.name}/"))


def read_masks(picture: Path, masks: MaskFiles, classes: Sequence[str]) -> Truth:
    """A picture with one mask file per class; of cells, each number in the file is one."""
    image = read_gray(picture)
    drawn, cells, remarks = np.zeros((len(classes), *image.shape), bool), no_cells(image), tuple[Remark, ...]()
    for i, name in enumerate(classes):
        if name in masks and are_cells((name,)):
            cells, remarks = cells_of_labels(masks[name], _fitting(masks[name], read_label_image(masks[name]), image))
            drawn[i] = cells.any(axis=0)
        elif name in masks:
            drawn[i] = _fitting(masks[name], read_mask(masks[name]), image)
    known = known_classes(classes, drawn.any(axis=(1, 2)), set(map(canonical, masks)))
    is_blank = bool(masks) and not drawn.any()
    return Truth(image, drawn, known, cells, is_blank=is_blank, remarks=remarks)


def _fitting(path: Path, pixels: npt.NDArray[Any], image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    check_size(path, pixels.shape, image)
    return pixels


# --- images/ and masks/ ---------------------------------------------------------------------------------------------


def fits_masks(folder: Path, classes: Sequence[str]) -> bool:
    """Whether the folder holds both folders."""
    return folder_like(folder, "images") is not None and _label_folder(folder) is not None


def _label_folder(folder: Path) -> Path | None:
    return next((found for name in _LABEL_FOLDERS if (found := folder_like(folder, name))), None)


def mask_entries(folder: Path, classes: Sequence[str]) -> Iterator[Entry]:
    """``images/NAME.png`` with ``masks/NAME.png``, ``masks/CLASS/NAME.png`` or ``masks/NAME_CLASS.png``."""
    pictures, masks = folder_like(folder, "images"), _label_folder(folder)
    if pictures is None or masks is None:
        raise ValueError(f"{folder}: the folders images/ and masks/ (or labels/) are needed")
    per_class = _per_class(masks, classes)
    if per_class:
        yield from _with_masks(pictures, per_class, classes)
    else:
        yield from _with_label_images(pictures, masks, classes)


def _per_class(masks: Path, classes: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Stem of a picture -> class -> mask file, where there is a sub-folder or a name ending per class."""
    found: dict[str, dict[str, Path]] = {}
    for name in classes:
        sub = folder_like(masks, name)
        ending = _class_ending(name, "([ _-]masks?)?")
        inside = by_stem(sub) if sub else {m["stem"]: p for s, p in by_stem(masks).items() if (m := ending.match(s))}
        for stem, paths in inside.items():
            found.setdefault(stem, {})[name] = paths[0]
    return found


def _with_label_images(pictures: Path, masks: Path, classes: Sequence[str]) -> Iterator[Entry]:
    images = by_stem(pictures)
    labels: dict[str, list[Path]] = {}
    for stem, paths in by_stem(masks).items():
        labels.setdefault(_picture_of(stem, images), []).extend(paths)
    paired = {stem: (images.get(stem, []), labels.get(stem, [])) for stem in sorted(labels.keys() | images.keys())}
    used = _used([drawn[0] for lying, drawn in paired.values() if len(lying) == len(drawn) == 1], classes)
    for stem, (lying, drawn) in paired.items():
        if len(lying) == len(drawn) == 1:
            yield Entry(stem, partial(read_labels, lying[0], drawn[0], tuple(classes), used))
        else:
            said = f"{len(lying)} images in {pictures.name}/ and {len(drawn)} in {masks.name}/ have this name"
            yield Entry(stem, partial(refuse, f"{said}; one of each is needed"))


def _picture_of(stem: str, images: Mapping[str, list[Path]]) -> str:
    """The stem of the picture that a label picture belongs to; its own stem where there is no such picture."""
    if stem in images:
        return stem
    plain = _LABEL_ENDING.sub("", stem)
    return next((each for each in images if each == plain or _IMAGE_ENDING.sub("", each) == plain), stem)


def _used(files: Sequence[Path], classes: Sequence[str]) -> frozenset[str]:
    """Canonical names of the classes that are painted on any of the label pictures."""
    if len(classes) == 1:  # a label picture of a single class tells about it even where it is black
        return frozenset(map(canonical, classes))
    painted: set[int] = set()
    for path in files:
        try:
            painted |= {int(value) for value in np.unique(read_label_image(path))}
        except (ValueError, OSError):
            continue  # reported when the picture itself is read
    return frozenset(canonical(name) for i, name in enumerate(classes, start=1) if i in painted)


# --- label pictures beside the images --------------------------------------------------------------------------------


def fits_labels(folder: Path, classes: Sequence[str]) -> bool:
    """Whether a picture of the folder has a label picture beside it."""
    return bool(_pairs(folder))


def label_entries(folder: Path, classes: Sequence[str]) -> Iterator[Entry]:
    """``NAME.png`` with ``NAME_cp_masks.png``, ``NAME_masks.tif`` or another ending of this kind beside it."""
    pairs, stems = _pairs(folder), by_stem(folder)
    used = _used([stems[labels][0] for labels in pairs.values()], classes)
    for stem in sorted(stems.keys() - set(pairs.values())):
        if stem in pairs and len(stems[stem]) == len(stems[pairs[stem]]) == 1:
            yield Entry(stem, partial(read_labels, stems[stem][0], stems[pairs[stem]][0], tuple(classes), used))
        else:
            files = [path.name for path in (*stems[stem], *stems.get(pairs.get(stem, ""), ()))]
            yield Entry(stem, partial(refuse, _not_one_pair(files)))


def _not_one_pair(files: Sequence[str]) -> str:
    if len(files) == 1:
        return "no label image (NAME_masks or NAME_cp_masks) lies beside it"
    return f"{', '.join(files)} belong together; one image with one label image is needed"


def _pairs(folder: Path) -> dict[str, str]:
    """Stem of a picture -> stem of its label picture."""
    stems = by_stem(folder)
    labels = [stem for stem in stems if _LABEL_ENDING.search(stem)]
    images = {stem: paths for stem, paths in stems.items() if stem not in labels}
    found = {stem: _picture_of(stem, images) for stem in labels}
    return {picture: stem for stem, picture in found.items() if picture != stem}


def read_labels(picture: Path, labels: Path, classes: Sequence[str], used: frozenset[str]) -> Truth:
    """A picture with a label picture: i + 1 is class i; of cells, every number is one.

    Parameters
    ----------
    picture, labels
        The files.
    classes
        In the order of the masks.
    used
        Canonical names of the classes painted on any label picture of the folder; the others were not annotated.
    """
    image, cells, remarks = read_gray(picture), None, tuple[Remark, ...]()
    if len(classes) == 1 and labels.suffix.lower() in LOSSY and not are_cells(classes):
        masks = _fitting(labels, read_mask(labels), image)[None]
    else:
        values = _fitting(labels, read_label_image(labels), image)
        if are_cells(classes):
            cells, remarks = cells_of_labels(labels, values)
        masks = (values != 0)[None] if are_cells(classes) else masks_of_labels(labels, values, classes)
    cells = no_cells(image) if cells is None else cells
    known = known_classes(classes, masks.any(axis=(1, 2)), used)
    return Truth(image, masks, known, cells, is_blank=not masks.any(), remarks=remarks)


def masks_of_labels(path: Path, values: npt.NDArray[Any], classes: Sequence[str]) -> Bools:
    """(C, H, W) bool of a label picture.

    Raises
    ------
    ValueError
        If it holds a label that is none of the classes.
    """
    present = np.unique(values)
    if len(classes) == 1 and len(present) <= _BINARY:
        return np.stack([values != 0])
    strange = [f"{v:g}" for v in present if not 0 <= v <= len(classes)]
    if strange:
        meant = ", ".join(f"{i} {name}" for i, name in enumerate(classes, start=1))
        raise ValueError(
            f"{path}: label {', '.join(strange[:5])}, but the labels are 0 background, {meant}. Numbers of single "
            "objects, such as those of Cellpose, are read for cells only"
        )
    return np.stack([values == i for i in range(1, len(classes) + 1)])
