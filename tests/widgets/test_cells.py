"""Single cells in the Segment widget: a layer each, their overlap, their way through a film, as layers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from napari.layers import Labels, Shapes, Tracks
from napari.utils.notifications import notification_manager
from skimage.measure import regionprops

from napari_embryo import render
from napari_embryo.image import Cells, EmbryoImage, Progress, cell_names
from napari_embryo.notes import Note
from napari_embryo.settings import SegmentSettings
from napari_embryo.widgets.segment import SegmentWidget

Bools = npt.NDArray[np.bool_]
HW = (48, 64)
PLACED = {"scale": (2.0, 0.5, 0.5), "translate": (10.0, 3.0, 4.0), "units": ("hour", "um", "um"), "axis_labels": "tyx"}


def disc(y: float, x: float, radius: float) -> Bools:
    rows, columns = np.mgrid[: HW[0], : HW[1]]
    return np.hypot(rows - y, columns - x) <= radius


def segmentation(*masks: Bools) -> Cells:
    """The first cell has the score 0.9, each other one 0.1 less."""
    stack = np.stack(masks) if masks else np.zeros((0, *HW), bool)
    scores = 0.9 - 0.1 * np.arange(len(stack), dtype=np.float32)
    return Cells(stack, stack.astype(np.float32), scores)


TWO = (disc(24, 24, 12), disc(24, 38, 10))
DIVIDING = (
    segmentation(disc(24, 16, 10), disc(24, 46, 12)),
    segmentation(disc(24, 46, 12), disc(24, 17, 10)),
    segmentation(disc(17, 44, 9), disc(24, 18, 10), disc(31, 48, 9)),
)
"""Two cells that change their ranks; the second one divides."""


@dataclass
class Map:
    """An attention map without a network."""

    name: str = "occlusion"
    window: tuple[float, float] = (0, 1)
    meaning: str = "where cells lie over each other"
    grid: npt.NDArray[np.float32] = field(default_factory=lambda: np.full(HW, 0.25, np.float32))

    def on_image(self) -> npt.NDArray[np.float32]:
        return self.grid


class StubPredictor:
    """Finds what it was told to, picture after picture."""

    def __init__(self, found: Sequence[Cells | Exception]) -> None:
        self.found, self.notes, self.device, self.classes = found, list[Note](), "cpu", ("cell",)


def stub_analyse(image: EmbryoImage, predictor: StubPredictor, indices: Any = None) -> Iterator[Progress]:
    from napari_embryo import measure
    from napari_embryo.pipeline import PlaneResult

    wanted = list(np.ndindex(image.shape[:-2])) if indices is None else list(indices)
    for done, index in enumerate(wanted, start=1):
        found = predictor.found[index[0] if index else 0]
        if isinstance(found, Exception):
            raise found
        rows = [{**measure.where(image, index), **row} for row in measure.measure_all(found, image.pixel_size_um)]
        result: Any = PlaneResult(index, np.zeros(HW), found, (Map(),), rows)  # type: ignore[arg-type]
        yield Progress(done, len(wanted), image.name, result)


@pytest.fixture
def docked(make_viewer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, SegmentWidget]]:
    """A viewer with an image and the widget, whose network finds what is given."""
    from napari_embryo import pipeline

    notification_manager.records.clear()

    def make(*found: Cells | Exception, **about: Any) -> tuple[Any, SegmentWidget]:
        origin = {"family": "vqamodal", "weights": "bundled", "weights_sha256": "0" * 64, "program": "napari-embryo 0"}
        monkeypatch.setattr(pipeline, "load_predictor", lambda settings: StubPredictor(found))
        monkeypatch.setattr(pipeline, "analyze", stub_analyse)
        monkeypatch.setattr(pipeline, "provenance_of", lambda image, predictor: {**origin, "settings": {}})
        viewer = make_viewer()
        shape = HW if len(found) == 1 else (len(found), *HW)
        viewer.add_image(np.zeros(shape, np.uint8), name="day 2", **about)
        widget = SegmentWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Segment")
        widget.form.set_value(SegmentSettings(family="vqamodal", device="cpu"))
        return viewer, widget

    return make


def run(qtbot, widget: SegmentWidget, frames: str = "all frames") -> None:
    widget.frames.setCurrentText(frames)
    widget.run()
    qtbot.waitUntil(lambda: not widget.panel.running, timeout=60_000)


def shown() -> str:
    return "\n".join(str(notification.message) for notification in notification_manager.records)


def says(qtbot, widget: SegmentWidget, *words: str) -> None:
    """The line comes to hold these words."""
    qtbot.waitUntil(lambda: all(word in widget.cells.line.text() for word in words), timeout=10_000)


# --- one picture ------------------------------------------------------------------------------------------------------


def test_every_cell_is_a_layer_that_lies_on_the_image(qtbot, docked) -> None:
    viewer, widget = docked(segmentation(*TWO), scale=(0.5, 0.5), translate=(3, 4), units=("um", "um"))
    image = viewer.layers["day 2"]
    run(qtbot, widget)
    layers = [viewer.layers["day 2 cell 1"], viewer.layers["day 2 cell 2"]]
    for number, (layer, mask) in enumerate(zip(layers, TWO, strict=True), start=1):
        assert isinstance(layer, Labels)
        np.testing.assert_array_equal(layer.data, number * mask)
        np.testing.assert_array_equal(layer.extent.world, image.extent.world)
        assert (layer.units, layer.axis_labels) == (image.units, image.axis_labels)
        assert (layer.contour, layer.selected_label, layer.editable) == (2, number, True)
        np.testing.assert_allclose(layer.get_color(number)[:3], np.divide(render.cell_color(number), 255), atol=1e-6)
        metadata = layer.metadata
        assert (metadata["cell"], metadata["family"], len(metadata["weights_sha256"])) == (number, "vqamodal", 64)
        assert metadata["source_layer"] == {"name": "day 2", "unique_id": str(image.unique_id)}
        assert metadata["score"] == pytest.approx(1 - 0.1 * number)
        (row,) = metadata["measurements"]
        assert (row["class"], row["area_px"], row["score"]) == (f"cell {number}", mask.sum(), metadata["score"])
        assert row["area_um2"] == pytest.approx(mask.sum() / 4)
    assert layers[0].metadata["run"] == layers[1].metadata["run"]
    assert viewer.layers.selection.active is layers[0]


def test_overlap_is_counted_and_the_occlusion_map_is_shown(qtbot, docked) -> None:
    viewer, widget = docked(segmentation(*TWO))
    run(qtbot, widget)
    count, occlusion = viewer.layers["day 2 overlap count"], viewer.layers["day 2 occlusion"]
    np.testing.assert_array_equal(count.data, TWO[0].astype(int) + TWO[1])
    assert count.contrast_limits == [0, 4]
    assert occlusion.visible
    assert occlusion.contrast_limits == [0, 1]
    assert not any(isinstance(layer, Tracks) for layer in viewer.layers)


def test_boxes_tell_scores(qtbot, docked) -> None:
    """Hidden at first; around each cell of each frame, where the image lies."""
    viewer, widget = docked(*DIVIDING, **PLACED)
    run(qtbot, widget)
    (boxes,) = (layer for layer in viewer.layers if isinstance(layer, Shapes))
    assert not boxes.visible
    assert tuple(boxes.scale) == PLACED["scale"]
    assert len(boxes.data) == sum(len(found.masks) for found in DIVIDING)
    told = {
        (round(corners[0, 0]), *corners[:, 1:].min(0), *corners[:, 1:].max(0)): score
        for corners, score in zip(boxes.data, boxes.features["score"], strict=True)
    }
    for frame, found in enumerate(DIVIDING):
        for mask, score in zip(found.masks, found.scores, strict=True):
            top, left, bottom, right = regionprops(mask.astype(np.uint8))[0].bbox
            assert told[frame, top - 0.5, left - 0.5, bottom - 0.5, right - 0.5] == pytest.approx(score)
    assert list(boxes.text.values[:2]) == [f"{score:.2f}" for score in boxes.features["score"][:2]]


def test_number_and_scores_are_said(qtbot, docked) -> None:
    _, widget = docked(segmentation(*TWO))
    run(qtbot, widget)
    assert widget.panel.status.text().startswith("Done on cpu. 2 cells, score 0.90 to 0.80.")
    first, second = (f"{mask.sum():,} px" for mask in TWO)
    says(qtbot, widget, f"2 cells: cell 1 {first} (score 0.90), cell 2 {second} (score 0.80).")


def test_nothing_found_is_said(qtbot, docked) -> None:
    viewer, widget = docked(segmentation())
    run(qtbot, widget)
    assert "No cell was found" in widget.panel.status.text()
    assert "No cell was found" in shown()
    assert not viewer.layers["day 2 overlap count"].data.any()
    assert not any(isinstance(layer, Labels) for layer in viewer.layers)


def test_overlap_areas_and_rows_follow_the_brush_and_undoing(qtbot, docked) -> None:
    viewer, widget = docked(segmentation(*TWO))
    run(qtbot, widget)
    says(qtbot, widget, "2 cells")
    first, count = viewer.layers["day 2 cell 1"], viewer.layers["day 2 overlap count"]
    first.data_setitem(np.nonzero(TWO[1] & ~TWO[0]), 1)
    either = int((TWO[0] | TWO[1]).sum())
    says(qtbot, widget, f"cell 1 {either:,} px (score 0.90)")
    np.testing.assert_array_equal(count.data, (TWO[0] | TWO[1]).astype(int) + TWO[1])
    assert [row["area_px"] for row in first.metadata["measurements"]] == [either]
    assert first.metadata["measurements"][0]["image"] == "day 2"
    first.undo()
    says(qtbot, widget, f"cell 1 {TWO[0].sum():,} px")
    np.testing.assert_array_equal(count.data, TWO[0].astype(int) + TWO[1])


def test_a_cell_that_is_removed_covers_nothing(qtbot, docked) -> None:
    viewer, widget = docked(segmentation(*TWO))
    run(qtbot, widget)
    says(qtbot, widget, "2 cells")
    viewer.layers.remove("day 2 cell 2")
    says(qtbot, widget, "1 cell: cell 1")
    np.testing.assert_array_equal(viewer.layers["day 2 overlap count"].data, TWO[0])


def test_a_second_run_leaves_corrected_cells_alone(qtbot, docked) -> None:
    viewer, widget = docked(segmentation(*TWO))
    run(qtbot, widget)
    corrected = viewer.layers["day 2 cell 1"]
    corrected.data[:] = 0
    widget.image.value = viewer.layers["day 2"]
    run(qtbot, widget)
    assert not corrected.data.any()
    np.testing.assert_array_equal(viewer.layers["day 2 cell 1 [1]"].data, TWO[0])
    assert viewer.layers["day 2 cell 1 [1]"].metadata["run"] != corrected.metadata["run"]
    says(qtbot, widget, "2 cells")


def test_pixels_of_other_labels_are_said(qtbot, docked) -> None:
    viewer, widget = docked(segmentation(*TWO))
    run(qtbot, widget)
    first, area = viewer.layers["day 2 cell 1"], f"cell 1 {TWO[0].sum():,} px (score 0.90)"
    first.data_setitem((np.array([0, 0, 1]), np.array([0, 1, 0])), 2)
    says(qtbot, widget, area, "cell 1 has 3 pixels of other labels, which do not count: paint with label 1.")
    first.undo()
    qtbot.waitUntil(lambda: "other labels" not in widget.cells.line.text(), timeout=10_000)
    says(qtbot, widget, area)


def test_a_duplicate_is_called_by_its_layer(qtbot, docked) -> None:
    """A cell that was missed may be painted in one; it is outlined as the others are."""
    from napari.layers._layer_actions import _duplicate_layer

    viewer, widget = docked(segmentation(*TWO))
    run(qtbot, widget)
    says(qtbot, widget, "2 cells: cell 1")
    viewer.layers.selection = {viewer.layers["day 2 cell 2"]}
    _duplicate_layer(viewer.layers)
    second = f"{TWO[1].sum():,} px (score 0.80)"
    says(qtbot, widget, "3 cells: cell 1", f"cell 2 {second}, day 2 cell 2 copy {second}.")
    copied = viewer.layers["day 2 cell 2 copy"]
    assert (copied.contour, copied.selected_label) == (2, 2)


# --- files ------------------------------------------------------------------------------------------------------------


def reopened(viewer: Any, path: Path) -> list[Labels]:
    """As File > Open does; the first cell comes first."""
    viewer.layers.clear()
    return list(viewer.open(path, plugin="napari-embryo"))[::-1]


def placed(layers: Sequence[Labels]) -> list[tuple[Any, ...]]:
    """Where layers lie."""
    return [(tuple(layer.scale), tuple(layer.translate), layer.units, layer.axis_labels) for layer in layers]


@pytest.mark.parametrize(
    ("found", "about", "said"),
    [
        ([segmentation(*TWO)], {"scale": (0.5, 0.4), "translate": (3, 4), "units": ("um", "um")}, "(score 0.80)"),
        (DIVIDING, PLACED, "2 cells"),
    ],
    ids=["picture", "film"],
)
def test_corrected_cells_are_saved_together_and_come_back(
    qtbot, docked, tmp_path: Path, found: Sequence[Cells], about: dict[str, Any], said: str
) -> None:
    """Twice; the second time what was saved is what came back."""
    viewer, widget = docked(*found, **about)
    run(qtbot, widget)
    cells = [layer for layer in viewer.layers if "cell" in layer.metadata][::-1]
    cells[1].data[..., :2, :2] = 2
    drawn, where = [cell.data.copy() for cell in cells], placed(cells)
    for name in ("x", "again"):
        viewer.layers.selection = set(cells)
        paths = viewer.layers.save(str(tmp_path / f"{name}.ome.tif"), selected=True)
        assert [Path(path).name for path in paths] == [f"{name}.ome.tif", f"{name}_cells.json"]
        cells = reopened(viewer, tmp_path / f"{name}.ome.tif")
        assert [cell.name for cell in cells] == list(cell_names(len(drawn)))
        for cell, data in zip(cells, drawn, strict=True):
            np.testing.assert_array_equal(cell.data, data)
        assert placed(cells) == where
        viewer.dims.set_point(0, 0)
        says(qtbot, widget, said)


def test_cells_from_a_file_are_outlined_measured_and_painted(qtbot, docked, tmp_path: Path) -> None:
    """The command line's file does not tell the scores."""
    from napari_embryo.io import write_ome_tiff

    viewer, widget = docked(segmentation())
    masks, names = np.stack(TWO).astype(np.uint8), cell_names(2)
    path = write_ome_tiff(tmp_path / "day 2_cells.ome.tif", masks, "CYX", kind="labels", names=names)
    cells = reopened(viewer, path)
    assert [(cell.contour, cell.selected_label) for cell in cells] == [(2, 1), (2, 2)]
    says(qtbot, widget, f"2 cells: cell 1 {TWO[0].sum():,} px, cell 2 {TWO[1].sum():,} px.")
    cells[1].paint((2, 2), cells[1].selected_label)
    assert (cells[1].data == 2).sum() > TWO[1].sum()
    says(qtbot, widget, f"cell 2 {(cells[1].data == 2).sum():,} px.")
    assert cells[1].metadata["measurements"][0]["image"] == "day 2"


