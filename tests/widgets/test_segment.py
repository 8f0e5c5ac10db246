"""What a user notices of the Segment widget, with the layers of a real viewer."""

import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import pytest
from napari.layers import Image, Labels
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QTimer

from napari_embryo import render, samples
from napari_embryo.notes import RESEARCH_USE
from napari_embryo.settings import SegmentSettings
from napari_embryo.widgets import segment as module
from napari_embryo.widgets._layers import LabelStack, described, source_of
from napari_embryo.widgets.segment import SegmentWidget

Pixels = npt.NDArray[np.uint8]
PLACED = {"scale": (2.0, 0.5, 0.5), "translate": (10.0, 3.0, 4.0), "units": ("hour", "um", "um"), "axis_labels": "tyx"}


@pytest.fixture
def docked(
    make_viewer, tiny_settings: SegmentSettings, load_once: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Any, SegmentWidget]]:
    """A viewer with images and the widget in it."""
    from napari_embryo.models import checkpoint

    monkeypatch.setattr(checkpoint, "load", load_once)
    notification_manager.records.clear()

    def make(*images: Any, **about: Any) -> tuple[Any, SegmentWidget]:
        viewer = make_viewer()
        for image in images:
            viewer.add_image(image, **about)
        widget = SegmentWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Segment")
        widget.form.set_value(tiny_settings)
        return viewer, widget

    return make


def finish(qtbot, widget: SegmentWidget) -> None:
    qtbot.waitUntil(lambda: not widget.panel.running, timeout=60_000)


def run(qtbot, widget: SegmentWidget, frames: str = "all frames") -> None:
    widget.frames.setCurrentText(frames)
    widget.run()
    finish(qtbot, widget)


def shown() -> str:
    return "\n".join(str(notification.message) for notification in notification_manager.records)


# --- results ----------------------------------------------------------------------------------------------------------


def test_the_sample_becomes_labels_and_maps_that_lie_on_it(qtbot, docked, tiny_weights: Path) -> None:
    viewer, widget = docked()
    data, about, _ = samples.blastocyst()[0]
    image = viewer.add_image(data, **about)
    run(qtbot, widget)
    labels = viewer.layers["blastocyst blastocyst"]
    maps = [viewer.layers["blastocyst SA3"], viewer.layers["blastocyst LA1"]]

    assert isinstance(labels, Labels)
    assert (labels.data.shape, labels.data.dtype) == (data.shape, np.uint8)
    assert set(np.unique(labels.data)) <= {0, 1, 2, 3}
    assert labels.data.any()
    for layer in (labels, *maps):
        np.testing.assert_array_equal(layer.scale, image.scale)
        np.testing.assert_array_equal(layer.translate, image.translate)
        assert (layer.units, layer.axis_labels) == (image.units, image.axis_labels)
    assert viewer.layers.index(labels) > viewer.layers.index(maps[0])
    assert [layer.visible for layer in maps] == [True, False]
    assert widget.panel.status.text().startswith("Done on cpu.")

    metadata = labels.metadata
    assert metadata["classes"] == ("ICM", "TE", "ZP")
    assert metadata["family"] == "resanet"
    assert len(metadata["weights_sha256"]) == 64
    assert metadata["settings"]["weights"] == tiny_weights.name  # without its folder
    assert metadata["source_layer"] == {"name": "blastocyst", "unique_id": str(image.unique_id)}
    assert {"program", "created", "weights"} <= metadata.keys()
    assert [row["class"] for row in metadata["measurements"]] == ["ICM", "TE", "ZP"]
    assert metadata["failures"] == []


def test_classes_have_their_fixed_colors_and_names(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[0], name="day 5")
    run(qtbot, widget)
    labels = viewer.layers["day 5 blastocyst"]
    for value, name in enumerate(("ICM", "TE", "ZP"), start=1):
        np.testing.assert_allclose(labels.get_color(value)[:3], np.divide(render.COLORS[name], 255), atol=1e-6)
    assert list(labels.features["class"]) == ["background", "ICM", "TE", "ZP"]


