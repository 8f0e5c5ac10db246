"""Files made to exhaust memory or time are refused, or read within seconds."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_embryo import data
from napari_embryo.data import rle
from napari_embryo.settings import DataSettings

SHAPE = (120, 160)


@pytest.fixture(autouse=True)
def _within_seconds() -> Iterator[None]:
    began = time.process_time()
    yield
    assert time.process_time() - began < 15


def picture(folder: Path, shape: tuple[int, int] = SHAPE) -> None:
    Image.fromarray(np.full(shape, 90, np.uint8)).save(folder / "a.png")


def refusal(folder: Path) -> str:
    with pytest.raises(ValueError, match="a") as refused:
        data.find_samples(DataSettings(folders=(str(folder),)), ("cell",))
    return str(refused.value)


def test_a_deep_file_is_no_annotation(tmp_path: Path) -> None:
    picture(tmp_path)
    (tmp_path / "a.json").write_text("[" * 1_000_000)
    (tmp_path / "b.json").write_text('{"shapes": ' + "[" * 1_000_000)
    assert "no annotated images were recognized" in refusal(tmp_path)


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    picture(tmp_path)
    (tmp_path / "a.json").write_text('{"shapes": [' + "[]," * 15_000_000 + "[]]}")
    with pytest.raises(ValueError, match="no image there can be used") as refused:
        data.find_samples(DataSettings(folders=(str(tmp_path),), layout="labelme"), ("cell",))
    assert "more than the 1 GB allowed" in str(refused.value)


def labelme(folder: Path, points: list[Any], count: int, label: str = "cell") -> None:
    one = json.dumps({"label": label, "points": points, "shape_type": "polygon"})
    (folder / "a.json").write_text('{"imagePath": "a.png", "shapes": [' + ",".join([one] * count) + "]}")


def test_twenty_thousand_outlines_are_refused(tmp_path: Path) -> None:
    picture(tmp_path, (2000, 2000))
    labelme(tmp_path, [[5, 5], [1990, 5], [1990, 1990], [5, 1990]], 20_000)
    assert "20000 outlines cover 7.9e+10 pixels" in refusal(tmp_path)
    labelme(tmp_path, [[5, 5], [9, 5], [9, 9]], 20_000)
    assert "20000 cells are drawn" in refusal(tmp_path)


def test_twenty_thousand_small_fragments_are_read(tmp_path: Path) -> None:
    picture(tmp_path, (2000, 2000))
    labelme(tmp_path, [[5, 5], [9, 5], [9, 9], [5, 9]], 20_000, "fragment")
    (contents,) = data.find_samples(DataSettings(folders=(str(tmp_path),)), ("fragment",)).contents.values()
    assert contents.known == (True,)


def test_an_outline_of_a_million_points_is_refused(tmp_path: Path) -> None:
    picture(tmp_path)
    zigzag = [[i % 160, 119 * (i % 2)] for i in range(200_000)]
    labelme(tmp_path, zigzag, 1)
    assert "200000 points" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("counts", "size", "reason"),
    [
        ([1] * 3_000_000, [120, 160], "3000000 run lengths or characters"),
        ("1" * 5_000_000, [120, 160], "5000000 run lengths or characters"),
        ([10**18], [10**9, 10**9], "1000000000 x 1000000000"),
        ([2**63], [120, 160], "neither polygons nor run lengths"),
        ("o" * 100_000 + "0", [120, 160], "too many characters"),
        ([1e30], [120, 160], "run lengths"),
    ],
)
def test_megabytes_of_run_lengths_are_refused(tmp_path: Path, counts: Any, size: list[int], reason: str) -> None:
    picture(tmp_path)
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{"image_id": 1, "category_id": 1, "segmentation": {"counts": counts, "size": size}}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert reason in refusal(tmp_path)


def test_a_large_mask_of_many_runs_is_read() -> None:
    mask = np.indices((2000, 1000)).sum(0) % 2 == 1
    np.testing.assert_array_equal(rle.decode(rle.compress(rle.encode(mask)), mask.shape), mask)
