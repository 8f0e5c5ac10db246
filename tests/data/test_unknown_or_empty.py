"""Unknown against empty, in every layout by one rule, and pictures that are known to show no embryo."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_embryo import data
from napari_embryo.data import Found
from napari_embryo.data.layouts import layout_doubts
from napari_embryo.families import BLASTOCYST_CLASSES, FRAGMENT_CLASSES
from napari_embryo.settings import DataSettings

SHAPE = (40, 50)
SQUARE = (slice(10, 20), slice(10, 30))
Drawn = dict[str, tuple[str, ...]]
"""Picture -> the classes drawn on it."""


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def square(value: int = 255) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[SQUARE] = value
    return mask


def found_in(folder: Path, classes: tuple[str, ...], **changes: Any) -> Found:
    return data.find_samples(DataSettings(folders=(str(folder),), **changes), classes)


def pictures(folder: Path, names: Drawn) -> None:
    for name in names:
        save(folder / f"{name}.png", np.full(SHAPE, 90, np.uint8))


def corners(place: int) -> list[list[int]]:
    """(x, y) of two rows of the square: classes lie beside one another."""
    top = 10 + 2 * place
    return [[10, top], [29, top], [29, top + 1], [10, top + 1]]


def labelme(folder: Path, drawn: Drawn, classes: tuple[str, ...]) -> None:
    pictures(folder, drawn)
    for name, labels in drawn.items():
        shapes = [{"label": label, "points": corners(i), "shape_type": "polygon"} for i, label in enumerate(labels)]
        (folder / f"{name}.json").write_text(json.dumps({"shapes": shapes, "imagePath": f"{name}.png"}))


def coco(folder: Path, drawn: Drawn, classes: tuple[str, ...]) -> None:
    """Every class is a category of the file, whether annotated or not."""
    pictures(folder, drawn)
    numbers = {name: i for i, name in enumerate(classes, start=1)}
    content = {
        "images": [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate(drawn)],
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        "annotations": [
            {"image_id": i, "category_id": numbers[label], "segmentation": [np.ravel(corners(place)).tolist()]}
            for i, labels in enumerate(drawn.values())
            for place, label in enumerate(labels)
        ],
    }
    (folder / "i.json").write_text(json.dumps(content))


def label_pictures(folder: Path, drawn: Drawn, classes: tuple[str, ...]) -> None:
    pictures(folder / "images", drawn)
    for name, labels in drawn.items():
        painted = np.zeros(SHAPE, np.uint8)
        for i, label in enumerate(labels):
            painted[SQUARE][2 * i : 2 * i + 2] = classes.index(label) + 1
        save(folder / "masks" / f"{name}.png", painted)


def black_where_not_drawn(folder: Path, drawn: Drawn, classes: tuple[str, ...]) -> None:
    """A mask file for every class, as scripts write them."""
    pictures(folder / "images", drawn)
    for name, labels in drawn.items():
        for label in classes:
            save(folder / "masks" / label / f"{name}.png", square(255 * (label in labels)))


def napari(folder: Path, drawn: Drawn, classes: tuple[str, ...]) -> None:
    for name, labels in drawn.items():
        painted = np.zeros(SHAPE, np.int64)
        for i, label in enumerate(labels):
            painted[SQUARE][2 * i : 2 * i + 2] = classes.index(label) + 1
        data.save_sample(folder, name, np.full(SHAPE, 90, np.uint8), painted, classes, {})


EVERY = [labelme, coco, label_pictures, black_where_not_drawn, napari]


@pytest.mark.parametrize("write", EVERY)
@pytest.mark.parametrize(
    ("classes", "drawn", "known"),
    [
        (FRAGMENT_CLASSES, {"a": ("fragment",)}, {"a": [True, False]}),
        (FRAGMENT_CLASSES, {"a": ("fragment",), "b": ("embryo",)}, {"a": [True, False], "b": [True, True]}),
        (FRAGMENT_CLASSES, {"a": ("fragment", "embryo"), "b": ("fragment",)}, {"a": [True, True], "b": [True, False]}),
        (BLASTOCYST_CLASSES, {"a": ("ZP",)}, {"a": [False, False, True]}),
        (BLASTOCYST_CLASSES, {"a": ("ICM", "ZP"), "b": ("ZP",)}, {"a": [True, False, True], "b": [False, False, True]}),
    ],
)  # fmt: skip
def test_what_every_embryo_has_is_unknown_where_it_is_not_drawn(
    tmp_path: Path, write: Callable[..., None], classes: tuple[str, ...], drawn: Drawn, known: dict[str, list[bool]]
) -> None:
    """Fragments alone are not the whole embryo, and a zona alone does not say that there is no inner cell mass."""
    write(tmp_path, drawn, classes)
    found = found_in(tmp_path, classes)
    assert {s.name: s.read().known.tolist() for s in found.samples} == known
    for sample in found.samples:
        ratio = found.contents[sample].ratio
        assert (ratio is None) == (classes == BLASTOCYST_CLASSES or not all(known[sample.name]))


@pytest.mark.parametrize("write", [labelme, coco, label_pictures])
@pytest.mark.parametrize("others", [(), ("fragment",)])
def test_what_an_embryo_may_lack_is_absent_only_where_someone_looked_for_it(
    tmp_path: Path, write: Callable[..., None], others: tuple[str, ...]
) -> None:
    """Fragments drawn on other pictures tell that they were looked for; drawn on none, nobody may have looked."""
    write(tmp_path, {"a": ("embryo",), "b": ("embryo", *others)}, FRAGMENT_CLASSES)
    found = found_in(tmp_path, FRAGMENT_CLASSES)
    assert [s.read().known.tolist() for s in found.samples] == [[bool(others), True]] * 2
    assert next(c.ratio for c in found.contents.values()) == (0 if others else None)
    told = data.report(found, data.split(found.samples, DataSettings(validation=0)), FRAGMENT_CLASSES)
    assert [note for note in told.notes if "fragment" in note] == (
        [] if others else [f"{tmp_path.name}: no image shows fragment; taken as not annotated, not as absent."]
    )


def test_a_black_mask_of_a_single_class_is_an_answer(tmp_path: Path) -> None:
    label_pictures(tmp_path, {"a": ()}, ("fragment",))
    (sample,) = found_in(tmp_path, ("fragment",)).samples
    assert sample.read().known.tolist() == [True]


# --- empty pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", EVERY)
@pytest.mark.parametrize("classes", [("cell",), BLASTOCYST_CLASSES])
def test_a_picture_without_annotations_is_empty_on_request(
    tmp_path: Path, write: Callable[..., None], classes: tuple[str, ...]
) -> None:
    write(tmp_path, {"embryo": (classes[-1],), "well": ()}, classes)
    found = found_in(tmp_path, classes)
    assert [s.name for s in found.samples] == ["embryo"]
    assert "empty.txt" in found.skipped[0].reason
    found = found_in(tmp_path, classes, without_annotations="empty")
    truth = {s.name: s.read() for s in found.samples}["well"]
    assert (truth.is_empty, truth.known.all(), truth.masks.any(), len(truth.cells)) == (True, True, False, 0)
    told = data.report(found, data.split(found.samples, DataSettings(validation=0)), classes)
    assert [row["empty"] for row in told.rows] == [1]


@pytest.mark.parametrize("write", EVERY)
@pytest.mark.parametrize("listed", ["well.png\n", "image\nwell\n", "# empty wells\n\nwell.png,12 h\n"])
def test_a_list_names_the_empty_pictures(tmp_path: Path, write: Callable[..., None], listed: str) -> None:
    """With or without an annotation of their own."""
    write(tmp_path, {"embryo": ("cell",)}, ("cell",))
    save(tmp_path / "well.png", np.full(SHAPE, 90, np.uint8))
    (tmp_path / "empty.txt").write_text(listed)
    found = found_in(tmp_path, ("cell",))
    assert {s.name: s.read().is_empty for s in found.samples} == {"embryo": False, "well": True}
    assert layout_doubts(DataSettings(folders=(str(tmp_path),)), ("cell",)) == ()


def test_a_folder_of_empty_pictures_alone(tmp_path: Path) -> None:
    pictures(tmp_path, {"a": (), "b": ()})
    (tmp_path / "empty.txt").write_text("a.png\nb.png\n")
    for classes in (("cell",), FRAGMENT_CLASSES, BLASTOCYST_CLASSES):
        samples = found_in(tmp_path, classes).samples
        assert [s.read().known.tolist() for s in samples] == [[True] * len(classes)] * 2


@pytest.mark.parametrize(("listed", "reason"), [("embryo", "something is drawn on it"), ("z.png", "no image of this")])
def test_a_list_that_is_wrong_is_told(tmp_path: Path, listed: str, reason: str) -> None:
    labelme(tmp_path, {"embryo": ("cell",), "other": ("cell",)}, ("cell",))
    (tmp_path / "empty.txt").write_text(listed)
    (skipped,) = found_in(tmp_path, ("cell",)).skipped
    assert reason in skipped.reason
