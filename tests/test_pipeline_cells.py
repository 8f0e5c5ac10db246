"""Single cells from the picture to the files: complete masks, identities, COCO, the table.

The network is a fake that is told the answer by the picture: bit i of a gray value says whether cell i lies there.
"""

import csv
import gc
import json
import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import numpy as np
import pytest
import tifffile
import torch
from click.testing import Result
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from napari_embryo import cli, data, evaluate, io, models, pipeline
from napari_embryo.batch import work
from napari_embryo.data import coco, coco_writer, rle
from napari_embryo.families import VQAmodalSettings
from napari_embryo.geometry import GRAY_MEAN, GRAY_STD, Geometry
from napari_embryo.image import Cells, EmbryoImage
from napari_embryo.models import checkpoint
from napari_embryo.models.checkpoint import Checkpoint, CheckpointInfo
from napari_embryo.pipeline import segment_to_files
from napari_embryo.predict import Predictor
from napari_embryo.settings import DataSettings, Preprocessing, SegmentSettings

HW = (64, 96)
STEP = 16
SCORES = (0.95, 0.9, 0.8, 0.7)
MADE_UP_OF = ("film_attention.ome.tif", "film_cells.json", "film_cells.ome.tif", "film_overlay.png")


def disc(y: float, x: float, r: float) -> np.ndarray:
    ys, xs = np.mgrid[: HW[0], : HW[1]]
    return np.hypot(ys - y, xs - x) <= r


LEFT, MIDDLE, RIGHT = disc(30, 28, 15), disc(32, 46, 14), disc(30, 64, 12)
FAR = disc(8, 88, 4)
HALVES = (disc(30, 21, 12), disc(30, 35, 12))


def picture(*cells: np.ndarray) -> np.ndarray:
    """Bit i is cell i; a black and a white corner keep the gray values what they are."""
    gray = sum((STEP << i) * cell.astype(np.uint8) for i, cell in enumerate(cells)) + np.zeros(HW, np.uint8)
    gray[0, 0], gray[0, 1] = 0, 255
    return gray.astype(np.uint8)


class Told(nn.Module):
    """Hands the picture on, and an occlusion map of a quarter of its size."""

    def map_names(self) -> tuple[str, ...]:
        return ("occlusion",)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        quarter = torch.zeros_like(images)[..., ::4, ::4]
        return {"seen": images, "occlusion": quarter, "occlusion_probability": quarter + 0.25}


