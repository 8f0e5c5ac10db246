"""Every layout of annotations: what is drawn on disk comes out as the same masks, and what is damaged is told."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_embryo import data
from napari_embryo.data import Found, Sample, Truth
from napari_embryo.families import BLASTOCYST_CLASSES
from napari_embryo.settings import DataSettings

SHAPE = (40, 50)
GRAY = np.random.default_rng(0).integers(1, 255, SHAPE).astype(np.uint8)
BLOCKS = {"ICM": (slice(5, 15), slice(5, 20)), "TE": (slice(12, 30), slice(10, 40)), "ZP": (slice(2, 36), slice(3, 47))}


def block(where: tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[where] = True
    return mask


MASKS = {name: block(where) for name, where in BLOCKS.items()}
STACK = np.stack(list(MASKS.values()))
NESTED = np.stack((MASKS["ICM"] & ~MASKS["TE"], MASKS["TE"], MASKS["ZP"] & ~MASKS["TE"] & ~MASKS["ICM"]))
"""What LabelMe shows of these blocks: the ones inside on top, and a later one over an earlier one."""


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def found_in(
    folder: Path, classes: tuple[str, ...] = BLASTOCYST_CLASSES, layout: str = "auto", **changes: Any
) -> Found:
    return data.find_samples(DataSettings(folders=(str(folder),), layout=layout, **changes), classes)


def only(folder: Path, classes: tuple[str, ...] = BLASTOCYST_CLASSES, layout: str = "auto") -> tuple[Sample, Truth]:
    found = found_in(folder, classes, layout)
    assert not found.skipped
    (sample,) = found.samples
    return sample, sample.read()


def corners(where: tuple[slice, slice]) -> list[list[float]]:
    """(x, y) of a block's outline, through the centers of its outermost pixels."""
    (top, bottom), (left, right) = ((s.start, s.stop - 1) for s in where)
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def labelme(shapes: list[dict[str, Any]], **about: Any) -> str:
    return json.dumps({"imageHeight": SHAPE[0], "imageWidth": SHAPE[1], "shapes": shapes, **about})


def polygon(label: str, where: tuple[slice, slice], **about: Any) -> dict[str, Any]:
    return {"label": label, "points": corners(where), "shape_type": "polygon", **about}


NAMED = [polygon(name, where) for name, where in BLOCKS.items()]
RINGS = [
    polygon("zp_outer", (slice(0, 40), slice(0, 50))),
    polygon("zp_inner", (slice(4, 36), slice(4, 46))),
    polygon("cavity", (slice(8, 32), slice(8, 42))),
    polygon("icm", (slice(20, 32), slice(8, 20))),
]


# --- LabelMe --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".BMP", ".JPG"])
def test_labelme_polygons_named_as_classes(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / "clinic" / f"R13-0140A{suffix}", GRAY)
    (tmp_path / "clinic" / "R13-0140A.json").write_text(labelme(NAMED))
    sample, truth = only(tmp_path / "clinic")
    assert (sample.name, sample.embryo, sample.source) == ("R13-0140A", "R13-0140", "clinic")
    np.testing.assert_array_equal(truth.masks, NESTED)
    assert truth.known.all()
    assert truth.box == (2, 3, 36, 47)


@pytest.mark.parametrize("classes", [BLASTOCYST_CLASSES, ("ZP", "ICM"), ("TE",)])
def test_labelme_rings_in_the_order_of_the_classes(tmp_path: Path, classes: tuple[str, ...]) -> None:
    save(tmp_path / "a.png", GRAY)
    (tmp_path / "a.json").write_text(labelme(RINGS))
    _, truth = only(tmp_path, classes)
    areas = {"ICM": 12 * 12, "TE": 32 * 42 - 24 * 34, "ZP": 40 * 50 - 32 * 42}
    assert truth.masks.sum((1, 2)).tolist() == [areas[name] for name in classes]