# --- films ------------------------------------------------------------------------------------------------------------


@pytest.mark.window
def test_cells_of_a_film_keep_their_identity_and_divide(qtbot, docked) -> None:
    viewer, widget = docked(*DIVIDING, **PLACED)
    run(qtbot, widget)
    assert "3 of 3 frames. 4 cells tracked, 1 division" in widget.panel.status.text()
    first, second = viewer.layers["day 2 cell 1"].data, viewer.layers["day 2 cell 2"].data
    np.testing.assert_array_equal(first > 0, [DIVIDING[0].masks[0], DIVIDING[1].masks[1], DIVIDING[2].masks[1]])
    np.testing.assert_array_equal(second > 0, [DIVIDING[0].masks[1], DIVIDING[1].masks[0], np.zeros(HW, bool)])
    daughters = [viewer.layers[f"day 2 cell {number}"].data for number in (3, 4)]
    assert not any(daughter[:2].any() for daughter in daughters)
    np.testing.assert_array_equal(sum(daughters)[2] > 0, DIVIDING[2].masks[0] | DIVIDING[2].masks[2])
    rows = viewer.layers["day 2 cell 1"].metadata["measurements"]
    assert [(row["frame"], row["label"], row["hours"]) for row in rows] == [(0, 1, 10), (1, 1, 12), (2, 1, 14)]
    assert [row["score"] for row in rows] == pytest.approx([0.9, 0.8, 0.8])


