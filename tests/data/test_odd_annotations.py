"""Annotations as people and tools really write them: read right, or named in the report, one note for each kind."""

import base64
import io
import json
from math import pi
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage.draw import polygon2mask

from napari_embryo import data
from napari_embryo.data import Found
from napari_embryo.families import BLASTOCYST_CLASSES, FRAGMENT_CLASSES
from napari_embryo.settings import DataSettings

SHAPE = (120, 160)
GRAY = np.full(SHAPE, 90, np.uint8)


def circle(x: float, y: float, radius: float) -> list[list[float]]:
    """(x, y) of forty corners, none of which lies on the center of a pixel."""
    x, y = x + 0.31, y + 0.17
    angle = np.linspace(0, 2 * pi, 40, endpoint=False)
    return np.stack((x + radius * np.cos(angle), y + radius * np.sin(angle)), 1).tolist()


def filled(points: list[list[float]]) -> np.ndarray:
    """By scikit-image."""
    mask: np.ndarray = polygon2mask(SHAPE, np.asarray(points)[:, ::-1])
    return mask


def shape(label: str, points: list[list[float]], kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


def labelme(folder: Path, shapes: list[dict[str, Any]], name: str = "a") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(GRAY).save(folder / f"{name}.png")
    about = {"imagePath": f"{name}.png", "imageHeight": SHAPE[0], "imageWidth": SHAPE[1]}
    (folder / f"{name}.json").write_text(json.dumps({"shapes": shapes, **about}))


def coco(folder: Path, annotations: list[dict[str, Any]], categories: dict[Any, str], image_id: Any = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(GRAY).save(folder / "a.png")
    content = {
        "images": [{"id": image_id, "file_name": "a.png", "height": SHAPE[0], "width": SHAPE[1]}],
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
        "annotations": annotations,
    }
    (folder / "i.json").write_text(json.dumps(content))


def outline(points: list[list[float]], **more: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "segmentation": [(np.asarray(points) + 0.5).ravel().tolist()], **more}


def found_in(folder: Path, classes: tuple[str, ...] = ("cell",), **changes: Any) -> Found:
    return data.find_samples(DataSettings(folders=(str(folder),), **changes), classes)


LEFT, MIDDLE, RIGHT = circle(30, 60, 20), circle(80, 60, 20), circle(130, 60, 20)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cell", "Cell ", "CELL", "cells", "blastomere", " Blastomeres"])
@pytest.mark.parametrize("write", ["labelme", "coco"])
def test_a_cell_by_any_name(tmp_path: Path, name: str, write: str) -> None:
    if write == "labelme":
        labelme(tmp_path, [shape(name, LEFT)])
    else:
        coco(tmp_path, [outline(LEFT)], {1: name})
    found = found_in(tmp_path)
    np.testing.assert_array_equal(found.samples[0].read().cells, [filled(LEFT)])
    assert found.notes == ()


@pytest.mark.parametrize("write", ["labelme", "coco"])
def test_unknown_names_are_listed_in_one_note(tmp_path: Path, write: str) -> None:
    """What is ours, but of no use here, is not; a polar body is neither a cell nor a fragment."""
    drawn = {
        "cell": LEFT,
        "cel": MIDDLE,
        "dirt": RIGHT,
        "polar_body": circle(80, 20, 5),
        "zp_outer": circle(80, 60, 58),
    }
    if write == "labelme":
        for name in "abcde":
            labelme(tmp_path, [shape(label, points) for label, points in drawn.items()], name)
        where = "in a, b, c and 2 more"
    else:
        numbers = dict(enumerate(drawn, start=1))
        coco(tmp_path, [outline(drawn[name], category_id=i) for i, name in numbers.items()], numbers)
        where = "in a"
    found = found_in(tmp_path)
    assert [len(s.read().cells) for s in found.samples] == [1] * len(found.samples)
    says = f"labels that are no class here were not used: 'cel' (did you mean 'cell'?), 'dirt' ({where})"
    assert found.notes == (f"{tmp_path.name}: {says}",)
    told = data.report(found, data.split(found.samples, DataSettings(validation=0)), ("cell",))
    assert says in told.text()


@pytest.mark.parametrize(
    "labels", [("ZP_Outer", "zp inner", "Cavity", "ICM"), ("zp_outer ", "ZP-INNER", "CAVITY", "icm")]
)
def test_the_outlines_of_a_blastocyst_in_any_case(tmp_path: Path, labels: tuple[str, ...]) -> None:
    radii = (55, 45, 30, 10)
    labelme(tmp_path, [shape(label, circle(80, 60, radius)) for label, radius in zip(labels, radii, strict=True)])
    discs = [filled(circle(80, 60, radius)) for radius in radii]
    truth = found_in(tmp_path, BLASTOCYST_CLASSES).samples[0].read()
    np.testing.assert_array_equal(truth.masks, [discs[3], discs[1] & ~discs[2] & ~discs[3], discs[0] & ~discs[1]])


# --- shapes -----------------------------------------------------------------------------------------------------------


def painted(mask: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray((mask * 255).astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_mask_of_the_ai_tool(tmp_path: Path) -> None:
    """Its box includes both corners, and what lies beyond the picture is cut off."""
    patch = np.random.default_rng(0).random((40, 60)) < 0.8
    labelme(tmp_path, [shape("cell", [[90, 20], [149, 59]], "mask", mask=painted(patch)), shape("cell", LEFT)])
    expected = np.zeros(SHAPE, bool)
    expected[20:60, 90:150] = patch
    np.testing.assert_array_equal(found_in(tmp_path).samples[0].read().cells, [expected, filled(LEFT)])
    labelme(tmp_path, [shape("cell", [[130, -10], [189, 29]], "mask", mask=painted(patch))])
    expected = np.zeros(SHAPE, bool)
    expected[:30, 130:] = patch[10:, :30]
    np.testing.assert_array_equal(found_in(tmp_path).samples[0].read().cells, [expected])


@pytest.mark.parametrize("order", [("ZP", "TE", "ICM"), ("ICM", "TE", "ZP"), ("TE", "ZP", "ICM")])
@pytest.mark.parametrize("write", ["labelme", "coco"])
def test_parts_inside_one_another_are_cut_out(tmp_path: Path, order: tuple[str, ...], write: str) -> None:
    outlines = {"ZP": circle(80, 60, 55), "TE": circle(80, 60, 45), "ICM": circle(60, 60, 12)}
    if write == "labelme":
        labelme(tmp_path, [shape(name, outlines[name]) for name in order])
    else:
        numbers = dict(enumerate(order))
        coco(tmp_path, [outline(outlines[name], category_id=i) for i, name in numbers.items()], numbers)
    zp, te, icm = (filled(outlines[name]) for name in ("ZP", "TE", "ICM"))
    found = found_in(tmp_path, BLASTOCYST_CLASSES)
    np.testing.assert_array_equal(found.samples[0].read().masks, [icm, te & ~icm, zp & ~te])
    (note,) = found.notes
    assert "cut out of it" in note


def test_a_zona_drawn_as_two_circles_is_a_ring(tmp_path: Path) -> None:
    labelme(
        tmp_path, [shape("ZP", circle(80, 60, 55)), shape("ZP", circle(80, 60, 45)), shape("ZP", circle(80, 60, 55))]
    )
    found = found_in(tmp_path, BLASTOCYST_CLASSES)
    expected = filled(circle(80, 60, 55)) & ~filled(circle(80, 60, 45))
    np.testing.assert_array_equal(found.samples[0].read().masks[2], expected)
    assert "taken as the inner edge: ZP" in found.notes[0]


def test_a_later_part_covers_an_earlier_one_that_it_overlaps(tmp_path: Path) -> None:
    labelme(tmp_path, [shape("ICM", circle(60, 60, 20)), shape("TE", circle(80, 60, 20))])
    icm, te = filled(circle(60, 60, 20)), filled(circle(80, 60, 20))
    found = found_in(tmp_path, BLASTOCYST_CLASSES)
    np.testing.assert_array_equal(found.samples[0].read().masks[:2], [icm & ~te, te])
    assert found.notes == ()


def test_cells_and_fragments_may_overlap(tmp_path: Path) -> None:
    labelme(tmp_path, [shape("fragment", circle(30, 60, 5)), shape("cell", LEFT)])
    truth = found_in(tmp_path, FRAGMENT_CLASSES).samples[0].read()
    np.testing.assert_array_equal(truth.masks, [filled(circle(30, 60, 5)), filled(LEFT)])


STRAY = {
    "a point": (shape("cell", [[80, 20]], "point"), "cell is a point"),
    "a line": (shape("cell", [[80, 20], [90, 20]], "line"), "cell is a line"),
    "a polygon of two": (shape("cell", [[80, 20], [90, 20]]), "cell: 2 points for a polygon"),
    "a circle of one": (shape("cell", [[80, 20]], "circle"), "cell: 1 point for a circle"),
}


@pytest.mark.parametrize("kind", sorted(STRAY))
def test_a_stray_point_does_not_cost_the_picture(tmp_path: Path, kind: str) -> None:
    odd, says = STRAY[kind]
    labelme(tmp_path, [shape("cell", LEFT), odd, shape("cell", RIGHT)])
    found = found_in(tmp_path)
    assert len(found.samples[0].read().cells) == 2
    assert found.notes == (f"{tmp_path.name}: shapes without an area were left out: {says} (in a)",)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (shape("cell", [[500, 500], [520, 500], [510, 520]]), "lies outside the image"),
        (shape("cell", [[1, 2], [3, 4], [5, float("nan")]]), "invalid coordinates"),
        (shape("cell", [[1, 2], [3, 4], [5, 1e300]]), "invalid coordinates"),
        (shape("cell", [[1, 2, 3], [3, 4, 5], [5, 6, 7]]), "invalid coordinates"),
        (shape("cell", [[0, 0], [9, 9]], "mask", mask="%%%"), "not an image"),
        (shape("cell", [[0, 0], [9, 9]], "mask", mask=painted(np.ones((3, 3)))), "3 x 3 pixels for a box of 10 x 10"),
        (shape("cell", [[0, 0], [9, 9]], "mask"), "KeyError"),
        (shape("cell", [[0, 0], [9, 9]], "hexagon"), "cell is a hexagon"),
        ({"label": "cell"}, "KeyError"),
        ("cell", "AttributeError"),
    ],
)  # fmt: skip
def test_a_damaged_shape_is_told(tmp_path: Path, odd: Any, reason: str) -> None:
    labelme(tmp_path, [shape("cell", LEFT)], "good")
    labelme(tmp_path, [shape("cell", LEFT), odd], "odd")
    found = found_in(tmp_path)
    assert [s.name for s in found.samples] == ["good"]
    assert reason in found.skipped[0].reason


@pytest.mark.parametrize("write", ["labelme", "coco"])
def test_a_cell_outlined_twice_counts_once(tmp_path: Path, write: str) -> None:
    """Also where the second outline is a pixel off; cells that merely overlap are two."""
    cells = [LEFT, circle(30, 60, 20.2), MIDDLE, circle(88, 60, 20), LEFT]
    if write == "labelme":
        labelme(tmp_path, [shape("cell", points) for points in cells])
    else:
        coco(tmp_path, [outline(points) for points in cells], {1: "cell"})
    found = found_in(tmp_path)
    np.testing.assert_array_equal(
        found.samples[0].read().cells, [filled(points) for points in (LEFT, MIDDLE, circle(88, 60, 20))]
    )
    says = "the same cell was outlined twice and counted once: 2 of 5 outlines"
    assert found.notes == (f"{tmp_path.name}: {says} (in a)",)


# --- COCO -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("image", "category"), [("1", 1), (1, "1"), (1.0, 1), ("img-7", "c")])
def test_ids_of_any_type(tmp_path: Path, image: Any, category: Any) -> None:
    used = 1 if image in ("1", 1.0) else image
    number = 1 if category == "1" else category
    coco(tmp_path, [outline(LEFT, image_id=used, category_id=number)], {category: "cell"}, image)
    assert len(found_in(tmp_path).samples[0].read().cells) == 1


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        ({"segmentation": []}, "left out: cell (in a)"),
        ({"segmentation": [[5, 5, 9, 9]]}, "left out: cell (in a)"),
        ({"segmentation": [[500, 500, 520, 500, 510, 520]]}, "left out: cell (in a)"),
        ({"category_id": 9}, "were not used: 'category 9' (in a)"),
        ({"image_id": 5}, "1 of its annotations belong to no image"),
    ],
)
def test_an_odd_annotation_does_not_cost_the_picture(tmp_path: Path, odd: dict[str, Any], says: str) -> None:
    coco(tmp_path, [outline(LEFT), outline(RIGHT, **odd)], {1: "cell"})
    found = found_in(tmp_path)
    assert len(found.samples[0].read().cells) == 1
    assert says in "\n".join((*found.notes, *(each.reason for each in found.skipped)))


