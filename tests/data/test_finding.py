"""Which folders are read, whose pictures they are, what the report says, and what it takes."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_embryo import data
from napari_embryo.data import Sample
from napari_embryo.data.labels import are_cells
from napari_embryo.data.layouts import layout_doubts
from napari_embryo.families import BLASTOCYST_CLASSES
from napari_embryo.settings import DataSettings

CLASSES = ("fragment",)
PARTS = ("train", "test")


def fill_folder(folder: Path, names: list[str]) -> Path:
    """Pictures with LabelMe files; every second one has a cell."""
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        Image.fromarray(np.full((20, 30), 90 + i, np.uint8)).save(folder / f"{name}.png")
        shapes = [{"label": "fragment", "points": [[2, 2], [12, 2], [12, 12]]}]
        shapes += [{"label": "cell", "points": [[5, 5], [15, 5], [15, 15]]}] * (i % 2)
        (folder / f"{name}.json").write_text(json.dumps({"shapes": shapes}))
    return folder


def find(*folders: Path, **changes: Any) -> data.Found:
    return data.find_samples(DataSettings(folders=tuple(map(str, folders)), **changes), CLASSES)


@pytest.mark.parametrize(
    ("name", "embryo"),
    [
        ("Blast_PCRM_R13-0140b", "R13-0140"),
        ("R13-0140A", "R13-0140"),
        ("R13-0140B", "R13-0140"),
        ("R13-0232", "R13-0232"),
        ("Blast_PCRM_T16-0325B", "T16-0325"),
        ("stork_32176207_0_2BB-", "32176207"),
        ("stork_32898300_0_1B-B-", "32898300"),
        ("Blast_PCRM_d5.12", "d5.12"),
        ("Blast_PCRM_d5.2_right", "d5.2"),
        ("D2013.01.28_S0717_I132_WELL7_RUN93", "S0717_I132_WELL7"),
        ("D2013.01.30_S0717_I132_WELL7_RUN141", "S0717_I132_WELL7"),
        ("seq_AA83-7_105", "AA83-7"),
        ("stageB_01349", "stageB_01349"),
        ("32176207_0_2BB-", "32176207"),
        ("32898300_-45_1B-B-", "32898300"),
        ("32176207", "32176207"),
        ("Blast_PCRM_1202041_D5", "1202041"),
        ("Blast_PCRM_1202041 D5", "1202041"),
        ("R13-0140b_t0003", "R13-0140"),
        ("r13-0140b", "R13-0140"),
        ("R13-0140b [1]", "R13-0140"),
        ("AR12-33b", "AR12-33b"),
        ("Blast_PCRM_2_x_2AB_d5_left", "2_x_2AB_d5"),
        ("Blast_PCRM_2_x_2AB_d5_right", "2_x_2AB_d5"),
        ("emb1_d5.1", "emb1_d5.1"),
        ("emb2_d5.1", "emb2_d5.1"),
        ("icip_microscope_2cells", "icip_microscope_2cells"),
        ("my embryo 3", "my_embryo_3"),
        ("my_embryo_3 [2]", "my_embryo_3"),
    ],
)
def test_whose_picture_it_is(name: str, embryo: str) -> None:
    assert data.embryo_of(name) == embryo


def test_a_table_goes_before_a_pattern_and_a_pattern_before_the_known_names(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path / "a", ["P1_x", "P1_y", "P2_x", "R13-0140b"])
    table = tmp_path / "whose.csv"
    table.write_text("image,embryo\nP2_x.png,P1\n")
    found = find(folder, embryo_pattern=r"^(?P<embryo>P\d)", embryo_table=str(table))
    assert [s.embryo for s in found.samples] == ["P1", "P1", "P1", "R13-0140"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embryo_pattern": "("}, r"embryo_pattern '\('.*group named 'embryo'"),
        ({"embryo_pattern": "(.*)"}, "no group 'embryo'"),
        ({"embryo_pattern": "(?P<embryo>Q+)"}, "matches no image, such as 'a1'"),
        ({"embryo_table": "no.csv"}, "no such embryo table"),
        ({"embryo_table": "wrong.csv"}, "its columns are nr, patient"),
        ({"embryo_table": "others.csv"}, "names none of the images"),
    ],
)
def test_embryos_that_cannot_be_told_are_refused(
    tmp_path: Path, changes: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.csv").write_text("nr,patient\na1,x\n")
    Path("others.csv").write_text("image,embryo\nz,x\n")
    fill_folder(tmp_path / "a", ["a1"])
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find(tmp_path / "a", **changes)


def test_sources_are_told_apart_and_a_folder_counts_once(tmp_path: Path) -> None:
    one, two = fill_folder(tmp_path / "x" / "train", ["a"]), fill_folder(tmp_path / "y" / "train", ["a"])
    other = fill_folder(tmp_path / "other", ["b"])
    found = find(one, two, other, tmp_path / "x" / ".." / "x" / "train")
    assert [s.source for s in found.samples] == ["x/train", "y/train", "other"]


@pytest.mark.parametrize(
    ("files", "sources"),
    [
        (["x/train.csv"], ["x"]),
        (["x/train.csv", "x/test.csv"], ["train.csv", "test.csv"]),
        (["x/train.csv", "x"], ["x", "x"]),
        (["x/train.csv", "x/test.csv", "y/train.csv"], ["train.csv", "test.csv", "y"]),
        (["x/train.csv", "x/test.csv", "y/train.csv", "y/test.csv"], [f"{p}/{n}.csv" for p in "xy" for n in PARTS]),
    ],
)
def test_files_of_one_folder_go_by_their_own_names(tmp_path: Path, files: list[str], sources: list[str]) -> None:
    for folder in (tmp_path / "x", tmp_path / "y"):
        folder.mkdir()
        Image.fromarray(np.full((20, 30), 90, np.uint8)).save(folder / "a.png")
        for name in PARTS if any((tmp_path / file).parent == folder for file in files) else ():
            (folder / f"{name}.csv").write_text("image,grade\na,A\n")
    found = find(*(tmp_path / file for file in files))
    assert [s.source for s in found.samples] == sources


def test_a_folder_of_annotated_folders(tmp_path: Path) -> None:
    fill_folder(tmp_path / "all" / "one", ["a"])
    fill_folder(tmp_path / "all" / "two", ["b"])
    (tmp_path / "all" / "notes").mkdir()
    assert [s.source for s in find(tmp_path / "all").samples] == ["one", "two"]


def coco_file(names: list[str], **more: Any) -> str:
    images = [{"id": i, "file_name": f"{name}.png", "height": 20, "width": 30} for i, name in enumerate(names)]
    return json.dumps({"images": images, "annotations": [], "categories": [], **more})


@pytest.mark.parametrize(
    ("files", "layout", "says"),
    [
        ({}, "auto", ""),
        (
            {"c.json": coco_file(["a"])},
            "auto",
            "labelme and coco; it is read as labelme; set layout: coco (--layout coco)",
        ),
        ({"c.json": coco_file(["a"])}, "labelme", ""),
        (
            {"c.json": coco_file(["a"]), "t.csv": "image,grade\na,A\n"},
            "auto",
            "labelme, coco and grades; it is read as labelme; set layout: coco or grades (--layout coco)",
        ),
    ],
)
def test_a_folder_that_could_be_read_in_another_way_too(
    tmp_path: Path, files: dict[str, str], layout: str, says: str
) -> None:
    folder = fill_folder(tmp_path / "all" / "a", ["a"])
    for name, content in files.items():
        (folder / name).write_text(content)
    for asked in (folder, folder.parent):
        told = layout_doubts(DataSettings(folders=(str(asked),), layout=layout), CLASSES)
        assert told == ((f"{folder} looks like {says} to change that",) if says else ())


def test_kins_is_no_doubtful_coco(tmp_path: Path) -> None:
    kins = coco_file(["a"], annotations=[{"image_id": 0, "category_id": 1, "a_segm": [], "i_segm": []}])
    (tmp_path / "k.json").write_text(kins)
    for asked in (tmp_path, tmp_path / "k.json"):
        assert layout_doubts(DataSettings(folders=(str(asked),)), CLASSES) == ()


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ((), "no folder of annotated images was given"),
        (("nowhere",), "no such folder"),
        (("empty",), r"no annotated images were recognized(.|\n)*LabelMe(.|\n)*COCO(.|\n)*CSV"),
    ],
)
def test_nothing_to_read_is_said(tmp_path: Path, folders: tuple[str, ...], message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find(*(tmp_path / name for name in folders))


def test_nothing_usable_names_the_folder_and_the_first_reasons(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path / "clinic", [f"e{i}" for i in range(8)])
    for path in folder.glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"clinic: no image there can be used(.|\n)*e0(.|\n)*e4(.|\n)*and 3 more"):
        find(folder)
    with pytest.raises(ValueError, match=r"clinic: no image.*samples saved from napari"):
        find(folder, layout="napari")


def test_a_folder_of_grades_alone_teaches_no_tissue(tmp_path: Path) -> None:
    """A picture with an unknown truth is no picture to learn masks from; one with a mask beside it stays."""
    for name in "ab":
        Image.fromarray(np.full((20, 30), 90, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "t.csv").write_text("image,grade,icm_mask\na,A,\nb,B,\n")
    settings = DataSettings(folders=(str(tmp_path),))
    with pytest.raises(ValueError, match=r"no image there can be used(.|\n)*none of ICM, TE, ZP is drawn on it"):
        data.find_samples(settings, BLASTOCYST_CLASSES)
    Image.fromarray(np.full((20, 30), 255, np.uint8)).save(tmp_path / "drawn.tif")
    (tmp_path / "t.csv").write_text("image,grade,icm_mask\na,A,\nb,B,drawn.tif\n")
    assert [s.name for s in data.find_samples(settings, BLASTOCYST_CLASSES).samples] == ["b"]
    assert len(data.find_samples(settings, CLASSES).samples) == 2


def test_a_sample_is_read_in_another_process_and_from_memory(tmp_path: Path) -> None:
    (sample,) = find(fill_folder(tmp_path / "a", ["a1"])).samples
    light = pickle.dumps(sample)
    assert len(light) < 2000
    np.testing.assert_array_equal(pickle.loads(light).read().masks, sample.read().masks)
    truth = sample.read()
    kept = Sample.of("m", truth.image, truth.masks, cells=truth.masks)
    assert (kept.embryo, kept.source, kept.read().known.tolist(), kept.read().box) == ("m", "memory", [True], truth.box)


@pytest.mark.parametrize("field", ["masks", "cells", "visible", "known"])
def test_arrays_that_do_not_fit_the_picture_are_refused(field: str) -> None:
    image, masks = np.zeros((6, 7), np.uint8), np.zeros((1, 6, 7), bool)
    wrong = {"masks": masks[:, :5], "cells": masks[:, :5], "visible": masks, "known": np.ones(3, bool)}
    with pytest.raises(ValueError, match=field if field != "visible" else "1 visible parts for 0 cells"):
        Sample.of("a", image, **{"masks": masks, field: wrong[field]})


def test_the_box_of_nothing_is_the_whole_picture() -> None:
    sample = Sample.of("a", np.zeros((6, 7), np.uint8), np.zeros((1, 6, 7), bool))
    assert sample.read().box == (0, 0, 6, 7)


def test_the_report_counts_what_lies_there(tmp_path: Path) -> None:
    many = fill_folder(tmp_path / "many", [f"e{i}" for i in range(10)])
    single = fill_folder(tmp_path / "single", ["only"])
    (many / "e3.json").write_text("{")
    (many / "e4.json").unlink()
    found = find(many, single)
    made = data.split(found.samples, DataSettings(validation=0.25))
    told = data.report(found, made, CLASSES)
    rows = {(row["source"], row["part"]): row for row in told.rows}
    assert [rows["many", part]["images"] for part in ("train", "validation")] == [6, 2]
    assert rows["all", "train"]["known fragment"] + rows["all", "validation"]["known fragment"] == 9
    assert sum(rows["all", part]["cells"] for part in ("train", "validation")) == 4
    text = told.text()
    for part in (
        "single: too few embryos; none of them in validation",
        "Skipped: 2",
        "many/e4",
        "no LabelMe",
    ):
        assert part in text
    assert "graded" not in text


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ({}, ["b: too few embryos; none of them in validation."]),
        ({"only_train": ("b",)}, []),
        (
            {"only_validation": ("c",), "validation": 0},
            ["b: 1 embryo also in c; in validation, not used for training."],
        ),
        (
            {"only_validation": ("c",), "only_train": ("b",), "validation": 0},
            ["b: 1 embryo also in c; left out, not used for training."],
        ),
    ],
)
def test_the_report_tells_what_is_not_as_asked_for(tmp_path: Path, changes: dict[str, Any], notes: list[str]) -> None:
    names = {"a": ["e1", "e2", "e3"], "b": ["R13-0140a"], "c": ["R13-0140b", "f1", "f2"]}
    folders = [fill_folder(tmp_path / source, stems) for source, stems in names.items()]
    settings = DataSettings(folders=tuple(map(str, folders)), **changes)
    found = data.find_samples(settings, CLASSES)
    told = data.report(found, data.split(found.samples, settings), CLASSES, settings)
    assert list(told.notes) == notes


@pytest.mark.parametrize(
    ("classes", "cells"),
    [
        (("cell",), True), (("Blastomere",), True), (("fragment", "embryo"), False), (("cell", "fragment"), False),
        (BLASTOCYST_CLASSES, False), ((), False),
    ],
)  # fmt: skip
def test_classes_that_are_single_cells(classes: tuple[str, ...], cells: bool) -> None:
    assert are_cells(classes) == cells


@pytest.mark.parametrize(
    ("classes", "cells", "names"),
    [
        (("cell",), None, ["e1", "e3"]),
        (("car",), True, ["e1", "e3"]),
        (("fragment",), None, ["e0", "e1", "e2", "e3"]),
        (("fragment",), True, ["e1", "e3"]),
    ],
)
def test_where_cells_are_learned_pictures_without_any_are_left_out(
    tmp_path: Path, classes: tuple[str, ...], cells: bool | None, names: list[str]
) -> None:
    folder = fill_folder(tmp_path / "a", [f"e{i}" for i in range(4)])
    (folder / "table.csv").write_text("image,grade\ne0,A\n")
    found = data.find_samples(DataSettings(folders=(str(folder),), layout="labelme"), classes, cells=cells)
    assert [sample.name for sample in found.samples] == names
    assert {each.reason for each in found.skipped} == ({"no cell is drawn on it"} if len(names) == 2 else set())
    if len(names) == 2:
        told = data.report(found, data.split(found.samples, DataSettings(validation=0.5)), ())
        assert [row["cells"] for row in told.rows] == [1, 1]
        assert "known" not in told.text()
        with pytest.raises(ValueError, match="no cell is drawn on it"):
            data.find_samples(DataSettings(folders=(str(folder),), layout="grades"), classes, cells=True)


def test_preparing_needs_no_torch(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path / "a", ["a1", "a2"])
    code = (
        "import sys; from napari_embryo import data; from napari_embryo.settings import DataSettings\n"
        f"s = DataSettings(folders=({str(folder)!r},)); found = data.find_samples(s, ('fragment',))\n"
        "data.report(found, data.split(found.samples, s), ('fragment',)).text()\n"
        "print({'torch', 'torchvision', 'napari', 'qtpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