def test_labelme_cells_fragments_and_the_zona_together(tmp_path: Path) -> None:
    """Cells overlap and stay apart; shapes of one group are one cell; a picture without fragments has none."""
    cells = [polygon("cell", BLOCKS["ICM"]), polygon("cell", BLOCKS["TE"])]
    parts = [polygon("cell", (slice(1, 3), slice(c, c + 3)), group_id=7) for c in (1, 10)]
    for name, shapes in {"a": [*cells, *parts, *RINGS[:2]], "b": [*cells, polygon("fragment", BLOCKS["ICM"])]}.items():
        save(tmp_path / f"{name}.png", GRAY)
        (tmp_path / f"{name}.json").write_text(labelme(shapes))
    a, b = (s.read() for s in found_in(tmp_path, ("fragment", "ZP")).samples)
    np.testing.assert_array_equal(a.cells[:2], STACK[:2])
    assert a.cells.sum((1, 2)).tolist()[2] == 2 * 6
    assert (a.known.tolist(), b.known.tolist()) == ([True, True], [True, False])
    assert (a.masks.any((1, 2)).tolist(), b.masks.any((1, 2)).tolist()) == ([False, True], [True, False])
    assert a.visible is None


def test_a_class_drawn_nowhere_is_unknown(tmp_path: Path) -> None:
    save(tmp_path / "a.png", GRAY)
    (tmp_path / "a.json").write_text(labelme([polygon("fragment", BLOCKS["ICM"])]))
    _, truth = only(tmp_path, ("fragment", "vacuole"))
    assert truth.known.tolist() == [True, False]


def test_labelme_rectangles_and_circles(tmp_path: Path) -> None:
    save(tmp_path / "a.png", GRAY)
    shapes = [
        {"label": "fragment", "shape_type": "rectangle", "points": [[5, 10], [14, 29]]},
        {"label": "cell", "shape_type": "circle", "points": [[25, 20], [25, 30]]},
    ]
    (tmp_path / "a.json").write_text(labelme(shapes))
    _, truth = only(tmp_path, ("fragment",))
    assert truth.masks.sum() == 20 * 10
    assert truth.cells.sum() == pytest.approx(np.pi * 10**2, rel=0.03)


def test_labelme_embedded_picture_only_without_a_file(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "x.png", GRAY[::-1])
    embedded = base64.b64encode((tmp_path / "elsewhere" / "x.png").read_bytes()).decode()
    (tmp_path / "a.json").write_text(labelme(NAMED, imageData=embedded))
    np.testing.assert_array_equal(only(tmp_path)[1].image, GRAY[::-1])
    save(tmp_path / "a.png", GRAY)
    np.testing.assert_array_equal(only(tmp_path)[1].image, GRAY)


@pytest.mark.parametrize("told", ["{outside}", "../outside.png", "..\\outside.png", "sub/../../outside.png"])
def test_labelme_does_not_follow_a_path_out_of_its_folder(tmp_path: Path, told: str) -> None:
    save(tmp_path / "outside.png", GRAY)
    save(tmp_path / "set" / "sub" / "there.png", GRAY)
    for name, path in {"good": "sub/there.png", "bad": told.format(outside=tmp_path / "outside.png")}.items():
        (tmp_path / "set" / f"{name}.json").write_text(labelme(NAMED, imagePath=path))
    found = found_in(tmp_path / "set")
    assert [s.name for s in found.samples] == ["good"]
    assert "no image of the same name" in found.skipped[0].reason
    save(tmp_path / "set" / "outside.png", GRAY[::-1])  # what such a path mostly means: the file was beside it once
    np.testing.assert_array_equal(found_in(tmp_path / "set").samples[0].read().image, GRAY[::-1])


# --- mask files -----------------------------------------------------------------------------------------------------


def saeedi(home: Path, upper: bool) -> None:
    folder, suffix = ("Images", ".BMP") if upper else ("images", ".bmp")
    save(home / folder / f"Blast_1 D5{suffix}", GRAY)
    for name, mask in MASKS.items():
        truth = f"GT_{name}" if upper else f"gt_{name.lower()}"
        save(home / truth / f"Blast_1 D5 {name}_Mask.bmp", (mask * 255).astype(np.uint8))


def beside(home: Path, _: bool) -> None:
    save(home / "b.png", GRAY)
    for name, mask in MASKS.items():
        save(home / f"b_{name}_Mask.png", (mask * 255).astype(np.uint8))