def read_bits(
    outputs: dict[str, Tensor], geometry: Geometry, classes: Sequence[str], threshold: float, least_score: float = 0.5
) -> Cells:
    gray = np.rint((outputs["seen"][0].numpy() * GRAY_STD + GRAY_MEAN) * 255).astype(int)
    gray[0, 1] = 0
    masks = np.stack([gray // STEP >> i & 1 == 1 for i in range(4)])
    there = [i for i in range(4) if masks[i].any() and SCORES[i] >= least_score]
    return Cells(masks[there], masks[there].astype(np.float32), np.array([SCORES[i] for i in there], np.float32))


@pytest.fixture(autouse=True)
def _fake_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.NETWORKS, "vqamodal", replace(models.NETWORKS["vqamodal"], decode=read_bits))


def loaded(larger: int = 1) -> Checkpoint:
    height, width = (larger * side for side in HW)
    pre = Preprocessing(height=height, width=width, low_percentile=0, high_percentile=100, look_again_below=0)
    return Checkpoint(Told(), CheckpointInfo(model=VQAmodalSettings(), preprocessing=pre), "0123abcd")


def predictor_of(maps: Sequence[str] = ("occlusion",), larger: int = 1, **settings: Any) -> Predictor:
    wanted = SegmentSettings(device="cpu", maps=tuple(maps), weights="my.safetensors", **settings)
    return Predictor(loaded(larger), wanted)


def still(*cells: np.ndarray, **about: Any) -> EmbryoImage:
    return EmbryoImage(picture(*cells), "YX", "still", **about)


def film(*frames: Sequence[np.ndarray], **about: Any) -> EmbryoImage:
    pictures = np.stack([picture(*cells) for cells in frames])
    return EmbryoImage(pictures, "TYX", "film", hours=tuple(i / 4 for i in range(len(frames))), **about)


def drain(steps: Iterator[Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(folder: Path, name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / f"{name}_cells.json").read_text(encoding="utf-8"))
    return read


# --- one picture ----------------------------------------------------------------------------------------------------


def test_complete_masks_overlap_in_the_file_and_in_the_json(tmp_path: Path) -> None:
    rows = drain(segment_to_files(still(LEFT, MIDDLE, pixel_size_um=(0.5, 0.5)), predictor_of(), tmp_path))
    assert files(tmp_path) == [name.replace("film", "still") for name in MADE_UP_OF]
    written = io.read_ome_tiff(tmp_path / "still_cells.ome.tif")
    assert (written.axes, written.names, written.pixel_size_um) == ("CYX", ("cell 1", "cell 2"), (0.5, 0.5))
    assert written.data.dtype == np.uint8
    np.testing.assert_array_equal(written.data, [LEFT, MIDDLE])
    said = content(tmp_path, "still")
    assert said["info"]["weights_sha256"] == written.metadata["weights_sha256"] == "0123abcd"
    assert [image["n_cells"] for image in said["images"]] == [2]
    assert "tracks" not in said
    for one, mask, score in zip(said["annotations"], (LEFT, MIDDLE), SCORES, strict=False):
        np.testing.assert_array_equal(coco.segment(one["segmentation"], HW), mask)
        np.testing.assert_array_equal(rle.decode(one["rle"]["counts"], HW), mask)
        assert (one["area"], one["score"]) == (mask.sum(), pytest.approx(score))
    both = (LEFT & MIDDLE).sum()
    assert [(row["class"], row["label"], row["n_cells"]) for row in rows] == [
        ("cells", None, 2),
        ("cell 1", 1, None),
        ("cell 2", 2, None),
    ]
    assert [row["area_px"] for row in rows] == [(LEFT | MIDDLE).sum(), LEFT.sum(), MIDDLE.sum()]
    assert [row["overlap"] for row in rows] == pytest.approx([both / row["area_px"] for row in rows])
    assert [row["score"] for row in rows] == [None, *map(pytest.approx, SCORES[:2])]
    assert "track" not in rows[0]


def test_the_occlusion_map_and_the_overlay(tmp_path: Path) -> None:
    drain(segment_to_files(still(LEFT, MIDDLE), predictor_of(), tmp_path))
    shown = io.read_ome_tiff(tmp_path / "still_attention.ome.tif")
    assert shown.names == ("occlusion",)
    np.testing.assert_allclose(shown.data, 0.25)
    with Image.open(tmp_path / "still_overlay.png") as overlay:
        assert (overlay.width, overlay.height > HW[0]) == (HW[1], True)


def test_pycocotools_reads_it(tmp_path: Path) -> None:
    official = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    drain(segment_to_files(still(LEFT, MIDDLE, RIGHT), predictor_of(), tmp_path))
    read = official.COCO(str(tmp_path / "still_cells.json"))
    assert read.getAnnIds(imgIds=[1], catIds=read.getCatIds(catNms=["cell"])) == [1, 2, 3]
    for one, mask in zip(read.loadAnns([1, 2, 3]), (LEFT, MIDDLE, RIGHT), strict=True):
        theirs = read.annToMask(one).astype(bool)
        assert (theirs & mask).sum() / (theirs | mask).sum() > 0.95


def test_what_was_found_can_be_learned_from(tmp_path: Path) -> None:
    """Beside the picture that it names."""
    image = still(LEFT, MIDDLE, RIGHT, metadata={"source": str(tmp_path / "somewhere" / "mine.png")})
    out = tmp_path / "out"
    out.mkdir()
    drain(segment_to_files(image, predictor_of(maps=()), out))
    io.write_png(out / "mine.png", image.data)
    (out / "still_overlay.png").unlink()
    (sample,) = data.find_samples(DataSettings(folders=(str(out),)), ("cell",)).samples
    np.testing.assert_array_equal(sample.read().cells, [LEFT, MIDDLE, RIGHT])


def test_no_cell_is_a_result(tmp_path: Path) -> None:
    """And no masks of the run before are left that contradict it."""
    drain(segment_to_files(still(LEFT), predictor_of(maps=()), tmp_path))
    assert "still_cells.ome.tif" in files(tmp_path)
    (row,) = drain(segment_to_files(still(), predictor_of(maps=()), tmp_path))
    assert files(tmp_path) == ["still_cells.json", "still_overlay.png"]
    said = content(tmp_path, "still")
    assert ([image["n_cells"] for image in said["images"]], said["annotations"]) == ([0], [])
    assert (row["image"], row["class"], row["n_cells"], row["area_px"]) == ("still", "cells", 0, 0)
    assert (row["overlap"], row["eccentricity"]) == (None, None)


@pytest.mark.parametrize("one_embryo", [True, False])
def test_a_neighbors_cells_are_left_out_whole(tmp_path: Path, one_embryo: bool) -> None:
    """A cell that does not touch the others, but nearly, belongs to them."""
    near = disc(30, 64, 3)  # 5 pixels from MIDDLE
    rows = drain(segment_to_files(still(FAR, MIDDLE, near), predictor_of(maps=(), one_embryo=one_embryo), tmp_path))
    kept = [MIDDLE, near] if one_embryo else [FAR, MIDDLE, near]
    assert [row["class"] for row in rows[1:]] == [f"cell {i + 1}" for i in range(len(kept))]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "still_cells.ome.tif"), kept)


