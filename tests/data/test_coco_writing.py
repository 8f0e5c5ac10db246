"""Outlines of cells: whoever fills them gets the mask back, whatever its shape."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from napari_embryo import data, io
from napari_embryo.data import coco, coco_writer, rle
from napari_embryo.data.coco_writer import annotation, outlines
from napari_embryo.settings import DataSettings
from napari_embryo.synthetic import draw_cleavage

MASKS = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14).flatmap(lambda shape: arrays(bool, shape))


def blob(seed: int) -> np.ndarray:
    """A smooth shape with bays, islands and holes."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(60, 70)), 4)
    mask: np.ndarray = noise > np.quantile(noise, 0.5)
    return mask


@given(MASKS.filter(np.any))
def test_any_mask_is_read_back_exactly(mask: np.ndarray) -> None:
    """Also with holes, islands within holes, and parts that touch at a corner."""
    np.testing.assert_array_equal(coco.segment(outlines(mask), mask.shape), mask)


@pytest.mark.parametrize("seed", range(6))
def test_cocos_own_code_fills_them_alike(seed: int) -> None:
    """It rounds corners to a fifth of a pixel, so that a few pixels of the rim may differ."""
    official = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    mask = blob(seed)
    theirs = official.decode(official.merge(official.frPyObjects(outlines(mask), *mask.shape))).astype(bool)
    assert (theirs & mask).sum() / (theirs | mask).sum() > 0.97
    np.testing.assert_array_equal(coco.segment(outlines(mask), mask.shape), mask)


def test_a_square_has_the_corners_of_its_pixels_cut() -> None:
    """Half a pixel off each, so that an annotator sees eight points, not one for every pixel."""
    mask = np.zeros((9, 9), bool)
    mask[2:7, 3:8] = True
    (ring,) = outlines(mask)
    points = {(x, y) for x, y in np.reshape(ring, (-1, 2))}
    expected = {(3.0, 2.5), (3.5, 2.0), (7.5, 2.0), (8.0, 2.5), (8.0, 6.5), (7.5, 7.0), (3.5, 7.0), (3.0, 6.5)}
    assert points == expected


def test_an_empty_mask_has_no_outline() -> None:
    assert outlines(np.zeros((5, 5), bool)) == []


@given(MASKS.filter(np.any))
def test_an_annotation_says_box_area_and_run_lengths(mask: np.ndarray) -> None:
    one = annotation(3, 2, mask, score=0.5)
    ys, xs = np.nonzero(mask)
    left, top, width, height = one["bbox"]
    assert (left, top, left + width, top + height) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert (one["id"], one["image_id"], one["area"], one["score"]) == (3, 2, mask.sum(), 0.5)
    np.testing.assert_array_equal(rle.decode(one["rle"]["counts"], mask.shape), mask)
    assert json.loads(json.dumps(one)) == one


def test_what_is_written_is_learned_from(tmp_path: Path) -> None:
    """By our own reader, as any other annotated folder; a second picture without cells is skipped by its name."""
    embryo = draw_cleavage(1, 4, shape=(96, 112))
    for name in "ab":
        io.write_png(tmp_path / f"{name}.png", embryo.image)
    images = [{"id": i + 1, "file_name": f"{name}.png", "height": 96, "width": 112} for i, name in enumerate("ab")]
    drawn = [annotation(i + 1, 1, mask, score=0.9) for i, mask in enumerate(embryo.cells)]
    coco_writer.write(tmp_path / "a_cells.json", images, iter(drawn), info={"weights": "mine"})
    found = data.find_samples(DataSettings(folders=(str(tmp_path),)), ("cell",))
    (sample,) = found.samples
    assert (sample.name, [each.name for each in found.skipped]) == ("a", [f"{tmp_path.name}/b"])
    np.testing.assert_array_equal(sample.read().cells, embryo.cells)
    assert json.loads((tmp_path / "a_cells.json").read_text())["info"] == {"weights": "mine"}


@pytest.mark.parametrize(("index", "says"), [([1], None), ([2], "the file has"), ([0, 0], "the file has")])
def test_a_picture_of_a_stack_is_found_by_its_place(tmp_path: Path, index: list[int], says: str | None) -> None:
    frames = np.stack([draw_cleavage(seed, 2, shape=(64, 64)).image for seed in range(2)])
    io.write_ome_tiff(tmp_path / "film.tif", frames, "TYX")
    image = {"id": 1, "file_name": "film.tif", "height": 64, "width": 64, "index": index, "embryo": "E7"}
    mask = np.zeros((64, 64), bool)
    mask[10:20, 10:30] = True
    coco_writer.write(tmp_path / "c.json", [image], [annotation(1, 1, mask)])
    (entry,) = coco.entries(tmp_path, ("cell",))
    if says:
        with pytest.raises(ValueError, match=says):
            entry.load()
        return
    truth = entry.load()
    assert (entry.name, entry.embryo) == ("film_1", "E7")
    np.testing.assert_array_equal(truth.image, frames[1])
    np.testing.assert_array_equal(truth.cells, mask[None])