def mask_folders(home: Path, binary: bool) -> None:
    save(home / "images" / "c.png", GRAY)
    for name, mask in MASKS.items():
        save(home / "masks" / name / "c.tif", (mask * (1 if binary else 255)).astype(np.uint8))


def mask_endings(home: Path, with_mask: bool) -> None:
    save(home / "images" / "d.png", GRAY)
    for name, mask in MASKS.items():
        save(home / "masks" / f"d_{name}{'_mask' if with_mask else ''}.bmp", (mask * 255).astype(np.uint8))


@pytest.mark.parametrize("variant", [True, False])
@pytest.mark.parametrize("write", [saeedi, beside, mask_folders, mask_endings])
def test_one_mask_file_per_class(tmp_path: Path, write: Callable[[Path, bool], None], variant: bool) -> None:
    """Masks of different classes may overlap; other cases, separators and values mean the same."""
    write(tmp_path / "set", variant)
    sample, truth = only(tmp_path / "set")
    np.testing.assert_array_equal(truth.masks, STACK)
    np.testing.assert_array_equal(truth.image, GRAY)
    assert sample.source == "set"


@pytest.mark.parametrize("write", [saeedi, beside, mask_folders])
def test_a_missing_mask_is_unknown(tmp_path: Path, write: Callable[[Path, bool], None]) -> None:
    write(tmp_path, True)
    for path in [p for p in tmp_path.rglob("*") if p.is_file() and "TE" in str(p.relative_to(tmp_path))]:
        path.unlink()
    _, truth = only(tmp_path)
    assert truth.known.tolist() == [True, False, True]


def label_image() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    for i, name in enumerate(("ZP", "TE", "ICM")):
        labels[BLOCKS[name]] = 3 - i
    return labels


@pytest.mark.parametrize("palette", [False, True])
def test_a_label_image_per_picture(tmp_path: Path, palette: bool) -> None:
    """A palette's colors mean nothing: its indices are the labels."""
    save(tmp_path / "images" / "a.png", GRAY)
    picture = Image.fromarray(label_image())
    if palette:
        picture.putpalette([0, 0, 0, 200, 10, 10, 10, 200, 10, 200, 10, 200])
    (tmp_path / "masks").mkdir()
    picture.save(tmp_path / "masks" / "a.png")
    _, truth = only(tmp_path)
    np.testing.assert_array_equal(truth.masks, [label_image() == i for i in (1, 2, 3)])


def test_an_empty_mask_of_fragments_is_an_answer(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", GRAY)
    save(tmp_path / "masks" / "a.png", np.zeros(SHAPE, np.uint8))
    _, truth = only(tmp_path, ("fragment",))
    assert truth.known.tolist() == [True]


# --- COCO and KINS --------------------------------------------------------------------------------------------------


def flat(where: tuple[slice, slice]) -> list[list[float]]:
    """COCO's polygon of a block: its pixels' outer corners."""
    (top, bottom), (left, right) = ((s.start, s.stop) for s in where)
    return [[left, top, right, top, right, bottom, left, bottom]]


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask.ravel(order="F")))))
    return {"size": list(mask.shape), "counts": np.diff([0, *edges, mask.size]).tolist()}


HALF = (slice(12, 20), slice(10, 40))
WHOLE = {"segmentation": flat(BLOCKS["TE"])}
CELLS = {
    "polygons": ([{"segmentation": flat(BLOCKS["ICM"])}, WHOLE], False),
    "run lengths": ([{"segmentation": run_lengths(MASKS["ICM"])}, {"segmentation": run_lengths(MASKS["TE"])}], False),
    "visible": ([{"segmentation": flat(BLOCKS["ICM"])}, {**WHOLE, "visible_segmentation": flat(HALF)}], True),
    "kins": (
        [
            {"a_segm": flat(BLOCKS["ICM"]), "i_segm": flat(BLOCKS["ICM"]), "ico_id": 0},
            {"a_segm": flat(BLOCKS["TE"]), "i_segm": run_lengths(block(HALF)), "ico_id": 1},
        ],
        True,
    ),
    "kins, inmodal_seg": (
        [
            {"segmentation": flat(BLOCKS["ICM"]), "inmodal_seg": run_lengths(MASKS["ICM"])},
            {**WHOLE, "inmodal_seg": run_lengths(block(HALF))},
        ],
        True,
    ),
}