def test_images_of_one_id_are_told(tmp_path: Path) -> None:
    coco(tmp_path, [outline(LEFT)], {1: "cell"})
    content = json.loads((tmp_path / "i.json").read_text())
    Image.fromarray(GRAY).save(tmp_path / "b.png")
    content["images"].append({"id": "1", "file_name": "b.png"})
    (tmp_path / "i.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"several images of i\.json have the id 1"):
        found_in(tmp_path)


# --- whose picture ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["image", "name"])
def test_a_folder_says_itself_whose_pictures_it_holds(tmp_path: Path, column: str) -> None:
    """In its embryos.csv; a table or a pattern of the settings goes before it."""
    for name in ("p_1", "p_2", "q_1", "W7_RUN12", "W7_RUN80"):
        labelme(tmp_path / "set", [shape("cell", LEFT)], name)
    (tmp_path / "set" / "embryos.csv").write_text(f"{column},embryo\np_1,Ada\np_2.png,Ada\n")
    names = [s.embryo for s in found_in(tmp_path / "set").samples]
    assert names == ["W7", "W7", "Ada", "Ada", "q_1"]
    patterned = found_in(tmp_path / "set", embryo_pattern="^(?P<embryo>[pq])_")
    assert [s.embryo for s in patterned.samples] == ["W7", "W7", "p", "p", "q"]


@pytest.mark.parametrize(
    ("folder", "classes", "pictures", "embryos", "cells"),
    [
        ("cleavage/annotated_2", ("cell",), 125, 96, 672),
        ("cleavage/annotated_2", FRAGMENT_CLASSES, 125, 96, 672),
        ("blastocyst/annotated_2", BLASTOCYST_CLASSES, 34, 33, 0),
    ],
)
def test_the_second_helping_of_annotations(
    data_dir: Path, folder: str, classes: tuple[str, ...], pictures: int, embryos: int, cells: int
) -> None:
    """Read whole, split by the table in the folder, and without a word on polar bodies or undrawn parts."""
    found = found_in(data_dir / folder, classes)
    assert (len(found.samples), len({s.embryo for s in found.samples})) == (pictures, embryos)
    assert (sum(c.cells for c in found.contents.values()), found.skipped, found.notes) == (cells, (), ())
