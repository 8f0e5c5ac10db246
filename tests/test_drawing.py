"""Folders of drawn embryos: what is read back is what was drawn."""

import json
from pathlib import Path

import numpy as np
import pytest

from napari_embryo import data, drawing
from napari_embryo.families import BLASTOCYST_CLASSES, FRAGMENT_CLASSES
from napari_embryo.settings import DataSettings
from napari_embryo.synthetic import draw_blastocyst, draw_cleavage

SHAPE = (96, 112)


def samples(folder: Path, classes: tuple[str, ...]) -> dict[str, data.Truth]:
    found = data.find_samples(DataSettings(folders=(str(folder),)), classes)
    assert not found.skipped
    return {sample.name: sample.read() for sample in found.samples}


def test_cleavage_stage_embryos_come_back_whole(tmp_path: Path) -> None:
    drawing.draw_cleavages(tmp_path, 3, SHAPE, seed=4, fragmentation=(0.0, 0.6))
    read = samples(tmp_path, FRAGMENT_CLASSES)
    for i, (share, style) in enumerate(((0.0, "incubator"), (0.3, "microscope"), (0.6, "incubator"))):
        drawn = draw_cleavage(4 + i, None, share, SHAPE, style)
        truth = read[f"drawn{4 + i}"]
        assert truth.known.all()
        np.testing.assert_array_equal(truth.image, drawn.image)
        np.testing.assert_array_equal(truth.cells, drawn.cells)
        np.testing.assert_array_equal(truth.masks, np.stack((drawn.fragments, drawn.masks["embryo"])))
    content = json.loads((tmp_path / "annotations.json").read_text())
    told = [image["fragmentation_ratio"] for image in content["images"]]
    found = data.find_samples(DataSettings(folders=(str(tmp_path),)), FRAGMENT_CLASSES)
    assert told == pytest.approx([each.ratio for each in found.contents.values()])
    assert told[0] == 0 < told[1] < told[2]


def test_cocos_own_code_reads_the_same(tmp_path: Path) -> None:
    coco_mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    drawing.draw_cleavages(tmp_path, 2, SHAPE, fragmentation=(0.2, 0.4))
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert [a["id"] for a in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    for annotation in content["annotations"]:
        packed = coco_mask.frPyObjects(annotation["segmentation"], *SHAPE)
        assert coco_mask.area(packed) == annotation["area"]
        assert list(coco_mask.toBbox(packed)) == annotation["bbox"]


def test_blastocysts_come_back_whole(tmp_path: Path) -> None:
    drawing.draw_blastocysts(tmp_path, 2, SHAPE, seed=7, styles=("microscope", "incubator"))
    for name, truth in samples(tmp_path, BLASTOCYST_CLASSES).items():
        seed = int(name.removeprefix("drawn"))
        drawn = draw_blastocyst(seed, SHAPE, ("microscope", "incubator")[seed - 7])
        np.testing.assert_array_equal(truth.masks, drawn.stack(BLASTOCYST_CLASSES))
        np.testing.assert_array_equal(truth.image, drawn.image)