def test_divisions_are_a_tracks_layer_with_mothers(qtbot, docked) -> None:
    viewer, widget = docked(*DIVIDING, **PLACED)
    run(qtbot, widget)
    tracks = viewer.layers["day 2 tracks"]
    assert isinstance(tracks, Tracks)
    assert {child: list(mothers) for child, mothers in tracks.graph.items()} == {3: [2], 4: [2]}
    np.testing.assert_allclose(tracks.data[tracks.data[:, 0] == 1], [[1, 0, 24, 16], [1, 1, 24, 17], [1, 2, 24, 18]])
    np.testing.assert_array_equal(tracks.scale, viewer.layers["day 2"].scale)
    assert tracks.units == viewer.layers["day 2"].units


def test_overlap_of_a_film_follows_the_slider_and_the_brush(qtbot, docked) -> None:
    both = segmentation(*TWO)
    viewer, widget = docked(both, both)
    run(qtbot, widget)
    first, count = viewer.layers["day 2 cell 1"], viewer.layers["day 2 overlap count"]
    np.testing.assert_array_equal(np.asarray(count.data), [TWO[0].astype(int) + TWO[1]] * 2)
    viewer.dims.set_point(0, 1)
    says(qtbot, widget, f"cell 1 {TWO[0].sum():,} px")
    first.data_setitem((np.full(int(TWO[0].sum()), 1), *np.nonzero(TWO[0])), 0)
    says(qtbot, widget, "1 cell: cell 2")
    np.testing.assert_array_equal(np.asarray(count.data[1]), TWO[1])
    count.visible = True
    np.testing.assert_array_equal(count._data_view, TWO[1])
    np.testing.assert_array_equal(np.asarray(count.data[0]), TWO[0].astype(int) + TWO[1])
    assert [row["frame"] for row in first.metadata["measurements"]] == [0]