def write_coco(path: Path, annotations: list[dict[str, Any]], category: str = "cell", **about: Any) -> None:
    numbered = [{"id": i, "image_id": 1, "category_id": 4, "iscrowd": 0, **a} for i, a in enumerate(annotations)]
    image = {"id": 1, "file_name": "a.png", "height": SHAPE[0], "width": SHAPE[1], **about}
    content = {"images": [image], "annotations": numbered, "categories": [{"id": 4, "name": category}]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "place", [("a.json", "a.png"), ("annotations/a.json", "images/a.png"), ("a.json", "x/y/a.png")]
)
@pytest.mark.parametrize("kind", sorted(CELLS))
def test_coco_cells(tmp_path: Path, kind: str, place: tuple[str, str]) -> None:
    annotations, has_visible = CELLS[kind]
    write_coco(tmp_path / place[0], annotations, "car" if "kins" in kind else "cell", patient_id=17)
    save(tmp_path / place[1], GRAY)
    sample, truth = only(tmp_path, ("fragment",))
    np.testing.assert_array_equal(truth.cells, STACK[:2])
    assert truth.known.tolist() == [False]
    assert sample.embryo == "17"
    if has_visible:
        np.testing.assert_array_equal(truth.visible, [MASKS["ICM"], block(HALF)])
    else:
        assert truth.visible is None


KINS_FILES = {"train": "update_train_2020.json", "test": "update_test_2020.json"}
BOTH = ("000000", "000001")
IN_TESTING = ("000002",)
"""KITTI's testing pictures are a few more than the training ones."""