def test_maps_are_shown_in_their_modules_range(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[0], name="a")
    widget.maps.value = ("SA1", "SA3", "CA2")
    run(qtbot, widget)
    for name, window in {"SA1": [0, 4], "SA3": [0, 1], "CA2": [-1, 1]}.items():
        layer = viewer.layers[f"a {name}"]
        assert (layer.contrast_limits, layer.colormap.name, layer.blending) == (window, "inferno", "additive")
        assert layer.metadata["meaning"]


def test_the_labels_can_be_painted(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[0], name="a")
    run(qtbot, widget)
    labels = viewer.layers["a blastocyst"]
    labels.paint((5, 5), 2)
    assert labels.data[5, 5] == 2
    assert labels.editable


def test_a_second_run_leaves_corrected_labels_alone(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[0], name="a")
    run(qtbot, widget)
    corrected = viewer.layers["a blastocyst"]
    corrected.data[:] = 3
    run(qtbot, widget)
    assert (corrected.data == 3).all()
    assert not (viewer.layers["a blastocyst [1]"].data == 3).all()


# --- stacks -----------------------------------------------------------------------------------------------------------


def test_a_time_lapse_fills_up_and_the_maps_are_lazy(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels, name="film", **PLACED)
    run(qtbot, widget)
    labels, attention = viewer.layers["film blastocyst"], viewer.layers["film SA3"]
    assert labels.data.shape == attention.data.shape == pixels.shape
    assert isinstance(attention.data, da.Array)
    assert labels.data.any(axis=(1, 2)).all()
    frames = np.asarray(attention.data)
    assert 0 < frames.min() < frames.max() < 1
    assert len({frame.tobytes() for frame in frames}) == len(frames)
    assert [row["frame"] for row in labels.metadata["measurements"]] == [t for t in range(6) for _ in range(3)]
    assert labels.metadata["measurements"][-1]["hours"] == 20
    assert [str(unit) for unit in attention.units] == ["hour", "micrometer", "micrometer"]