# --- time-lapses ----------------------------------------------------------------------------------------------------


def test_cells_of_a_time_lapse_keep_their_channel_and_mothers_are_told(tmp_path: Path) -> None:
    """In whatever order they come, and over a frame that cannot be read."""
    frames = [(LEFT, RIGHT), (RIGHT, LEFT), (), (*HALVES, RIGHT)]
    rows = drain(segment_to_files(film(*frames), predictor_of(), tmp_path))
    assert tuple(files(tmp_path)) == MADE_UP_OF
    cells = io.read_ome_tiff(tmp_path / "film_cells.ome.tif")
    names = tuple(f"cell {number}" for number in range(1, 5))
    assert (cells.axes, cells.names, cells.hours) == ("TCYX", names, (0, 0.25, 0.5, 0.75))
    said = content(tmp_path, "film")
    assert [track["parent"] for track in said["tracks"]] == [None, None, 1, 1]
    channels = np.zeros((4, len(said["tracks"]), *HW), np.uint8)
    for one in said["annotations"]:
        channels[one["image_id"] - 1, one["track"] - 1] = coco.segment(one["segmentation"], HW)
    np.testing.assert_array_equal(cells.data, channels)
    np.testing.assert_array_equal(cells.data[:2, 0], [LEFT, LEFT])
    np.testing.assert_array_equal(cells.data[:, 1], [RIGHT, RIGHT, np.zeros(HW), RIGHT])
    assert not cells.data[2].any()
    assert [row["n_cells"] for row in rows if row["class"] == "cells"] == [2, 2, 0, 3]


def test_a_division(tmp_path: Path) -> None:
    rows = drain(segment_to_files(film((LEFT, RIGHT), (*HALVES, RIGHT)), predictor_of(maps=()), tmp_path))
    said = content(tmp_path, "film")
    assert said["tracks"] == [
        {"id": 1, "parent": None},
        {"id": 2, "parent": None},
        {"id": 3, "parent": 1},
        {"id": 4, "parent": 1},
    ]
    assert [(image["index"], image["frame"], image["hours"]) for image in said["images"]] == [
        ([0], 0, 0),
        ([1], 1, 0.25),
    ]
    tracked = [(row["frame"], row["class"], row["label"], row["track"], row["parent"]) for row in rows]
    assert tracked == [
        (0, "cells", None, None, None),
        (0, "cell 1", 1, 1, None),
        (0, "cell 2", 2, 2, None),
        (1, "cells", None, None, None),
        (1, "cell 3", 3, 3, 1),
        (1, "cell 4", 4, 4, 1),
        (1, "cell 2", 2, 2, None),
    ]


def test_cells_are_followed_through_focal_planes_without_divisions(tmp_path: Path) -> None:
    planes = np.stack([picture(LEFT, MIDDLE), picture(MIDDLE)])
    rows = drain(segment_to_files(EmbryoImage(planes, "FYX", "planes"), predictor_of(maps=()), tmp_path))
    cells = tifffile.imread(tmp_path / "planes_cells.ome.tif")
    np.testing.assert_array_equal(cells, [[LEFT, MIDDLE], [np.zeros(HW), MIDDLE]])
    assert [(row["plane"], row["class"], row["parent"]) for row in rows][-1] == (1, "cell 2", None)