def write_kins(path: Path, names: tuple[str, ...], where: str = "ICM") -> None:
    images = [{"id": i, "file_name": f"{n}.png", "height": 40, "width": 50} for i, n in enumerate(names)]
    outline = {"a_segm": flat(BLOCKS[where]), "i_segm": run_lengths(MASKS[where]), "category_id": 4}
    drawn = [{"id": i, "image_id": i, "a_bbox": [5, 5, 15, 10], **outline} for i in range(len(names))]
    categories = [{"id": i, "name": name} for i, name in enumerate(("cyclist", "pedestrian", "rider", "tram", "car"))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": drawn, "categories": categories}))


def kins(home: Path, files: tuple[str, str] = (KINS_FILES["train"], KINS_FILES["test"])) -> Path:
    """As it is distributed: pictures of training are bright, its outlines ICM's; those of testing dark, and TE's."""
    for part, names, level in (("training", BOTH, 200), ("testing", BOTH + IN_TESTING, 50)):
        for name in names:
            save(home / part / "image_2" / f"{name}.png", np.full(SHAPE, level, np.uint8))
    write_kins(home / files[0], BOTH)
    write_kins(home / files[1], BOTH + IN_TESTING, "TE")
    return home


TOLD_APART = ["train_000000", "train_000001", "test_000000", "test_000001", "000002"]


def check_kins(found: Found) -> None:
    assert sorted(s.name for s in found.samples) == sorted(TOLD_APART)
    assert not found.skipped
    for sample in found.samples:
        where, level = ("ICM", 200) if sample.name.startswith("train") else ("TE", 50)
        truth = sample.read()
        np.testing.assert_array_equal(truth.cells, MASKS[where][None])
        assert (truth.image == level).all()
        assert sample.embryo == sample.name


@pytest.mark.parametrize("layout", ["auto", "kins"])
@pytest.mark.parametrize(
    "files",
    [
        tuple(KINS_FILES.values()),
        ("instances_train.json", "instances_val.json"),
        ("annotations/train2020.json", "annotations/Validation.json"),
    ],
)
def test_kins_as_it_is_distributed(tmp_path: Path, files: tuple[str, str], layout: str) -> None:
    home = kins(tmp_path / "KINS", files)
    check_kins(found_in(home, ("car",), layout))
    both = DataSettings(folders=tuple(str(home / name) for name in files), layout=layout)
    found = data.find_samples(both, ("car",))
    check_kins(found)
    assert [s.source for s in found.samples] == [Path(files[0]).name] * 2 + [Path(files[1]).name] * 3


def test_the_official_split_of_kins(tmp_path: Path) -> None:
    home, (learned, judged) = kins(tmp_path / "KINS"), KINS_FILES.values()
    folders = (str(home / learned), str(home / judged))
    settings = DataSettings(folders=folders, only_train=(learned,), only_validation=(judged,))
    found = data.find_samples(settings, ("car",))
    made = data.split(found.samples, settings)
    assert [[s.name for s in part] for part in made.parts.values()] == [TOLD_APART[:2], TOLD_APART[2:], []]
    assert data.report(found, made, (), settings).notes == ()


@pytest.mark.parametrize(
    ("others", "names"),
    [(["testing/a.png"], ["train_a", "test_a"]), (["training/3/a.png"], ["a"]), ([], ["a"])],
)
def test_kins_that_names_the_folders_of_its_pictures(tmp_path: Path, others: list[str], names: list[str]) -> None:
    for picture in ("training/a.png", *others):
        save(tmp_path / picture, GRAY)
    write_kins(tmp_path / "all.json", tuple(f"{name}/a" for name in ("training", "testing")[: len(names)]))
    assert [s.name for s in found_in(tmp_path, ("car",)).samples] == names


@pytest.mark.parametrize(
    ("file", "pictures", "name", "reason"),
    [
        ("kins.json", ("training/a.png", "testing/a.png"), "", "2 images below"),
        ("train.json", ("training/2/a.png", "training/3/a.png", "testing/2/a.png"), "", "3 images below"),
        ("train.json", ("left/a.png", "right/a.png"), "", "2 images below"),
        ("train.json", ("training/b.png", "testing/a.png"), "", "only in test, but is expected in train"),
        ("train_val.json", ("training/a.png", "testing/a.png"), "", "2 images below"),
        ("val.json", ("train/a.png", "val/a.png", "test/a.png"), "validation_a", ""),
        ("val.json", ("train/a.png", "test/a.png"), "test_a", ""),
        ("test.json", ("train/a.png", "val2017/a.png"), "validation_a", ""),
        ("train.json", ("training/b.png", "testing/a.png", "c/a.png"), "a", ""),
        ("val.json", ("training/a.png",), "a", ""),
        ("train.json", ("training/a.png", "a.png"), "a", ""),
    ],
)
def test_which_picture_a_part_of_kins_means(
    tmp_path: Path, file: str, pictures: tuple[str, ...], name: str, reason: str
) -> None:
    save(tmp_path / "good.png", GRAY)
    for picture in pictures:
        save(tmp_path / picture, GRAY)
    write_kins(tmp_path / file, ("good", "a"))
    found = found_in(tmp_path / file, ("car",))
    assert [s.name for s in found.samples] == ["good", *([name] if name else [])]
    assert [reason in each.reason for each in found.skipped] == ([] if name else [True])


def test_a_patient_in_both_parts_stays_one(tmp_path: Path) -> None:
    """Where a name is known to tell the patient, another part does not make it another one."""
    for part in ("train", "test"):
        save(tmp_path / part / "stork_32176207_0_2BB-.png", GRAY)
        write_kins(tmp_path / f"{part}.json", ("stork_32176207_0_2BB-",))
    samples = found_in(tmp_path, ("car",)).samples
    assert [s.name.split("_")[0] for s in samples] == ["test", "train"]
    assert {s.embryo for s in samples} == {"32176207"}


def test_plain_coco_names_the_folder(tmp_path: Path) -> None:
    for part in ("train", "test"):
        save(tmp_path / part / "a.png", GRAY)
    write_coco(tmp_path / "train.json", [WHOLE])
    with pytest.raises(ValueError, match="2 images below"):
        found_in(tmp_path, ("fragment",))


def test_coco_categories_named_as_classes_are_masks(tmp_path: Path) -> None:
    save(tmp_path / "a.png", GRAY)
    write_coco(tmp_path / "a.json", [{"segmentation": flat(BLOCKS["ICM"])}, WHOLE], "Fragment")
    _, truth = only(tmp_path, ("fragment", "vacuole"))
    np.testing.assert_array_equal(truth.masks[0], MASKS["ICM"] | MASKS["TE"])
    assert truth.known.tolist() == [True, False]
    assert len(truth.cells) == 0


# --- tables of grades -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["", "images"])
def test_grades_ratios_and_masks_of_a_table(tmp_path: Path, where: str) -> None:
    for name in "abc":
        save(tmp_path / where / f"{name}.png", GRAY)
    save(tmp_path / "m" / "c.png", (MASKS["ICM"] * 255).astype(np.uint8))
    rows = "a.png,b,,,P1\nb,,0.25,,P1\nc,A,0.1,m/c.png,\n"
    (tmp_path / "manifest.csv").write_text("﻿Image,Grade,Ratio,frag_mask,patient_id\n" + rows, encoding="utf-8")
    found = found_in(tmp_path, ("fragment",))
    truths = [s.read() for s in found.samples]
    assert [(t.grade, t.ratio, bool(t.known[0])) for t in truths] == [
        ("B", None, False),
        (None, 0.25, False),
        ("A", 0.1, True),
    ]
    assert [s.embryo for s in found.samples] == ["P1", "P1", "c"]
    np.testing.assert_array_equal(truths[2].masks[0], MASKS["ICM"])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a,E,", "grade is 'E'"),
        ("a,4AA,", "grade is '4AA'"),
        ("a,,12", "percentage"),
        ("a,,x", "'x'"),
        ("z,A,", "no image"),
    ],
)
def test_what_is_no_grade_is_told(tmp_path: Path, row: str, reason: str) -> None:
    save(tmp_path / "a.png", GRAY)
    save(tmp_path / "good.png", GRAY)
    (tmp_path / "t.csv").write_text(f"image,grade,ratio\ngood,A,\n{row}\n")
    (skipped,) = found_in(tmp_path, ("fragment",)).skipped
    assert reason in skipped.reason


