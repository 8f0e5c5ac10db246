"""Masks as pictures: beside the image, in a folder per class (Saeedi et al.), or in ``masks/`` next to ``images/``."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from napari_embryo.data.image_files import (
    Entry,
    by_stem,
    check_size,
    folder_like,
    read_gray,
    read_label_image,
    read_mask,
    refuse,
)
from napari_embryo.data.sample import Bools, Truth, no_cells

LOOKED_FOR_SAEEDI = "Images/ with GT_<class>/ folders, or NAME_<class>_Mask files beside the pictures"
LOOKED_FOR_MASKS = "images/ with masks/ (one label picture per image, or a sub-folder or name ending per class)"
MaskFiles = Mapping[str, Path]
"""One mask file per class; a class without one is unknown."""


# --- Saeedi et al.: a folder per class, or masks beside the pictures ------------------------------------------------


def fits_saeedi(folder: Path, classes: Sequence[str]) -> bool:
    """Whether a ground truth folder or a mask file of one of the classes is there."""
    return any(folder_like(folder, f"GT_{name}") for name in classes) or bool(_beside(folder, classes))


def saeedi_entries(folder: Path, classes: Sequence[str]) -> Iterator[Entry]:
    """``Images/NAME.BMP`` with ``GT_ICM/NAME ICM_Mask.bmp``, or ``NAME.png`` with ``NAME_ICM_Mask.png`` beside it."""
    truths = {name: sub for name in classes if (sub := folder_like(folder, f"GT_{name}"))}
    if not truths:
        return _with_masks(folder, _beside(folder, classes), classes)
    pictures = folder_like(folder, "images")
    if pictures is None:
        raise ValueError(f"{folder}: {', '.join(p.name for p in truths.values())} came without the folder Images/")
    found: dict[str, dict[str, Path]] = {}
    for name, sub in truths.items():
        for stem, path in _masks_of(sub, name).items():
            found.setdefault(stem, {})[name] = path
    return _with_masks(pictures, found, classes)


def _beside(folder: Path, classes: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Picture's stem -> class -> mask file, of mask files in the same folder."""
    found: dict[str, dict[str, Path]] = {}
    for name in classes:
        for stem, path in _masks_of(folder, name).items():
            found.setdefault(stem, {})[name] = path
    return found


def _masks_of(folder: Path, name: str) -> dict[str, Path]:
    ending = _class_ending(name, "[ _-]mask")
    matched = ((ending.match(stem), paths[0]) for stem, paths in by_stem(folder).items())
    return {match["stem"]: path for match, path in matched if match}


def _class_ending(name: str, then: str) -> re.Pattern[str]:
    return re.compile(rf"(?P<stem>.+?)[ _-]{re.escape(name)}{then}$", re.IGNORECASE)


def _with_masks(folder: Path, masks: Mapping[str, MaskFiles], classes: Sequence[str]) -> Iterator[Entry]:
    """Pictures of the folder with their masks; masks without a picture and pictures without masks are told."""
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
        yield Entry(stem, partial(refuse, f"it has masks, but no picture in {folder}"))


def read_masks(picture: Path, masks: MaskFiles, classes: Sequence[str]) -> Truth:
    """A picture with one mask file per class; a class without a file is unknown, not empty."""
    image = read_gray(picture)
    drawn = np.zeros((len(classes), *image.shape), bool)
    for i, name in enumerate(classes):
        if name in masks:
            drawn[i] = _fitting(masks[name], image.shape)
    return Truth(image, drawn, np.array([name in masks for name in classes]), no_cells(image))


def _fitting(path: Path, shape: tuple[int, ...]) -> Bools:
    mask = read_mask(path)
    check_size(path, mask.shape, np.empty(shape, bool))
    return mask


# --- images/ and masks/ ---------------------------------------------------------------------------------------------


def fits_masks(folder: Path, classes: Sequence[str]) -> bool:
    """Whether both folders are there."""
    return folder_like(folder, "images") is not None and folder_like(folder, "masks") is not None


def mask_entries(folder: Path, classes: Sequence[str]) -> Iterator[Entry]:
    """``images/NAME.png`` with ``masks/NAME.png``, ``masks/CLASS/NAME.png`` or ``masks/NAME_CLASS.png``."""
    pictures, masks = folder_like(folder, "images"), folder_like(folder, "masks")
    if pictures is None or masks is None:
        raise ValueError(f"{folder}: needed are the folders images/ and masks/")
    per_class = _per_class(masks, classes)
    if per_class:
        yield from _with_masks(pictures, per_class, classes)
    else:
        yield from _with_label_images(pictures, masks, classes)


def _per_class(masks: Path, classes: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Picture's stem -> class -> mask file, where there is a sub-folder or a name ending per class."""
    found: dict[str, dict[str, Path]] = {}
    for name in classes:
        sub = folder_like(masks, name)
        ending = _class_ending(name, "([ _-]mask)?")
        inside = by_stem(sub) if sub else {m["stem"]: p for s, p in by_stem(masks).items() if (m := ending.match(s))}
        for stem, paths in inside.items():
            found.setdefault(stem, {})[name] = paths[0]
    return found


def _with_label_images(pictures: Path, masks: Path, classes: Sequence[str]) -> Iterator[Entry]:
    labels, images = by_stem(masks), by_stem(pictures)
    for stem in sorted(labels.keys() | images.keys()):
        lying, drawn = images.get(stem, []), labels.get(stem, [])
        if len(lying) == len(drawn) == 1:
            yield Entry(stem, partial(read_labels, lying[0], drawn[0], tuple(classes)))
        else:
            told = f"{len(lying)} pictures in {pictures.name}/ and {len(drawn)} in {masks.name}/ have this name"
            yield Entry(stem, partial(refuse, f"{told}; needed is one each"))


def read_labels(picture: Path, labels: Path, classes: Sequence[str]) -> Truth:
    """A picture with a label image: i + 1 is class i; with a single class, everything that is not 0."""
    image, values = read_gray(picture), read_label_image(labels)
    check_size(labels, values.shape, image)
    masks = masks_of_labels(labels, values, classes)
    return Truth(image, masks, np.ones(len(classes), bool), no_cells(image))


def masks_of_labels(
    path: Path, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]], classes: Sequence[str]
) -> Bools:
    """(C, H, W) bool of a label image.

    Raises
    ------
    ValueError
        When it holds a label that is none of the classes.
    """
    present = np.unique(values)
    if len(classes) == 1 and len(present) <= 2:
        return np.stack([values != 0])
    strange = [f"{v:g}" for v in present if not 0 <= v <= len(classes)]
    if strange:
        meant = ", ".join(f"{i} {name}" for i, name in enumerate(classes, start=1))
        raise ValueError(f"{path}: label {', '.join(strange[:5])} came; the labels are 0 background, {meant}")
    return np.stack([values == i for i in range(1, len(classes) + 1)])