def test_a_frame_of_a_written_time_lapse_can_be_learned_from(tmp_path: Path) -> None:
    image = film((LEFT, RIGHT), (MIDDLE,), metadata={"source": str(tmp_path / "well_3.ome.tif")})
    io.write_ome_tiff(tmp_path / "well_3.ome.tif", image.data, "TYX")
    drain(segment_to_files(image, predictor_of(maps=()), tmp_path))
    truths = [entry.load() for entry in coco.entries(tmp_path, ("cell",))]
    np.testing.assert_array_equal(truths[1].image, image.data[1])
    assert [len(truth.cells) for truth in truths] == [2, 1]


def test_bad_frames_keep_the_places_of_the_others(tmp_path: Path) -> None:
    """Also where the first one is bad, so that nothing tells yet what is found."""
    frames = np.stack([picture(LEFT)] * 4).astype(np.float32)
    frames[0, 5, 5] = frames[2, 5, 5] = np.nan
    rows = drain(segment_to_files(EmbryoImage(frames, "TYX", "film"), predictor_of(), tmp_path))
    cells = tifffile.imread(tmp_path / "film_cells.ome.tif")
    assert cells.reshape(4, -1).any(1).tolist() == [False, True, False, True]
    assert [row["frame"] for row in rows if row["track"] == 1] == [1, 3]
    assert len(content(tmp_path, "film")["images"]) == 4


def test_canceling_leaves_no_files_and_no_parts(tmp_path: Path) -> None:
    steps = segment_to_files(film(*[(LEFT,)] * 5), predictor_of(), tmp_path)
    assert len(list(islice(steps, 3))) == 3
    steps.close()
    assert files(tmp_path) == []


def test_an_error_on_the_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(io, "write_png", no_space)
    with pytest.raises(OSError, match="No space left"):
        drain(segment_to_files(film((LEFT,), (LEFT,)), predictor_of(), tmp_path))
    assert files(tmp_path) == []


def most_memory(count: int, folder: Path) -> int:
    """Peak of the arrays alive, in bytes, of a film whose pictures are 5 x 5 times larger."""
    folder.mkdir()
    one = np.kron(picture(LEFT, MIDDLE), np.ones((5, 5), np.uint8))[None]
    frames = da.map_blocks(lambda: one, chunks=((1,) * count, *((n,) for n in one.shape[1:])), dtype=np.uint8)
    image, predictor = EmbryoImage(frames, "TYX", "film"), predictor_of((), larger=5)
    gc.collect()
    tracemalloc.start()
    try:
        drain(segment_to_files(image, predictor, folder))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_frames_pixels(tmp_path: Path) -> None:
    """From one frame more there remain its run lengths, rows and links, a small part of two masks' pixels."""
    most_memory(1, tmp_path / "warm up")
    short, long = most_memory(12, tmp_path / "short"), most_memory(17, tmp_path / "long")
    assert (long - short) / 5 < 0.25 * 25 * HW[0] * HW[1]


def test_one_table_of_stills_and_films(tmp_path: Path) -> None:
    rows = [
        *drain(segment_to_files(still(LEFT), predictor_of(maps=()), tmp_path)),
        *drain(segment_to_files(film((LEFT,)), predictor_of(maps=()), tmp_path)),
    ]
    with io.write_csv_atomic(tmp_path / "t.csv", rows).open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(r["image"], r["frame"], r["class"], r["track"]) for r in table] == [
        ("still", "", "cells", ""),
        ("still", "", "cell 1", ""),
        ("film", "0", "cells", ""),
        ("film", "0", "cell 1", "1"),
    ]


# --- where the pictures lie ---


def opened(folder: Path, pixels: dict[str, np.ndarray], focus: Literal["best", "edf"] = "best") -> EmbryoImage:
    """The one image that a folder of such files is."""
    for name, gray in pixels.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        io.write_png(folder / name, gray)
    (planned,) = io.plan_folder(folder).edited(io.OpenChoices(focus=focus)).images
    return pipeline.with_files(io.open_image(planned), planned)


def images_said(image: EmbryoImage, out: Path) -> list[dict[str, Any]]:
    out.mkdir(exist_ok=True)
    drain(segment_to_files(image, predictor_of(maps=()), out))
    said: list[dict[str, Any]] = content(out, image.name)["images"]
    return said


