"""The Open embryo form: its rules without a window, then the window."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_embryo.io import ImageError, OpenChoices, open_layers, plan_folder, plan_path
from napari_embryo.widgets.open import FormText, OpenEmbryo, choices_of, known_text, layers_of, text_of


def incubator(folder: Path, runs: list[int], well: int = 7) -> Path:
    folder.mkdir(exist_ok=True)
    for run in runs:
        pixels = np.random.default_rng(run).integers(0, 255, (32, 40)).astype("uint8")
        Image.fromarray(pixels).save(folder / f"D2013.01.28_S0717_I132_WELL{well}_RUN{run}.png")
    return folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FormText(), OpenChoices()),
        (FormText(pixel_size_um=" 0.5 "), OpenChoices(pixel_size_um=(0.5, 0.5))),
        (FormText(pixel_size_um="0,5"), OpenChoices(pixel_size_um=(0.5, 0.5))),
        (FormText(pixel_size_um="0.5 x 0,25"), OpenChoices(pixel_size_um=(0.5, 0.25))),
        (FormText(pixel_size_um="1e-1×2"), OpenChoices(pixel_size_um=(0.1, 2))),
        (FormText(hours_per_frame=".25", first_hour="-3"), OpenChoices(hours_per_frame=0.25, first_hour=-3)),
        (FormText(axes="FYX", focus="edf", gaps="empty"), OpenChoices(axes="FYX", focus="edf", gaps="empty")),
    ],
)
def test_reading_the_form(text: FormText, expected: OpenChoices) -> None:
    assert choices_of(text) == expected
    assert choices_of(text_of(expected)) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (FormText(pixel_size_um="half"), "µm per pixel: 'half' was given"),
        (FormText(pixel_size_um="0"), "above 0"),
        (FormText(pixel_size_um="1 x 2 x 3"), "height x width"),
        (FormText(pixel_size_um="1 x"), "height x width"),
        (FormText(pixel_size_um="nan"), "enter a number"),
        (FormText(hours_per_frame="-1"), "Hours between frames: '-1' was given"),
        (FormText(first_hour="noon"), "Hours at the first frame: 'noon' was given"),
    ],
)
def test_what_the_form_does_not_accept(text: FormText, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        choices_of(text)


def test_what_the_files_know_is_shown(tmp_path: Path) -> None:
    known = known_text(plan_folder(incubator(tmp_path, [1, 2])))
    assert (known.pixel_size_um, known.hours_per_frame, known.first_hour) == ("unknown",) * 3


def test_one_broken_image_does_not_stop_the_others(tmp_path: Path) -> None:
    incubator(tmp_path, [1, 2, 3])
    plan = plan_path(tmp_path, "separate")
    plan.images[1].header.path.write_text("hello")
    items = [progress.item for progress in layers_of(plan)]
    assert [isinstance(item, ImageError) for item in items] == [False, True, False]


# --- the window -----------------------------------------------------------------------------------------------------


def shown(qtbot: Any, widget: OpenEmbryo, path: Path) -> None:
    widget.path.value = str(path)
    qtbot.waitUntil(lambda: widget.open_button.enabled, timeout=10000)


def test_look_change_open(tmp_path: Path, make_napari_viewer_proxy: Callable[[], Any], qtbot: Any) -> None:
    viewer = make_napari_viewer_proxy()
    widget = OpenEmbryo(viewer)
    incubator(tmp_path, [1, 2, 3, 5])
    incubator(tmp_path, [1, 2], well=8)
    shown(qtbot, widget, tmp_path)
    assert "4 frames, 40 x 32 uint8, no pixel size known, no hours known" in widget.plan_text.value
    assert "missing runs: 4" in widget.plan_text.value

    widget.pixel_size_um.value = "half"
    assert "'half' was given" in widget.status.value
    assert not widget.open_button.enabled
    choices = OpenChoices(axes="TYX", pixel_size_um=(0.5, 0.5), hours_per_frame=0.25, first_hour=20, gaps="empty")
    widget.set_value(choices)
    assert widget.value() == choices
    assert "5 frames, 40 x 32 uint8, 0.5 um/px, 20 to 21 h" in widget.plan_text.value

    widget.open_button.native.click()
    qtbot.waitUntil(lambda: len(viewer.layers) == 2 and widget.open_button.enabled, timeout=10000)
    layer = viewer.layers[0]
    assert (layer.name, layer.axis_labels) == ("D2013.01.28_S0717_I132_WELL7", ("t", "y", "x"))
    assert [str(unit) for unit in layer.units] == ["hour", "micrometer", "micrometer"]
    np.testing.assert_array_equal(layer.scale, (0.25, 0.5, 0.5))
    assert viewer.layers[1].data.shape == (2, 32, 40)


def test_a_folder_without_images_is_said(
    tmp_path: Path, make_viewer: Callable[[], Any], qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("napari_embryo.widgets.open.show_error", said.append)
    widget = OpenEmbryo(make_viewer())
    widget.path.value = str(tmp_path)
    qtbot.waitUntil(lambda: bool(said), timeout=10000)
    assert "no image in this folder" in said[0]
    assert "no image in this folder" in widget.plan_text.value
    assert not widget.open_button.enabled


def test_looking_and_reading_leave_the_window_alive(
    tmp_path: Path, make_viewer: Callable[[], Any], qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def note(function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            threads.append(threading.current_thread())
            return function(*args)

        return noted

    from napari_embryo.widgets import open as module

    monkeypatch.setattr(module, "look_at", note(module.look_at))
    monkeypatch.setattr(module, "open_layers", note(open_layers))
    viewer = make_viewer()
    widget = OpenEmbryo(viewer)
    shown(qtbot, widget, incubator(tmp_path, [1, 2]))
    widget.open()
    qtbot.waitUntil(lambda: len(viewer.layers) == 1 and widget.open_button.enabled, timeout=10000)
    assert threads
    assert threading.main_thread() not in threads


def test_cancel_keeps_what_was_opened(
    tmp_path: Path, make_viewer: Callable[[], Any], qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_embryo.widgets import open as module

    go_on = threading.Event()
    monkeypatch.setattr(module, "open_layers", lambda planned: (go_on.wait(10), open_layers(planned))[1])
    viewer = make_viewer()
    widget = OpenEmbryo(viewer)
    widget.grouping.value = "separate"
    shown(qtbot, widget, incubator(tmp_path, list(range(1, 9))))
    widget.open()
    widget.cancel()
    go_on.set()
    qtbot.waitUntil(lambda: not widget.cancel_button.enabled, timeout=10000)
    assert len(viewer.layers) < 8
    assert widget.open_button.enabled


def test_it_fits_a_laptop(make_napari_viewer_proxy: Callable[..., Any], qtbot: Any) -> None:
    viewer = make_napari_viewer_proxy(show=True)
    widget = OpenEmbryo(viewer)
    dock = viewer.window.add_dock_widget(widget, name="Open embryo")
    qtbot.waitUntil(lambda: widget.native.width() <= dock.width() < 600, timeout=5000)
    hint = widget.native.minimumSizeHint()
    assert hint.height() <= 600
    assert hint.width() <= 450
    if folder := os.environ.get("NAPARI_EMBRYO_SCREENSHOTS"):
        viewer.window.screenshot(str(Path(folder) / "open.png"), canvas_only=False)


def test_a_stack_that_does_not_say_what_it_holds_is_asked_for(
    tmp_path: Path, make_viewer: Callable[[], Any], qtbot: Any
) -> None:
    import tifffile

    stack = np.random.default_rng(0).integers(0, 255, (5, 32, 40)).astype("uint8")
    about = "ImageJ=1.53t\nimages=5\nslices=5\nunit=pixel\n"
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", metadata=None, description=about)
    viewer = make_viewer()
    widget = OpenEmbryo(viewer)
    widget.path.value = str(tmp_path / "a.tif")
    qtbot.waitUntil(lambda: "5 frames" in widget.plan_text.value, timeout=10000)
    assert "does not say what its axes are" in widget.status.value
    assert (widget.axes.value, widget.open_button.enabled) == ("", False)
    widget.axes.value = "FYX"
    widget.spacing_um.value = "15"
    assert widget.open_button.enabled
    widget.axes.reset_choices()  # as napari does with every new layer
    assert widget.axes.value == "FYX"
    widget.open()
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=10000)
    assert (viewer.layers[0].axis_labels, viewer.layers[0].scale[0]) == (("f", "y", "x"), 15)


def test_what_was_assumed_is_shown(tmp_path: Path, make_viewer: Callable[[], Any], qtbot: Any) -> None:
    for well in (1, 2):
        incubator(tmp_path, [1, 2], well)
    widget = OpenEmbryo(make_viewer())
    shown(qtbot, widget, tmp_path)
    assert "2 files are one embryo: their names count frames in time (RUN)" in widget.plan_text.value