def test_a_frame_seen_too_early_is_drawn_again(qtbot, docked, pixels: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_down(monkeypatch, 0.3)
    viewer, widget = docked(pixels, name="film")
    viewer.dims.set_point(0, 5)
    widget.frames.setCurrentText("all frames")
    widget.run()
    qtbot.waitUntil(lambda: "film SA3" in viewer.layers, timeout=60_000)
    attention = viewer.layers["film SA3"]
    early = np.asarray(attention._data_view).copy()
    finish(qtbot, widget)
    assert not early.any()
    np.testing.assert_array_equal(attention._data_view, np.asarray(attention.data[5]))
    np.testing.assert_array_equal(
        viewer.layers["film blastocyst"]._slice.image.raw, viewer.layers["film blastocyst"].data[5]
    )


def test_canceling_leaves_the_finished_frames(qtbot, docked, pixels: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_down(monkeypatch, 0.1)
    viewer, widget = docked(np.tile(pixels, (5, 1, 1)), name="film")
    widget.frames.setCurrentText("all frames")
    widget.run()
    qtbot.waitUntil(lambda: "film blastocyst" in viewer.layers, timeout=60_000)
    widget.panel.cancel_button.click()
    finish(qtbot, widget)
    done = viewer.layers["film blastocyst"].data.any(axis=(1, 2))
    assert done[0]
    assert not done[-1]
    assert widget.panel.status.text() == f"Canceled: {done.sum()} of 30 done and kept."


def slow_down(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Every step takes a while longer."""
    quick = module.segment

    def slow(*args: Any) -> Any:
        steps = quick(*args)
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                return end.value
            time.sleep(seconds)
            yield step

    monkeypatch.setattr(module, "segment", slow)


def test_the_current_frame_is_the_one_looked_at(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels, name="film", **PLACED)
    viewer.dims.set_point(0, 10 + 4 * 2.0)
    run(qtbot, widget, "current frame")
    done = viewer.layers["film blastocyst"].data.any(axis=(1, 2))
    assert list(np.flatnonzero(done)) == [4]


def test_what_is_painted_meanwhile_stays() -> None:
    stack = LabelStack((2, 4, 4))
    stack.data[1, 0, 0] = 2
    stack.put((1,), np.full((4, 4), 3, np.uint8))
    assert stack.data[1, 0, 0] == 2
    assert (stack.data[1].ravel()[1:] == 3).all()
    assert not stack.data[0].any()


# --- kinds of layers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "axes"),
    [
        pytest.param(lambda p: (np.repeat(p[0][..., None], 3, -1), {"rgb": True}), "YX", id="RGB"),
        pytest.param(lambda p: (np.repeat(p[:2, ..., None], 4, -1), {"rgb": True}), "TYX", id="RGBA film"),
        pytest.param(
            lambda p: (da.from_array(np.repeat(p[:2, ..., None], 3, -1)), {"rgb": True}), "TYX", id="lazy RGB"
        ),
        pytest.param(lambda p: ([p[:2], p[:2, ::2, ::2]], {"multiscale": True}), "TYX", id="multiscale"),
        pytest.param(lambda p: (da.from_array(p[:2], chunks=(1, 48, 64)), {}), "TYX", id="dask"),
        pytest.param(lambda p: (p[:2], {"axis_labels": ("z", "y", "x")}), "FYX", id="focal planes"),
        pytest.param(lambda p: (p[:4].reshape(2, 2, 48, 64), {}), "TFYX", id="film of focal planes"),
        pytest.param(lambda p: (p[0] > 127, {}), "YX", id="bool"),
        pytest.param(
            lambda p: (p[0] / np.float32(255), {"affine": [[1, 0.2, 5], [0, 1, 6], [0, 0, 1]]}), "YX", id="float"
        ),
    ],
)
def test_works_on(qtbot, docked, pixels: Pixels, make: Callable[[Pixels], Any], axes: str) -> None:
    data, about = make(pixels)
    viewer, widget = docked(data, name="a", **about)
    image = viewer.layers["a"]
    assert source_of(image).image.axes == axes
    run(qtbot, widget)
    labels = viewer.layers["a blastocyst"]
    assert labels.data.reshape(-1, 48, 64).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(labels.extent.world, image.extent.world)
    assert labels.metadata["napari_embryo"]["axes"] == axes


def test_gray_and_color_give_the_same(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[0], np.repeat(pixels[0][..., None], 3, -1), name="a")
    for layer in list(viewer.layers):
        widget.image.value = layer
        run(qtbot, widget)
    np.testing.assert_array_equal(viewer.layers["a blastocyst"].data, viewer.layers["a [1] blastocyst"].data)


def test_frames_that_cannot_be_done_are_named_and_the_others_are_done(qtbot, docked, pixels: Pixels) -> None:
    film = pixels[:3].astype(np.float32)
    film[1, 0, 0] = np.nan
    viewer, widget = docked(film, name="film")
    run(qtbot, widget)
    labels = viewer.layers["film blastocyst"]
    assert list(labels.data.any(axis=(1, 2))) == [True, False, True]
    assert "1 of 3 could not be processed" in shown()
    assert "NaN" in shown()
    assert [index for index, _ in labels.metadata["failures"]] == [[1]]
    assert widget.panel.status.text().startswith("Done on cpu. 2 of 3 frames.")


# --- errors and notes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "needed"),
    [
        pytest.param(np.full((48, 64), np.nan, np.float32), "NaN", id="NaN"),
        pytest.param(np.zeros((4, 4), np.uint8), "at least 16 x 16", id="tiny"),
        pytest.param(np.zeros((1, 1, 1, 48, 64), np.uint8), "5 dimensions", id="5D"),
    ],
)
def test_an_image_that_cannot_be_done_is_refused_with_the_reason(qtbot, docked, data: Any, needed: str) -> None:
    viewer, widget = docked(data, name="odd", contrast_limits=(0, 1))
    run(qtbot, widget)
    assert needed in widget.panel.status.text()
    assert needed in shown()
    assert len(viewer.layers) == 1


def test_weights_that_are_not_there_are_named(qtbot, docked, pixels: Pixels) -> None:
    _, widget = docked(pixels[0])
    widget.form.set_value(SegmentSettings(weights="/no/such.safetensors"))
    run(qtbot, widget)
    assert "/no/such.safetensors" in shown()
    assert not widget.panel.running


def test_without_an_image_it_says_what_to_do(docked) -> None:
    _, widget = docked()
    assert "Open Sample" in widget.about.text()
    widget.run()
    assert "no image layer" in shown()


def test_running_out_of_memory_falls_back_and_says_so(
    qtbot, docked, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from napari_embryo.predict import Predictor

    compute = Predictor._forward

    def cramped(self: Predictor, inputs: torch.Tensor) -> Any:
        if len(inputs) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return compute(self, inputs)

    monkeypatch.setattr(Predictor, "_forward", cramped)
    viewer, widget = docked(pixels, name="film")
    widget.form.set_value(widget.form.value().model_copy(update={"batch_size": 4}))
    run(qtbot, widget)
    assert viewer.layers["film blastocyst"].data.any(axis=(1, 2)).all()
    assert "continuing with batches of 2" in shown()
    assert "continuing with batches of 1" in shown()


# --- the window -------------------------------------------------------------------------------------------------------


@pytest.mark.window
def test_the_window_stays_alive_and_shows_how_far_it_is(
    qtbot, docked, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_down(monkeypatch, 0.2)
    _, widget = docked(np.tile(pixels, (3, 1, 1)), name="film")
    ticks, seen = [], set()

    def tick() -> None:
        ticks.append(time.process_time())  # other programs may keep the processor busy
        seen.add(widget.panel.bar.value())

    timer = QTimer(widget)
    timer.timeout.connect(tick)
    timer.start(10)
    run(qtbot, widget)
    timer.stop()
    assert len(ticks) > 30
    # The longest pause is napari's own, adding three layers.
    assert max(b - a for a, b in pairwise(ticks)) < 2
    assert len(seen & set(range(1, 19))) >= 3


def test_the_viewer_is_touched_on_the_main_thread_only(
    qtbot, make_napari_viewer_proxy, tiny_settings: SegmentSettings, pixels: Pixels
) -> None:
    viewer = make_napari_viewer_proxy(ensure_main_thread=True)
    viewer.add_image(pixels, name="film")
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.form.set_value(tiny_settings)
    run(qtbot, widget)
    assert "film blastocyst" in viewer.layers
    assert widget.panel.status.text().startswith("Done")


def test_a_renamed_layer_stays_chosen(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[0], pixels[1], name="a")
    second = viewer.layers["a [1]"]
    widget.image.value = second
    second.name = "day 5"
    assert widget.image.value is second
    assert widget.image.native.currentText() == "day 5"
    run(qtbot, widget)
    assert "day 5 blastocyst" in viewer.layers


@pytest.mark.window
def test_layers_come_and_go_and_results_are_not_offered(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[0], name="a")
    run(qtbot, widget)
    offered = [widget.image.native.itemText(i) for i in range(widget.image.native.count())]
    assert offered == ["a"]
    viewer.layers.clear()
    assert widget.image.value is None


@pytest.mark.window
def test_closing_the_dock_stops_the_run(qtbot, docked, pixels: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_down(monkeypatch, 0.1)
    viewer, widget = docked(np.tile(pixels, (5, 1, 1)), name="film")
    widget.frames.setCurrentText("all frames")
    widget.run()
    qtbot.waitUntil(lambda: "film blastocyst" in viewer.layers, timeout=60_000)
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    del widget
    qtbot.wait(300)
    done = viewer.layers["film blastocyst"].data.any(axis=(1, 2)).sum()
    qtbot.wait(300)
    assert viewer.layers["film blastocyst"].data.any(axis=(1, 2)).sum() == done < 30
    viewer.add_image(pixels[0])


@pytest.mark.window
def test_closing_the_window_stops_the_run(qtbot, docked, pixels: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari._qt.qthreading import wait_for_workers_to_quit

    slow_down(monkeypatch, 0.1)
    viewer, widget = docked(np.tile(pixels, (5, 1, 1)), name="film")
    widget.frames.setCurrentText("all frames")
    widget.run()
    qtbot.waitUntil(lambda: "film blastocyst" in viewer.layers, timeout=60_000)
    viewer.close()
    wait_for_workers_to_quit(5000)
    qtbot.wait(100)
    assert "stopped" not in shown()


@pytest.mark.window
def test_it_fits_a_laptop_and_says_research_use_only(docked, pixels: Pixels) -> None:
    _, widget = docked(pixels, name="film")
    widget.form.advanced.expand(animate=False)
    assert widget.minimumSizeHint().height() < 600
    assert widget.minimumSizeHint().width() < 480
    assert RESEARCH_USE.startswith("Research use only")
    assert any(label.text() == RESEARCH_USE for label in widget.findChildren(type(widget.about)))


def test_what_the_image_is_taken_for_is_said(docked, pixels: Pixels) -> None:
    _, widget = docked(pixels, name="film", **PLACED)
    assert widget.about.text() == "6 frames, 64 x 48 pixels of 0.5 µm"
    assert widget.frames.isEnabled()


def test_a_single_picture_has_no_frames_to_choose(docked, pixels: Pixels) -> None:
    _, widget = docked(pixels[0], name="a")
    assert widget.about.text() == "64 x 48 pixels of unknown size"
    assert not widget.frames.isEnabled()


def test_devices_say_what_they_are(qtbot, docked) -> None:
    _, widget = docked()
    widget.device.describe({"cuda": "torch is built without CUDA", "mps": "no Apple graphics processor", "cpu": None})
    texts = [widget.device.box.itemText(i) for i in range(4)]
    assert texts[0] == "auto – the fastest available: cpu"
    assert texts[1] == "cuda – not usable: torch is built without CUDA"
    widget.device.value = "cuda"
    assert widget.device.line.text() == "Not usable: torch is built without CUDA"


def test_devices_are_looked_for_when_the_list_is_reached_for(qtbot, docked) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    _, widget = docked()
    assert widget.device.box.itemText(3) == "cpu – processor: slower, always available"
    QTest.keyClick(widget.device.box, Qt.Key.Key_Home)
    qtbot.waitUntil(
        lambda: "cpu" in widget.device.box.itemText(0) or "cuda" in widget.device.box.itemText(0), timeout=60_000
    )


def test_the_preferences_are_the_form_s_beginning(make_viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    mine = {"family": "regdeeplab", "device": "cpu", "weights": "/mine.safetensors", "batch_size": 2}
    given = SimpleNamespace(segment=SimpleNamespace(**mine))
    monkeypatch.setattr(module, "get_plugin_settings", lambda name: given)
    widget = SegmentWidget(make_viewer())
    assert widget.form.value() == SegmentSettings.model_validate(mine)
    widget.deleteLater()


def test_a_family_brings_its_own_maps_and_layers(make_viewer) -> None:
    widget = SegmentWidget(make_viewer())
    family = widget.form.editors["family"]
    family.value = "unet"
    assert widget.form.value().maps == ()
    assert ("bottleneck", "bottleneck") in [(name, name) for name in widget.grad_cam.choices]
    family.value = "resanet"
    assert widget.form.value() == SegmentSettings()
    widget.deleteLater()


FRESH = """
import sys
import napari
import numpy as np
from qtpy.QtCore import QEventLoop, QTimer
from napari_embryo.settings import SegmentSettings
from napari_embryo.widgets.segment import SegmentWidget

def wait(ms):
    loop = QEventLoop()
    QTimer.singleShot(ms, loop.quit)
    loop.exec()

viewer = napari.Viewer(show=True)
viewer.add_image(np.random.default_rng(0).integers(0, 255, (48, 64), np.uint8), name="a")
widget = SegmentWidget(viewer)
viewer.window.add_dock_widget(widget)
wait(300)
assert not {"torch", "torchvision", "captum", "triton"} & sys.modules.keys(), "torch was imported on opening"
widget.form.set_value(SegmentSettings(weights=sys.argv[1], device="cpu", maps=("SA3",)))
widget.run()
while widget.panel.running:
    wait(50)
assert "torch" in sys.modules
print([layer.name for layer in viewer.layers])
viewer.close()
"""


@pytest.mark.slow
def test_a_fresh_window_opens_without_torch_and_survives_its_import(tiny_weights: Path) -> None:
    """Mesa's LLVM and triton's in one process crash it unless they are kept apart."""
    done = subprocess.run([sys.executable, "-c", FRESH, str(tiny_weights)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['a', 'a SA3', 'a blastocyst']"


def test_the_line_about_an_image_names_its_planes(pixels: Pixels) -> None:
    layer = Image(pixels.reshape(2, 3, 48, 64), scale=(1, 1, 0.5, 0.25), units=("pixel", "um", "um", "um"))
    assert described(source_of(layer).image) == "2 frames, 3 focal planes, 64 x 48 pixels of 0.5 x 0.25 µm"