ONE, TWO = picture(LEFT, RIGHT), picture(MIDDLE)
WELL = "D2013.01.28_S0717_I132_WELL7"
MANY_EDGES = ONE // 2 + 60 * (np.indices(HW).sum(0) % 2).astype(np.uint8)


@pytest.mark.parametrize(
    ("pixels", "shown", "embryo"),
    [
        ({f"{WELL}_RUN5.png": ONE, f"{WELL}_RUN6.png": TWO}, slice(None), "S0717_I132_WELL7"),
        ({"frame1.png": ONE, "frame2.png": TWO}, slice(None), "film"),
        ({"R13-0140_t1.png": ONE, "R13-0140_t2.png": TWO}, slice(None), "R13-0140"),
        ({"F-15/a.png": ONE, "F0/a.png": MANY_EDGES}, slice(1, 2), "a"),
    ],
)
def test_every_picture_of_a_folder_names_its_own_file(
    tmp_path: Path, pixels: dict[str, np.ndarray], shown: slice, embryo: str
) -> None:
    """Of focal planes that of the sharpest one, in its folder."""
    said = images_said(opened(tmp_path / "film", pixels), tmp_path / "out")
    assert [image["file_name"] for image in said] == [*pixels][shown]
    assert {image["embryo"] for image in said} == {embryo}
    assert [image.get("frame") for image in said] == ([0, 1] if len(said) > 1 else [None])
    assert not any("index" in image for image in said)


@pytest.mark.parametrize("focus", ["best", "edf"])
def test_a_frame_of_several_planes_has_no_file_of_its_own(tmp_path: Path, focus: Literal["best", "edf"]) -> None:
    pixels = {f"F{plane}/{WELL}_RUN{run}.png": picture(LEFT) for plane in (-15, 0) for run in (1, 2)}
    said = images_said(opened(tmp_path / "film", pixels, focus), tmp_path / "out")
    assert [image["index"] for image in said] == [[0], [1]]
    assert {image["embryo"] for image in said} == {"S0717_I132_WELL7"}


def test_the_frames_of_a_folder_can_be_learned_from(tmp_path: Path) -> None:
    """With the outlines beside them; as one embryo."""
    home = tmp_path / "film"
    image = opened(home, {f"{WELL}_RUN{run}.png": gray for run, gray in ((5, ONE), (6, TWO), (7, picture()))})
    images_said(image, tmp_path / "out")
    (tmp_path / "out" / f"{image.name}_cells.json").rename(home / "cells.json")
    samples = data.find_samples(DataSettings(folders=(str(home),)), ("cell",)).samples
    assert {sample.embryo for sample in samples} == {"S0717_I132_WELL7"} == {data.embryo_of(s.name) for s in samples}
    for sample, gray, cells in zip(samples, (ONE, TWO), ((LEFT, RIGHT), (MIDDLE,)), strict=True):
        np.testing.assert_array_equal(sample.read().image, gray)
        np.testing.assert_array_equal(sample.read().cells, cells)


def test_no_maps_of_a_run_before_stay(tmp_path: Path) -> None:
    drain(segment_to_files(still(LEFT), predictor_of(), tmp_path))
    drain(segment_to_files(still(LEFT), predictor_of(maps=()), tmp_path))
    assert files(tmp_path) == ["still_cells.json", "still_cells.ome.tif", "still_overlay.png"]