@pytest.mark.parametrize("told", ["{outside}", "../outside.png", "m/../../outside.png"])
def test_a_table_does_not_name_masks_outside_its_folder(tmp_path: Path, told: str) -> None:
    save(tmp_path / "outside.png", (MASKS["ICM"] * 255).astype(np.uint8))
    save(tmp_path / "set" / "a.png", GRAY)
    save(tmp_path / "set" / "b.png", GRAY)
    (tmp_path / "set" / "t.csv").write_text(
        f"image,grade,frag_mask\na,A,\nb,B,{told.format(outside=tmp_path / 'outside.png')}\n"
    )
    found = found_in(tmp_path / "set", ("fragment",))
    assert [s.name for s in found.samples] == ["a"]
    assert "leads out of" in found.skipped[0].reason


def test_a_table_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "grades.csv").write_text("name,gardner_grade\na,4AA\n")
    with pytest.raises(ValueError, match=r"name, gardner_grade, but needs image.*Gardner"):
        found_in(tmp_path, ("fragment",), "grades")


# --- damaged things -------------------------------------------------------------------------------------------------


SHAPES = {
    "outside": [*NAMED, polygon("ICM", (slice(60, 70), slice(60, 70)))],
    "empty": [],
    "a line": [{"label": "ICM", "shape_type": "line", "points": [[1, 1], [2, 2]]}],
    "two points": [{"label": "ICM", "points": [[1, 1], [2, 2]]}],
    "other classes": [polygon("dirt", BLOCKS["ICM"])],
}