def test_the_current_frame_alone_is_not_followed(qtbot, docked) -> None:
    viewer, widget = docked(*DIVIDING)
    viewer.dims.set_point(0, 2)
    run(qtbot, widget, "current frame")
    assert "3 cells, score 0.90 to 0.70" in widget.panel.status.text()
    assert list(viewer.layers["day 2 cell 1"].data.any(axis=(1, 2))) == [False, False, True]
    assert "day 2 tracks" not in viewer.layers


def followed_and_kept(viewer: Any, widget: SegmentWidget) -> None:
    assert "4 cells tracked, 1 division" in widget.panel.status.text()
    assert list(viewer.layers["day 2 cell 1"].data.any(axis=(1, 2)))[:3] == [True] * 3
    assert not viewer.layers["day 2 cell 1"].data[3:].any()


def test_what_was_done_before_it_failed_is_followed_and_kept(qtbot, docked) -> None:
    viewer, widget = docked(*DIVIDING, ValueError("the disc is full"))
    run(qtbot, widget)
    assert "Segmentation stopped: the disc is full" in widget.panel.status.text()
    followed_and_kept(viewer, widget)


def test_what_was_done_before_canceling_is_followed_and_kept(qtbot, docked, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_embryo import pipeline

    viewer, widget = docked(*DIVIDING, segmentation(), segmentation(), segmentation())
    canceled = Event()

    def patient(*args: Any) -> Iterator[Progress]:
        for step in stub_analyse(*args):
            yield step
            if step.done == 3:
                canceled.wait(30)

    take = widget._take

    def take_and_cancel(results: Any, progress: Progress) -> None:
        take(results, progress)
        if progress.done == 3 and not canceled.is_set():
            widget.panel.cancel_button.click()
            canceled.set()

    monkeypatch.setattr(pipeline, "analyze", patient)
    monkeypatch.setattr(widget, "_take", take_and_cancel)
    run(qtbot, widget)
    assert widget.panel.status.text().startswith("Canceled: 4 of 6 done and kept.")
    followed_and_kept(viewer, widget)
