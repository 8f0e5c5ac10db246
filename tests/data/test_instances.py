"""Label pictures with a number per cell, as Cellpose, StarDist and micro-sam write them, and masks in odd formats."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_embryo import data
from napari_embryo.data import Found
from napari_embryo.families import BLASTOCYST_CLASSES
from napari_embryo.settings import DataSettings

SHAPE = (60, 80)
PLACES = {1: (slice(5, 25), slice(5, 25)), 2: (slice(5, 25), slice(40, 70)), 7: (slice(30, 55), slice(10, 40))}


def numbered(dtype: type = np.uint16) -> np.ndarray:
    labels = np.zeros(SHAPE, dtype)
    for number, place in PLACES.items():
        labels[place] = number
    return labels


def save(path: Path, pixels: np.ndarray, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, **how)
    else:
        Image.fromarray(pixels).save(path, **how)


def found_in(folder: Path, classes: tuple[str, ...] = ("cell",), **changes: Any) -> Found:
    return data.find_samples(DataSettings(folders=(str(folder),), **changes), classes)


@pytest.mark.parametrize(
    ("picture", "labels"),
    [
        ("images/a.png", "masks/a.png"),
        ("images/a.tif", "masks/a_masks.tif"),
        ("images/a.png", "masks/a_cp_masks.png"),
        ("images/a.png", "labels/a.tif"),
        ("a.png", "a_cp_masks.png"),
        ("a.tif", "a_cp_masks.tif"),
        ("a.png", "a_masks.png"),
        ("a_img.png", "a_masks.png"),
        ("a.png", "a_cell_masks.png"),
        ("images/a.png", "masks/cell/a.png"),
    ],
)
def test_every_number_is_a_cell(tmp_path: Path, picture: str, labels: str) -> None:
    save(tmp_path / "set" / picture, np.full(SHAPE, 90, np.uint8))
    save(tmp_path / "set" / labels, numbered())
    found = found_in(tmp_path / "set")
    (sample,) = found.samples
    truth = sample.read()
    np.testing.assert_array_equal(truth.cells, [numbered() == number for number in PLACES])
    np.testing.assert_array_equal(truth.masks[0], numbered() > 0)
    assert (found.skipped, found.notes) == ((), ())


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.uint32])
def test_numbers_of_any_type(tmp_path: Path, dtype: type) -> None:
    save(tmp_path / "images" / "a.png", np.full(SHAPE, 90, np.uint8))
    save(tmp_path / "masks" / "a.tif", numbered(dtype))
    assert len(found_in(tmp_path).samples[0].read().cells) == 3


def one_value(value: int, places: int = 1) -> np.ndarray:
    return np.isin(numbered(), list(PLACES)[:places]).astype(np.uint8) * value


def soft_edges() -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.clip(255 * (22 - np.hypot(y - 30, x - 40)) / 3, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("labels", "cells", "says"),
    [
        (one_value(1), 1, ""),
        (one_value(255), 1, "a mask of the single value 255 was read as one cell"),
        (one_value(255, 3), 0, "3 separate areas have the same number, 255"),
        (4 * one_value(1, 2) + 9 * (numbered() == 7).astype(np.uint8), 2, "stands for separate areas"),
        (soft_edges(), 0, "soft edges"),
        (np.zeros(SHAPE, np.uint8), 0, "no shape is drawn"),
    ],
)  # fmt: skip
def test_what_may_not_be_single_cells_is_told(tmp_path: Path, labels: np.ndarray, cells: int, says: str) -> None:
    for name, drawn in (("good", numbered().astype(np.uint8)), ("odd", labels)):
        save(tmp_path / "images" / f"{name}.png", np.full(SHAPE, 90, np.uint8))
        save(tmp_path / "masks" / f"{name}.png", drawn)
    found = found_in(tmp_path)
    assert {s.name: len(s.read().cells) for s in found.samples} == {"good": 3, **({"odd": cells} if cells else {})}
    told = "\n".join((*found.notes, *(each.reason for each in found.skipped)))
    assert says in told
    assert bool(told) == bool(says)


def test_numbers_of_cells_are_no_classes(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", np.full(SHAPE, 90, np.uint8))
    save(tmp_path / "masks" / "a.png", numbered())
    with pytest.raises(ValueError, match=r"label 7, but the labels are 0 background, 1 ICM.*read for cells only"):
        found_in(tmp_path, BLASTOCYST_CLASSES)


# --- colors and transparency ------------------------------------------------------------------------------------------


def in_channels(labels: np.ndarray, alpha: bool) -> np.ndarray:
    channels = [labels.astype(np.uint8)] * 3
    return np.stack([*channels, np.where(labels > 0, 255, 0).astype(np.uint8)] if alpha else channels, axis=-1)


@pytest.mark.parametrize("alpha", [False, True])
def test_numbers_in_color_channels_are_read(tmp_path: Path, alpha: bool) -> None:
    save(tmp_path / "images" / "a.png", np.full(SHAPE, 90, np.uint8))
    save(tmp_path / "masks" / "a.png", in_channels(numbered(), alpha))
    assert len(found_in(tmp_path).samples[0].read().cells) == 3


def test_colors_are_no_numbers(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", np.full(SHAPE, 90, np.uint8))
    colored = in_channels(numbered(), False)
    colored[numbered() == 7] = (200, 30, 10)
    save(tmp_path / "masks" / "a.png", colored)
    with pytest.raises(ValueError, match="painted in colors, which are no numbers"):
        found_in(tmp_path)


def test_jpeg_is_no_format_for_numbers(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", np.full(SHAPE, 90, np.uint8))
    save(tmp_path / "masks" / "a.jpg", numbered(np.uint8))
    with pytest.raises(ValueError, match="JPEG changes the numbers"):
        found_in(tmp_path)


INSIDE = numbered() == 7


@pytest.mark.parametrize(
    "rgba",
    [(255, 255, 255, 255), (255, 0, 0, 255), (0, 0, 255, 255), (0, 0, 0, 255), (40, 200, 90, 128)],
    ids=["white", "red", "blue", "black", "half transparent"],
)
def test_a_mask_may_be_painted_in_any_color_on_nothing(tmp_path: Path, rgba: tuple[int, ...]) -> None:
    save(tmp_path / "a.png", np.full(SHAPE, 90, np.uint8))
    save(tmp_path / "a_ICM_Mask.png", np.where(INSIDE[..., None], rgba, 0).astype(np.uint8))
    np.testing.assert_array_equal(found_in(tmp_path, BLASTOCYST_CLASSES).samples[0].read().masks[0], INSIDE)


@pytest.mark.parametrize("rgb", [(255, 255, 255), (255, 0, 0), (0, 0, 255)])
def test_a_mask_may_be_painted_in_any_color_on_black(tmp_path: Path, rgb: tuple[int, ...]) -> None:
    """Also with an alpha that is opaque everywhere."""
    for name, color in (("a", rgb), ("b", (*rgb, 255))):
        save(tmp_path / f"{name}.png", np.full(SHAPE, 90, np.uint8))
        painted = np.where(INSIDE[..., None], color, 0).astype(np.uint8)
        if len(color) == 4:
            painted[..., 3] = 255
        save(tmp_path / f"{name}_ICM_Mask.png", painted)
    for sample in found_in(tmp_path, BLASTOCYST_CLASSES).samples:
        np.testing.assert_array_equal(sample.read().masks[0], INSIDE)