def write_picture(kind: str, path: Path) -> None:
    match kind:
        case "cut image":
            save(path, GRAY)
            path.write_bytes(path.read_bytes()[:200])
        case "other size":
            save(path, GRAY[:30])
        case "stack":
            Image.fromarray(GRAY).save(path.with_suffix(".tif"), save_all=True, append_images=[Image.fromarray(GRAY)])
        case "NaN":
            save(path.with_suffix(".tif"), np.full(SHAPE, np.nan, np.float32))
        case _:
            save(path, GRAY)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("no image", "no image of the same name"),
        ("cut image", "bad.png"),
        ("other size", "made for 40 x 50 pixels, but the image has 30 x 50"),
        ("stack", "a stack (T2 x Y40 x X50)"),
        ("NaN", "NaN or infinite"),
        ("outside", "ICM lies outside the image"),
        ("empty", "no shape is drawn"),
        ("a line", "ICM is a line"),
        ("two points", "2 points for a polygon"),
        ("other classes", "not used: 'dirt'"),
        ("not JSON", "not a LabelMe file"),
    ],
)
def test_a_bad_picture_is_told_and_the_others_go_on(tmp_path: Path, kind: str, reason: str) -> None:
    save(tmp_path / "good.png", GRAY)
    (tmp_path / "good.json").write_text(labelme(NAMED))
    if kind != "no image":
        write_picture(kind, tmp_path / "bad.png")
    (tmp_path / "bad.json").write_text("{" if kind == "not JSON" else labelme(SHAPES.get(kind, NAMED)))
    found = found_in(tmp_path)
    assert [s.name for s in found.samples] == ["good"]
    (skipped,) = found.skipped
    assert reason in skipped.reason
    assert skipped.name.endswith("/bad")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"segmentation": {"size": [3, 3], "counts": [9]}}, "run lengths for 3 x 3 pixels"),
        ({"segmentation": [[1, 2, 3]]}, "fewer than three corners"),
        ({"segmentation": 5}, "neither polygons nor run lengths"),
        ({}, "neither polygons nor run lengths"),
    ],
)
def test_a_bad_coco_outline_is_told(tmp_path: Path, content: dict[str, Any], reason: str) -> None:
    save(tmp_path / "a.png", GRAY)
    write_coco(tmp_path / "a.json", [content])
    with pytest.raises(ValueError, match=reason):
        found_in(tmp_path)


def test_masks_of_another_size_and_strange_labels_are_told(tmp_path: Path) -> None:
    for name in "abcd":
        save(tmp_path / "images" / f"{name}.png", GRAY)
    save(tmp_path / "images" / "d.bmp", GRAY)
    for name, labels in (
        ("a", label_image()),
        ("b", label_image()[:30]),
        ("c", label_image() + 7),
        ("d", label_image()),
    ):
        save(tmp_path / "masks" / f"{name}.png", labels)
    found = found_in(tmp_path)
    assert [s.name for s in found.samples] == ["a"]
    assert [s.name.rsplit("/")[-1] for s in found.skipped] == ["b", "c", "d"]
    for skipped, reason in zip(
        found.skipped, ("30 x 50", "label 7, 8, 9, 10, but", "2 images in images/"), strict=True
    ):
        assert reason in skipped.reason


# --- the real ones --------------------------------------------------------------------------------------------------


def test_the_annotated_blastocysts(data_dir: Path) -> None:
    found = found_in(data_dir / "blastocyst")
    counts = {source: sum(s.source == source for s in found.samples) for source in ("annotated", "expert", "incubator")}
    assert counts == {"annotated": 80, "expert": 1, "incubator": 22}
    assert not found.skipped
    for truth in (sample.read() for sample in found.samples[::8]):
        assert truth.known[2]
        assert 0.01 < truth.masks[2].mean() < 0.45


@pytest.mark.parametrize(("folder", "images", "cells"), [("cleavage", 236, 1138), ("overlap", 45, 270)])
def test_the_annotated_cells(data_dir: Path, folder: str, images: int, cells: int) -> None:
    found = found_in(data_dir / folder, ("fragment",))
    assert len(found.samples) == images
    assert sum(contents.cells for contents in found.contents.values()) == cells


def test_the_annotated_cells_as_what_is_learned(data_dir: Path) -> None:
    """Cells of LabelMe polygons and of COCO, and masks of all of them together."""
    found = found_in(data_dir / "cleavage" / "expert", ("cell",))
    assert sorted(contents.cells for contents in found.contents.values()) == [2, 4]
    for truth in (sample.read() for sample in found.samples):
        np.testing.assert_array_equal(truth.masks[0], truth.cells.any(0))
