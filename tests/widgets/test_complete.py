"""What a user notices of the Complete cell widget, with the layers of a real viewer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import pytest
from napari.layers import Labels
from napari.utils.notifications import notification_manager

from napari_embryo import completion
from napari_embryo.widgets.complete import CompleteWidget

Bools = npt.NDArray[np.bool_]
HW = (48, 64)


def disc(y: float, x: float, radius: float) -> Bools:
    rows, columns = np.mgrid[: HW[0], : HW[1]]
    return np.hypot(rows - y, columns - x) <= radius


WHOLE = disc(24, 30, 14)
CUT_OFF = WHOLE & (np.arange(HW[1]) < 32)


@pytest.fixture
def docked(make_viewer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Labels, CompleteWidget]]:
    """A viewer with labels and the widget, whose shape code knows one shape."""
    notification_manager.records.clear()

    def make(data: Any, whole: Bools = WHOLE, **about: Any) -> tuple[Any, Labels, CompleteWidget]:
        monkeypatch.setattr(completion, "complete", lambda mask, weights: whole.astype(np.float32))
        viewer = make_viewer()
        layer = viewer.add_labels(data, name="cell", **about)
        widget = CompleteWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Complete cell")
        return viewer, layer, widget

    return make


def press(qtbot, widget: CompleteWidget) -> str:
    widget.panel.run_button.click()
    qtbot.waitUntil(lambda: not widget.panel.running, timeout=60_000)
    return str(widget.panel.status.text())


def test_a_cut_off_cell_becomes_whole_and_says_what_changed(qtbot, docked) -> None:
    _, layer, widget = docked(CUT_OFF.astype(np.uint8))
    said = press(qtbot, widget)
    np.testing.assert_array_equal(layer.data, WHOLE)
    before, after = int(CUT_OFF.sum()), int(WHOLE.sum())
    assert f"{before:,} px → {after:,} px ({100 * (after / before - 1):+.0f}\N{NO-BREAK SPACE}%)" in said
    assert f"IoU with what was painted {before / after:.2f}" in said


def test_areas_are_told_in_micrometers_where_they_are_known(qtbot, docked) -> None:
    metadata = {"napari_embryo": {"pixel_size_um": (0.5, 0.5)}}
    _, _, widget = docked(CUT_OFF.astype(np.uint8), metadata=metadata)
    assert f"{CUT_OFF.sum() / 4:,.0f} µm² → {WHOLE.sum() / 4:,.0f} µm²" in press(qtbot, widget)


def test_one_undo_brings_back_what_was_painted_and_redo_completes_again(qtbot, docked) -> None:
    rough = CUT_OFF | disc(10, 10, 4)
    _, layer, widget = docked(rough.astype(np.uint8))
    press(qtbot, widget)
    np.testing.assert_array_equal(layer.data, WHOLE)
    layer.undo()
    np.testing.assert_array_equal(layer.data, rough)
    layer.redo()
    np.testing.assert_array_equal(layer.data, WHOLE)


def test_every_painted_pixel_is_kept_on_request(qtbot, docked) -> None:
    rough = CUT_OFF | disc(10, 10, 4)
    _, layer, widget = docked(rough.astype(np.uint8))
    widget.keep.setChecked(True)
    press(qtbot, widget)
    np.testing.assert_array_equal(layer.data, WHOLE | rough)


def test_other_labels_of_the_layer_stay(qtbot, docked) -> None:
    other = disc(24, 44, 6)
    data = np.where(CUT_OFF, 3, 2 * other).astype(np.uint16)
    _, layer, widget = docked(data)
    layer.selected_label = 3
    assert "Label 3" in widget.about.text()
    press(qtbot, widget)
    np.testing.assert_array_equal(layer.data == 2, other & ~CUT_OFF)
    np.testing.assert_array_equal(layer.data == 3, WHOLE & ~(other & ~CUT_OFF))


def test_only_the_frame_that_is_looked_at_is_completed(qtbot, docked) -> None:
    film = np.stack([CUT_OFF] * 3).astype(np.uint8)
    viewer, layer, widget = docked(film, scale=(2, 0.5, 0.5))
    viewer.dims.set_point(0, 2)
    assert "current frame" in widget.about.text()
    press(qtbot, widget)
    np.testing.assert_array_equal(layer.data, [CUT_OFF, WHOLE, CUT_OFF])
    viewer.dims.set_point(0, 0)
    layer.undo()
    np.testing.assert_array_equal(layer.data, film)


def select_background(viewer: Any, layer: Labels) -> None:
    layer.selected_label = 0


def select_another(viewer: Any, layer: Labels) -> None:
    layer.selected_label = 2


def look_in_3d(viewer: Any, layer: Labels) -> None:
    viewer.dims.ndisplay = 3


def roll(viewer: Any, layer: Labels) -> None:
    viewer.dims.roll()


def lock(viewer: Any, layer: Labels) -> None:
    layer.editable = False


def make_lazy(viewer: Any, layer: Labels) -> None:
    layer.data = da.from_array(layer.data)


FILM = np.stack([CUT_OFF] * 3).astype(np.uint8)


@pytest.mark.parametrize(
    ("data", "spoil", "said"),
    [
        (np.zeros(HW, np.uint8), None, "0 pixels of label 1 are painted"),
        (FILM * 0, None, "painted in this frame"),
        (CUT_OFF.astype(np.uint8), select_background, "label 0 is the background"),
        (CUT_OFF.astype(np.uint8), select_another, "0 pixels of label 2"),
        (FILM, look_in_3d, "shows three dimensions"),
        (FILM, roll, "roll them back"),
        (CUT_OFF.astype(np.uint8), lock, "cannot be painted"),
        (CUT_OFF.astype(np.uint8), make_lazy, "labels in memory"),
    ],
)
def test_what_cannot_be_completed_is_refused_with_the_reason(
    qtbot, docked, data: npt.NDArray[np.uint8], spoil: Callable[[Any, Labels], None] | None, said: str
) -> None:
    viewer, layer, widget = docked(data.copy())
    if spoil is not None:
        spoil(viewer, layer)
    assert said in press(qtbot, widget)
    np.testing.assert_array_equal(np.asarray(layer.data), data)


def test_without_labels_it_says_what_to_do(qtbot, make_viewer) -> None:
    viewer = make_viewer()
    widget = CompleteWidget(viewer)
    viewer.window.add_dock_widget(widget)
    assert "paint a cell" in widget.about.text()
    assert "no Labels layer" in press(qtbot, widget)


def test_a_shape_code_that_knows_no_such_cell_changes_nothing(qtbot, docked) -> None:
    _, layer, widget = docked(CUT_OFF.astype(np.uint8), np.zeros(HW, bool))
    assert "nothing was changed" in press(qtbot, widget)
    np.testing.assert_array_equal(layer.data, CUT_OFF)


def test_what_is_painted_meanwhile_is_not_lost(qtbot, docked, monkeypatch: pytest.MonkeyPatch) -> None:
    _, layer, widget = docked(CUT_OFF.astype(np.uint8))

    def paint(mask: Bools, weights: str) -> npt.NDArray[np.float32]:
        layer.data[40, 40] = 1
        return WHOLE.astype(np.float32)

    monkeypatch.setattr(completion, "complete", paint)
    assert "painted on in the meantime" in press(qtbot, widget)
    np.testing.assert_array_equal(layer.data == 1, CUT_OFF | disc(40, 40, 0))


@pytest.mark.window
def test_the_active_labels_are_the_ones_completed(qtbot, docked) -> None:
    viewer, first, widget = docked(CUT_OFF.astype(np.uint8))
    second = viewer.add_labels(np.where(CUT_OFF, 7, 0).astype(np.uint8), name="second")
    assert widget.labels.value is second
    assert "Label 1" in widget.about.text()
    second.selected_label = 7
    assert "Label 7" in widget.about.text()
    viewer.layers.selection.active = first
    assert widget.labels.value is first
    viewer.layers.remove(first)
    assert widget.labels.value is second


def test_weights_that_are_not_there_are_named(qtbot, docked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete = completion.complete
    _, layer, widget = docked(CUT_OFF.astype(np.uint8))
    monkeypatch.setattr(completion, "complete", complete)
    widget.weights.value = str(tmp_path / "none.safetensors")
    assert "none.safetensors" in press(qtbot, widget)
    np.testing.assert_array_equal(layer.data, CUT_OFF)


@pytest.mark.window
def test_it_fits_a_laptop(docked) -> None:
    _, _, widget = docked(CUT_OFF.astype(np.uint8))
    assert widget.minimumSizeHint().height() < 600
    assert widget.minimumSizeHint().width() < 480