# --- the command line -----------------------------------------------------------------------------------------------


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.fixture
def _fake_weights(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    work.loaded.cache_clear()
    monkeypatch.setattr(checkpoint, "load", lambda *_: loaded())
    yield
    work.loaded.cache_clear()


@pytest.mark.usefixtures("_fake_weights")
def test_segment_counts_the_cells_of_every_image(tmp_path: Path) -> None:
    """An image without a cell is done, too."""
    for name, cells in {"none": (), "one": (LEFT,), "two": (LEFT, MIDDLE)}.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        io.write_png(tmp_path / "in" / f"{name}.png", picture(*cells))
    done = run("segment", tmp_path / "in", "--family", "vqamodal", "--maps", "occlusion", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert [line for line in done.output.splitlines() if line.split(":")[0] in ("none", "one", "two")] == [
        "none: No cell found",
        "one: 1 cell",
        "two: 2 cells",
    ]
    assert "3 images done, 0 failed" in done.output
    with (tmp_path / "out" / "measurements.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "image",
        "file",
        *pipeline.measure.COLUMNS,
        *pipeline.measure.CELL_COLUMNS,
        "weights",
        "date",
    ]
    assert [(row["image"], row["class"], row["n_cells"]) for row in rows if row["n_cells"]] == [
        ("none", "cells", "0"),
        ("one", "cells", "1"),
        ("two", "cells", "2"),
    ]


@pytest.mark.usefixtures("_fake_weights")
def test_segment_names_the_frames_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "well").mkdir()
    for name in ("t1.png", "t2.png"):
        io.write_png(tmp_path / "well" / name, ONE)
    done = run("segment", tmp_path / "well", "--family", "vqamodal", "--maps", "", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    said = content(tmp_path / "out", "well")["images"]
    assert [(image["file_name"], image["embryo"]) for image in said] == [("t1.png", "well"), ("t2.png", "well")]


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    """Two embryos; on the second picture the network sees a cell too many, on the third it is not sure of one."""
    folder = tmp_path / "annotated"
    folder.mkdir()
    seen = {"a": (LEFT, MIDDLE), "b": (LEFT, RIGHT), "c": (LEFT, MIDDLE, RIGHT, FAR)}
    true = {"a": (LEFT, MIDDLE), "b": (LEFT,), "c": (LEFT, MIDDLE, RIGHT, FAR)}
    annotations, images = [], []
    for i, name in enumerate(seen, start=1):
        io.write_png(folder / f"{name}.png", picture(*seen[name]))
        embryo = "first" if name == "a" else "second"
        images.append({"id": i, "file_name": f"{name}.png", "height": HW[0], "width": HW[1], "embryo": embryo})
        annotations += [coco_writer.annotation(10 * i + j, i, cell) for j, cell in enumerate(true[name])]
    coco_writer.write(folder / "cells.json", images, annotations)
    return folder


@pytest.mark.usefixtures("_fake_weights")
def test_evaluate_prints_and_writes_what_the_metrics_say(
    annotated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of cells that lie apart, which are no one embryo, and with the scores too low to be shown."""
    monkeypatch.setattr(sys.modules[__name__], "SCORES", (0.95, 0.9, 0.8, 0.2))
    out = tmp_path / "s.csv"
    done = run(
        "evaluate", "--weights", "w", "--family", "vqamodal", "--data", annotated, "--device", "cpu", "--out", out
    )
    assert done.exit_code == 0, done.output
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["cells"], row["found"], row["count_right"]) for row in rows] == [
        ("a", "2", "2", "True"),
        ("b", "1", "2", "False"),
        ("c", "4", "3", "False"),
    ]
    with (tmp_path / "s_summary.csv").open(newline="", encoding="utf-8") as file:
        (summary,) = csv.DictReader(file)
    assert float(summary["best_iou"]) == pytest.approx(6 / 7)
    assert float(summary["count_right"]) == pytest.approx(1 / 3)
    predictor = Predictor(loaded(), SegmentSettings(device="cpu", maps=(), one_embryo=False), least_score=0.001)
    samples = data.find_samples(DataSettings(folders=(str(annotated),)), ("cell",)).samples
    judged = [
        evaluate.judge_cells(one, one.read().cells, next(predictor.predict([one.read().image])).finding)
        for one in samples
    ]
    expected = evaluate.cell_summary(judged)
    assert expected["ap"] > 0.9  # 7 of 7 are found, the wrong one has a high score
    assert float(summary["ap"]) == pytest.approx(expected["ap"])
    (line,) = [text.split() for text in done.output.splitlines() if text.startswith("all ")]
    assert line[1:4] == ["3", "2", "7"]
    assert line[4] == f"{expected['ap']:.3f}"
    assert f"{expected['best_iou']:.3f}" in line


@pytest.mark.usefixtures("_fake_weights")
def test_evaluate_without_a_drawn_cell(tmp_path: Path) -> None:
    io.write_png(tmp_path / "a.png", picture(LEFT))
    (tmp_path / "t.csv").write_text("image,grade\na,A\n")
    done = run("evaluate", "--weights", "w", "--family", "vqamodal", "--data", tmp_path, "--device", "cpu")
    assert done.exit_code == 2
    assert "cell" in done.output
    assert "Traceback" not in done.output
