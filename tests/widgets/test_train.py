"""What a user notices of the Train widget, with the layers of a real viewer."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from napari.layers import Image, Labels
from napari.utils.notifications import notification_manager
from PIL import Image as Pictures
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QMainWindow

from napari_embryo import recipes, stream
from napari_embryo.families import FAMILIES, ResANetSettings, ShapeCodeSettings, UNetSettings, VQAmodalSettings
from napari_embryo.notes import RESEARCH_USE
from napari_embryo.settings import Augmentation, DataSettings, Preprocessing, Recipe, SegmentSettings, TrainSettings
from napari_embryo.widgets import _train_work
from napari_embryo.widgets._curves import Curves, Point
from napari_embryo.widgets._editors import ModelBox
from napari_embryo.widgets._recipe_form import RecipeForm
from napari_embryo.widgets._samples import pair_of
from napari_embryo.widgets.complete import CompleteWidget
from napari_embryo.widgets.segment import SegmentWidget
from napari_embryo.widgets.train import TrainWidget

HW = (48, 64)
TINY = Recipe(
    name="tiny",
    model=UNetSettings(base_channels=4),
    preprocessing=Preprocessing(height=48, width=64),
    start="random",
    data=DataSettings(validation=0.34),
    training=TrainSettings(epochs=2, batch_size=2, device="cpu", precision="float32"),
)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of a test goes among the user's own models, samples and runs."""
    monkeypatch.setenv("NAPARI_EMBRYO_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr("napari_embryo.widgets.train.user_folder", lambda name: tmp_path / name)
    monkeypatch.setattr("napari_embryo.widgets._samples.user_folder", lambda name: tmp_path / name)
    notification_manager.records.clear()
    return tmp_path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six annotated pictures of six embryos: rings in noise."""
    folder = tmp_path / "annotated"
    folder.mkdir()
    for number in range(6):
        gray = np.random.default_rng(number).integers(0, 60, HW, np.uint8)
        y, x = np.mgrid[: HW[0], : HW[1]]
        gray[np.hypot(y - 24, x - 32) < 18] += 100
        Pictures.fromarray(gray).save(folder / f"embryo{number}.png")
        shapes = [
            {"label": label, "points": circle(radius), "shape_type": "polygon"}
            for label, radius in (("zp_outer", 20), ("zp_inner", 16), ("cavity", 8), ("icm", 5))
        ]
        (folder / f"embryo{number}.json").write_text(
            json.dumps({"shapes": shapes, "imagePath": f"embryo{number}.png", "imageHeight": 48, "imageWidth": 64})
        )
    return folder


def circle(radius: float) -> list[list[float]]:
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return [[32 + radius * float(np.cos(a)), 24 + radius * float(np.sin(a))] for a in angles]


@pytest.fixture
def docked(make_viewer) -> Callable[..., tuple[Any, TrainWidget]]:
    def make(show: bool = False) -> tuple[Any, TrainWidget]:
        viewer = make_viewer(show=show)
        widget = TrainWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Train (napari-embryo)")
        return viewer, widget

    return make


def fill_in(widget: TrainWidget, folder: Path, **training: Any) -> None:
    chosen = {
        "data": TINY.data.model_copy(update={"folders": (str(folder),)}),
        "training": TINY.training.model_copy(update=training),
    }
    widget.form.set_value(TINY.model_copy(update=chosen))


def finish(qtbot, widget: TrainWidget) -> None:
    qtbot.waitUntil(lambda: not widget.panel.running, timeout=120_000)


def shown() -> str:
    return "\n".join(str(notification.message) for notification in notification_manager.records)


# --- a process that only tells ----------------------------------------------------------------------------------------

TELLER = """
import sys, threading, time
from napari_embryo import stream
from napari_embryo.notes import Note
from napari_embryo.stream import Epoch, Error, Finished, Noted, Paused, Report, Resumed, Step
words = []

def listen():
    for line in sys.stdin:
        words.append(line.strip())
    words.append("stop")

def tell(event):
    print(stream.encode(event), flush=True)

def step(done, epoch):
    tell(Step(done=done, total=40, epoch=epoch, losses={"dice": 1 / done}, learning_rate=1e-3, seconds=0.01))

def epoch(number, best=True):
    tell(Epoch(
        done=number * 10, total=40, epoch=number, train={"dice": 1 / number}, validation={"dice": 2 / number},
        scores={"IoU ICM": 0.5 + number / 10, "IoU TE": 0.4}, worst=(("embryo1", 0.1), ("embryo2", 0.2)),
        learning_rate=1e-3, seconds=0.1, best=best,
    ))

threading.Thread(target=listen, daemon=True).start()
"""

TWO_EPOCHS = """
tell(Report(text="6 pictures of 6 embryos"))
tell(Noted(note=Note("warning", "the regression head says the same for every picture")))
tell(Noted(note=Note("info", "before training: IoU ICM 0.500; mean 0.500")))
for done in range(1, 11):
    step(done, 1)
epoch(1)
for done in range(11, 21):
    step(done, 2)
epoch(2, best=False)
tell(Finished(
    epochs=2, best_epoch=1, best="best", reason="finished", added="/models/tiny.safetensors",
    notes=(
        Note("info", "before training: IoU ICM 0.500; mean 0.500"),
        Note("warning", "no epoch beat the starting weights"),
    ),
))
"""

ENDLESS = """
done = 0
while "stop" not in words:
    if words and words[-1] == "pause":
        tell(Paused())
        while words[-1] == "pause":
            time.sleep(0.01)
        if words[-1] == "resume":
            tell(Resumed())
        continue
    time.sleep(0.02)
    done += 1
    step(min(done, 39), 1)
    if done == 3:
        epoch(1)
tell(Finished(epochs=1, best_epoch=1, best="b", reason="stopped", added="/models/tiny.safetensors"))
"""


@pytest.fixture
def teller(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Stands in for the process that trains."""

    def tell(script: str) -> None:
        words = (sys.executable, "-c", TELLER + script)
        monkeypatch.setattr(_train_work, "command", lambda recipe, out, resume=False: words)

    return tell


def begin(qtbot, widget: TrainWidget, folder: Path, script: str, teller: Callable[[str], None]) -> None:
    teller(script)
    fill_in(widget, folder, epochs=4)
    widget.panel.run_button.click()
    assert widget.panel.running


def test_what_the_process_tells_is_shown(qtbot, docked, tmp_path: Path, teller) -> None:
    _, widget = docked()
    begin(qtbot, widget, tmp_path, TWO_EPOCHS, teller)
    finish(qtbot, widget)
    history = widget.curves.history
    notes = {
        "the regression head says the same for every picture": "warning",
        "before training: IoU ICM 0.500; mean 0.500": "info",
        "no epoch beat the starting weights": "warning",
    }
    assert widget.report.toPlainText().splitlines() == ["6 pictures of 6 embryos", *notes]
    assert [(str(n.message), n.severity.value) for n in notification_manager.records] == list(notes.items())
    assert [point.epoch for point in history.epochs] == [1, 2]
    assert [point.validation for point in history.epochs] == [2, 1]
    assert [epoch for epoch, _ in history.steps] == pytest.approx([k / 10 for k in range(1, 21)])
    assert widget.about_best.text() == "Best epoch 1: IoU ICM 0.600, IoU TE 0.400."
    said = widget.panel.status.text()
    assert said.startswith("Finished after 2 epochs. Best epoch 1: IoU ICM 0.600")
    assert "'tiny' is now in the lists of models" in said


@pytest.mark.parametrize(
    ("best", "said"),
    [
        ("/r/best.safetensors", "No epoch is finished yet. The lists of models are unchanged"),
        (None, "Nothing was kept"),
    ],
)
def test_stopped_in_the_first_epoch_nothing_is_in_the_lists(
    qtbot, docked, tmp_path: Path, teller, best: str | None, said: str
) -> None:
    _, widget = docked()
    script = f'step(1, 1)\ntell(Finished(epochs=0, best_epoch=0, best={best!r}, reason="stopped"))\n'
    begin(qtbot, widget, tmp_path, script, teller)
    finish(qtbot, widget)
    status = widget.panel.status.text()
    assert said in status
    assert (best or "") in status
    assert "is in the lists" not in status
    assert widget.use_button.isEnabled() == bool(best)


def test_pause_resume_and_stop(qtbot, docked, tmp_path: Path, teller) -> None:
    _, widget = docked()
    begin(qtbot, widget, tmp_path, ENDLESS, teller)
    panel = widget.panel
    qtbot.waitUntil(lambda: bool(widget.curves.history.epochs), timeout=20_000)
    panel.pause_button.click()
    qtbot.waitUntil(lambda: panel.pause_button.text() == "Resume", timeout=5000)
    assert "paused" in panel.status.text()
    count = len(widget.curves.history.steps)
    qtbot.wait(150)
    assert len(widget.curves.history.steps) == count
    panel.pause_button.click()
    qtbot.waitUntil(lambda: panel.pause_button.text() == "Pause" and panel.pause_button.isEnabled(), timeout=5000)
    qtbot.waitUntil(lambda: len(widget.curves.history.steps) > count, timeout=5000)
    panel.cancel_button.click()
    assert "Stopping after the current step" in panel.status.text()
    finish(qtbot, widget)
    assert panel.status.text().startswith("Stopped after 1 epoch. Best epoch 1")
    assert widget.use_button.isEnabled()
    assert not panel.pause_button.isEnabled()


def test_stopping_while_it_is_paused(qtbot, docked, tmp_path: Path, teller) -> None:
    _, widget = docked()
    begin(qtbot, widget, tmp_path, ENDLESS, teller)
    widget.panel.pause_button.click()
    qtbot.waitUntil(lambda: widget.panel.pause_button.text() == "Resume", timeout=20_000)
    widget.panel.cancel_button.click()
    finish(qtbot, widget)
    assert widget.panel.status.text().startswith("Stopped")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ('tell(Error(message="labels.json: no embryo is drawn")); sys.exit(1)', "labels.json: no embryo is drawn"),
        ('sys.stderr.write("RuntimeError: the card fell off"); sys.exit(3)', "ended with code 3"),
        ("step(1, 1); raise RuntimeError('the card fell off')", "the card fell off"),
    ],
)
def test_an_error_of_the_process_is_told(qtbot, docked, tmp_path: Path, teller, script: str, said: str) -> None:
    _, widget = docked()
    begin(qtbot, widget, tmp_path, script, teller)
    finish(qtbot, widget)
    assert said in widget.panel.status.text()
    assert said in shown()
    assert "traceback" not in widget.panel.status.text()
    assert widget.panel.run_button.isEnabled()


def test_the_window_stays_alive(qtbot, docked, tmp_path: Path, teller) -> None:
    _, widget = docked()
    ticks: list[float] = []
    timer = QTimer(widget)
    timer.timeout.connect(lambda: ticks.append(time.process_time()))  # other programs may keep the processor busy
    timer.start(10)
    begin(qtbot, widget, tmp_path, ENDLESS, teller)
    qtbot.waitUntil(lambda: len(widget.curves.history.steps) > 30, timeout=20_000)
    widget.panel.cancel_button.click()
    finish(qtbot, widget)
    timer.stop()
    assert len(ticks) > 5
    assert max(b - a for a, b in pairwise(ticks)) < 0.5


def test_the_viewer_is_touched_on_the_main_thread_only(
    qtbot, make_napari_viewer_proxy, pictures: Path, tmp_path: Path, teller
) -> None:
    viewer = make_napari_viewer_proxy(ensure_main_thread=True)
    widget = TrainWidget(viewer)
    viewer.window.add_dock_widget(widget)
    begin(qtbot, widget, tmp_path, TWO_EPOCHS, teller)
    finish(qtbot, widget)
    fill_in(widget, pictures)
    widget.preview()
    qtbot.waitUntil(lambda: not widget.preview_panel.running, timeout=60_000)
    assert "tiny augmented" in viewer.layers
    assert "stopped" not in shown()


def test_one_training_at_a_time(qtbot, docked, tmp_path: Path, teller) -> None:
    _, widget = docked()
    begin(qtbot, widget, tmp_path, ENDLESS, teller)
    child = widget.panel.child
    widget.run()
    assert "already running" in shown()
    assert widget.panel.child is child
    widget.panel.cancel_button.click()
    finish(qtbot, widget)


def test_a_second_run_never_takes_the_first_one_s_folder(qtbot, docked, tmp_path: Path, teller) -> None:
    _, widget = docked()
    folders = []
    for _ in range(2):
        begin(qtbot, widget, tmp_path, TWO_EPOCHS, teller)
        folders.append(widget._out)
        finish(qtbot, widget)
        folders[-1].mkdir(parents=True)
    assert [folder.name for folder in folders] == ["tiny", "tiny-2"]


# --- closing ----------------------------------------------------------------------------------------------------------


def asked(monkeypatch: pytest.MonkeyPatch, widget: TrainWidget, answer: bool) -> list[bool]:
    questions: list[bool] = []
    monkeypatch.setattr(widget.guard, "wants_to_stop", lambda: (questions.append(answer), answer)[1])
    return questions


def process_of(qtbot, widget: TrainWidget) -> Any:
    qtbot.waitUntil(lambda: bool(widget.curves.history.epochs), timeout=20_000)
    return widget.panel.child._process


def main_window(widget: TrainWidget) -> QMainWindow:
    window = widget.window()
    assert isinstance(window, QMainWindow)
    window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)  # the fixture closes it once more
    return window


@pytest.mark.window
def test_closing_napari_asks_and_goes_on_training(qtbot, docked, tmp_path: Path, teller, monkeypatch) -> None:
    _, widget = docked(show=True)
    begin(qtbot, widget, tmp_path, ENDLESS, teller)
    process = process_of(qtbot, widget)
    questions = asked(monkeypatch, widget, answer=False)
    window = main_window(widget)
    assert not window.close()
    assert questions == [False]
    assert window.isVisible()
    assert process.poll() is None
    widget.panel.cancel_button.click()
    finish(qtbot, widget)


@pytest.mark.window
def test_closing_napari_asks_stops_and_closes(qtbot, docked, tmp_path: Path, teller, monkeypatch) -> None:
    _, widget = docked(show=True)
    begin(qtbot, widget, tmp_path, ENDLESS, teller)
    process = process_of(qtbot, widget)
    questions = asked(monkeypatch, widget, answer=True)
    window = main_window(widget)
    assert not window.close()
    qtbot.waitUntil(lambda: not window.isVisible(), timeout=10_000)
    assert questions == [True]
    assert process.wait(5) == 0


@pytest.mark.window
def test_without_a_training_nothing_is_asked(qtbot, docked, monkeypatch) -> None:
    _, widget = docked(show=True)
    questions = asked(monkeypatch, widget, answer=False)
    window = main_window(widget)
    window.close()
    assert not window.isVisible()
    assert questions == []


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.window
def test_throwing_the_dock_away_asks(qtbot, docked, tmp_path: Path, teller, monkeypatch, stop: bool) -> None:
    viewer, widget = docked(show=True)
    begin(qtbot, widget, tmp_path, ENDLESS, teller)
    process = process_of(qtbot, widget)
    questions = asked(monkeypatch, widget, answer=stop)
    widget.parent().destroyOnClose()
    qtbot.waitUntil(lambda: bool(questions))
    if stop:
        assert process.wait(10) == 0
        finish(qtbot, widget)
        return
    qtbot.waitUntil(lambda: "Train (napari-embryo)" in viewer.window.dock_widgets)
    qtbot.waitUntil(widget.isVisible)
    assert process.poll() is None
    widget.panel.cancel_button.click()
    finish(qtbot, widget)


@pytest.mark.window
def test_a_script_that_closes_the_viewer_leaves_no_orphan(qtbot, docked, tmp_path: Path, teller, monkeypatch) -> None:
    viewer, widget = docked(show=True)
    begin(qtbot, widget, tmp_path, ENDLESS, teller)
    process = process_of(qtbot, widget)
    questions = asked(monkeypatch, widget, answer=False)
    viewer.close()
    del widget, viewer
    deadline = time.monotonic() + 15
    while process.poll() is None and time.monotonic() < deadline:
        QApplication.sendPostedEvents(None, 52)  # deferred deletions
        QApplication.processEvents()
    assert process.poll() == 0
    assert questions == []


# --- samples from layers ----------------------------------------------------------------------------------------------


def drawn(viewer: Any, pixels: npt.NDArray[Any], **about: Any) -> tuple[Image, Labels]:
    image = viewer.add_image(pixels, name="day 5", **about)
    data = np.zeros(pixels.shape, np.uint8)
    data[..., 10:30, 10:30] = 1
    data[..., 30:40, 10:30] = 3
    source = {"name": "day 5", "unique_id": str(image.unique_id)}
    return image, viewer.add_labels(data, name="corrected", metadata={"source_layer": source})


def test_labels_find_their_image(docked, pixels) -> None:
    viewer, widget = docked()
    image, labels = drawn(viewer, pixels[0])
    viewer.add_image(pixels[1], name="another")
    image.name = "renamed"
    widget.samples.image.value = viewer.layers["another"]
    widget.samples.labels.value = labels
    widget.samples._follow_labels()
    assert widget.samples.image.value is image


def test_the_current_frame_is_the_sample(docked, pixels) -> None:
    viewer, _ = docked()
    image, labels = drawn(viewer, pixels)
    labels.data[4, 0, 0] = 2
    pair = pair_of(image, labels, (4, 0, 0))
    assert (pair.name, pair.index, pair.classes) == ("day 5_T0004", (4,), ("ICM", "TE", "ZP"))
    np.testing.assert_array_equal(pair.labels, labels.data[4])
    flat = viewer.add_labels(labels.data[4], name="flat")
    np.testing.assert_array_equal(pair_of(image, flat, (4, 0, 0)).labels, labels.data[4])


@pytest.mark.parametrize(
    ("family", "classes"),
    [("resanet", ("ICM", "TE", "ZP")), ("regdeeplab", ("fragment", "embryo")), ("vqamodal", ("cell",))],
)
def test_labels_painted_from_scratch_are_what_the_chosen_family_learns(
    docked, pixels, family: str, classes: tuple[str, ...]
) -> None:
    """Until another choice is made; labels of a result know what they are."""
    viewer, widget = docked()
    image = viewer.add_image(pixels[0], name="day 2")
    painted = np.zeros(pixels[0].shape, np.uint8)
    for number in (1, 2):
        painted[10 * number : 10 * number + 8, 10:30] = number
    labels = viewer.add_labels(painted, name="mine")
    widget.form.family.setCurrentIndex(widget.form.family.findData(family))
    samples = widget.samples
    assert samples.painted.isEnabled()
    pair = pair_of(image, labels, (0, 0), viewer.layers, samples.painted.currentData())
    assert pair.classes == classes
    result = viewer.add_labels(painted, name="result", metadata={"classes": ("ICM", "TE", "ZP")})
    samples.refresh()
    samples.labels.value = result
    samples._follow_labels()
    assert not samples.painted.isEnabled()
    assert pair_of(image, result, (0, 0), viewer.layers, ("cell",)).classes == ("ICM", "TE", "ZP")


def test_the_button_says_that_it_takes_one_frame_of_a_stack(docked, pixels) -> None:
    viewer, widget = docked()
    drawn(viewer, pixels[0])
    assert widget.samples.add_button.text() == "Add sample"
    film = viewer.add_image(pixels, name="film")
    widget.samples.image.value = film
    assert widget.samples.add_button.text() == "Add sample (the current frame)"


def test_labels_of_another_size_are_refused(docked, pixels) -> None:
    viewer, widget = docked()
    image, _ = drawn(viewer, pixels[0])
    other = viewer.add_labels(np.ones((32, 32), np.uint8), name="other")
    widget.samples.labels.value, widget.samples.image.value = other, image
    widget.samples.add_button.click()
    assert "other: the labels have 32 x 32, but the image day 5 has 48 x 64" in widget.samples.about.text()
    assert "32 x 32" in shown()


def test_without_labels_there_is_nothing_to_add(docked, pixels) -> None:
    viewer, widget = docked()
    assert not widget.samples.add_button.isEnabled()
    drawn(viewer, pixels[0])
    assert widget.samples.add_button.isEnabled()
    viewer.layers.clear()
    assert not widget.samples.add_button.isEnabled()


# --- samples of single cells ------------------------------------------------------------------------------------------


def cell_layers(viewer: Any, shape: tuple[int, ...], run: str = "a") -> list[Labels]:
    """Three cells of one run that overlap; the third is not in the last frame of a film."""
    layers = []
    for number in (1, 2, 3):
        data = np.zeros(shape, np.uint8)
        data[..., 5:25, 10 * number : 10 * number + 15] = number
        metadata = {"result": "cells", "run": run, "cell": number, "classes": ("cell",), "family": "vqamodal"}
        layers.append(viewer.add_labels(data, name=f"day 2 cell {number}", metadata=metadata))
    if len(shape) > 2:
        layers[2].data[-1] = 0
    return layers


def add(qtbot, widget: TrainWidget, image: Image, labels: Labels) -> str:
    """What is said when the sample is saved."""
    widget.samples.labels.value, widget.samples.image.value = labels, image
    widget.samples.add_button.click()
    qtbot.waitUntil(lambda: widget.samples.add_button.isEnabled(), timeout=20_000)
    return str(widget.samples.about.text())


def test_any_cell_brings_all_cells_of_its_run(qtbot, docked, pixels) -> None:
    """Whole, where they overlap too; corrected and added again it is the next version."""
    from napari_embryo import data

    viewer, widget = docked()
    image = viewer.add_image(pixels[0], name="day 2")
    layers = cell_layers(viewer, pixels[0].shape)
    cell_layers(viewer, pixels[0].shape, run="b")
    assert add(qtbot, widget, image, layers[1]) == "Saved day_2.v001.json: 3 cells drawn."
    layers[0].data[30:40, 10:40] = 1
    assert add(qtbot, widget, image, layers[0]) == "Saved day_2.v002.json: 3 cells drawn."
    (folder,) = widget.form.folders.value
    (sample,) = data.find_samples(DataSettings(folders=(folder,)), ("cell",)).samples
    truth = sample.read()
    np.testing.assert_array_equal(truth.image, pixels[0])
    np.testing.assert_array_equal(truth.cells, [layer.data > 0 for layer in layers])
    assert (truth.cells.sum(axis=0) > 1).any()
    assert truth.known.tolist() == [True]
    about = json.loads((Path(folder) / "day_2.v002.json").read_text())["about"]
    assert (about["family"], about["labels"]) == ("vqamodal", "day 2 cell 1, day 2 cell 2, day 2 cell 3")


def test_of_a_film_the_cells_of_the_current_frame_are_the_sample(qtbot, docked, pixels) -> None:
    from napari_embryo import data

    viewer, widget = docked()
    image = viewer.add_image(pixels, name="day 2")
    layers = cell_layers(viewer, pixels.shape)
    layers[0].data[5, 0, :4] = 2
    viewer.dims.set_point(0, 5)
    assert add(qtbot, widget, image, layers[2]) == (
        "Saved day_2_T0005.v001.json, the current frame 5: 2 cells drawn. cell 1 has 4 pixels of other labels, "
        "which do not count: paint with label 1."
    )
    (sample,) = data.find_samples(DataSettings(folders=widget.form.folders.value), ("cell",)).samples
    expected = [layer.data[5] == layer.metadata["cell"] for layer in layers[:2]]
    np.testing.assert_array_equal(sample.read().cells, expected)
    assert sample.embryo == "day_2"


def test_cells_of_another_size_are_refused(docked, pixels) -> None:
    viewer, _ = docked()
    image = viewer.add_image(pixels[0], name="day 2")
    layers = cell_layers(viewer, pixels[0].shape)
    layers[1].data = np.ones((8, 8), np.uint8)
    with pytest.raises(ValueError, match="day 2 cell 2: the labels have 8 x 8, but the image day 2 has 48 x 64"):
        pair_of(image, layers[0], viewer.dims.point, viewer.layers)


# --- recipes ----------------------------------------------------------------------------------------------------------

RECIPES = [
    pytest.param(Recipe(), id="default"),
    pytest.param(TINY, id="U-Net"),
    pytest.param(
        Recipe(
            name="paper.v2",
            model=ResANetSettings(classes=("ICM",), head="softmax"),
            preprocessing=Preprocessing(height=224, width=300, fit="stretch"),
            start="imagenet",
            backbone="/w/resnet50.safetensors",
            data=DataSettings(
                folders=("/a", "/b c"), validation=1 / 3, repeats={"a": 3}, embryo_pattern="(.)",
                only_train=("a",), only_validation=("b c", "d.json"),
            ),
            augmentation=Augmentation(flips=False, rotation=12.5, zoom_in=1, wells=0),
            training=TrainSettings(learning_rate=3e-5, weight_decay=1e-8, loss_weights={"dice": 1, "edge": 0.125}),
        ),
        id="everything",
    ),
    pytest.param(Recipe(start="/mine/first.safetensors"), id="a file"),
]  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_goes_through_the_form_unchanged(qtbot, recipe: Recipe) -> None:
    form = RecipeForm(lambda: None)
    for part in (form.network, form.data):
        qtbot.addWidget(part)
    form.set_value(recipe)
    assert form.value() == recipe


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_goes_through_a_file_unchanged(docked, tmp_path: Path, recipe: Recipe) -> None:
    _, widget = docked()
    widget.form.set_value(recipe)
    widget.save_recipe(tmp_path / "r.yaml")
    widget.form.set_value(Recipe())
    widget.load_recipe(tmp_path / "r.yaml")
    assert widget.form.value() == recipe
    assert not shown()


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("learning_rate", "fast", "learning_rate: 'fast' was given"),
        ("learning_rate", "7", "learning_rate: '7' was given"),
        ("loss_weights", "dice", "loss_weights"),
    ],
)
def test_what_a_field_does_not_take_is_said(docked, field: str, text: str, said: str) -> None:
    _, widget = docked()
    widget.form.folders.value = ("/a",)
    widget.form.training.editors[field].native.setText(text)
    widget.run()
    assert said in widget.panel.status.text()
    assert not widget.panel.running


def test_a_name_that_is_no_file_s_is_refused(docked) -> None:
    _, widget = docked()
    widget.form.folders.value = ("/a",)
    widget.form.name.setText("my/model")
    widget.run()
    assert "Name of the model: 'my/model' was given" in widget.panel.status.text()


def test_the_recipes_that_ship_can_be_loaded(docked) -> None:
    _, widget = docked()
    menu = widget.load_button.menu()
    assert [action.text() for action in menu.actions()][:-2] == list(recipes.names())
    widget.form.folders.value = ("/mine",)
    for action in menu.actions()[:-2]:
        action.trigger()
        given = recipes.read(action.text())
        data = given.data.model_copy(update={"folders": given.data.folders or ("/mine",)})
        assert widget.form.value() == given.model_copy(update={"data": data})
    assert not shown()


def test_a_file_that_is_no_recipe_is_refused(docked, tmp_path: Path) -> None:
    _, widget = docked()
    (tmp_path / "r.yaml").write_text("epochs: many")
    widget.load_recipe(tmp_path / "r.yaml")
    assert "r.yaml" in shown()
    assert widget.form.value() == recipes.read("blastocyst-finetune")


def test_without_pictures_it_says_what_to_do(docked) -> None:
    _, widget = docked()
    for act, panel in ((widget.run, widget.panel), (widget.check, widget.check_panel)):
        act()
        assert "add a folder of annotated images" in panel.status.text()
        assert not panel.running


def test_a_family_starts_from_what_it_has(docked) -> None:
    _, widget = docked()
    form = widget.form
    assert form.value().start == "bundled"
    form.family.setCurrentIndex(form.family.findData("unet"))
    assert (form.value().model, form.value().start) == (UNetSettings(), "random")
    assert form.preprocessing.isEnabled()
    form.family.setCurrentIndex(form.family.findData("resanet"))
    assert form.value().start == "bundled"
    assert not form.preprocessing.isEnabled()
    form.start.value = "imagenet"
    assert not form.backbone.native.isHidden()


@pytest.mark.parametrize(
    ("family", "model", "start", "recipe"),
    [
        ("vqamodal", VQAmodalSettings(), "imagenet", "vqamodal-from-imagenet"),
        ("shapecode", ShapeCodeSettings(), "random", "shapecode"),
    ],
)
def test_families_of_cells_are_trained_as_their_recipes_say(
    docked, monkeypatch: pytest.MonkeyPatch, family: str, model: Any, start: str, recipe: str
) -> None:
    _, widget = docked()
    monkeypatch.setitem(FAMILIES, family, replace(FAMILIES[family], ships=False))
    form, usual = widget.form, recipes.read(recipe)
    form.family.setCurrentIndex(form.family.findData(family))
    shown = form.value()
    assert (shown.model, shown.start) == (model, start)
    assert (shown.augmentation, shown.preprocessing) == (usual.augmentation, usual.preprocessing)
    assert shown.training == usual.training.model_copy(update={"device": shown.training.device})
    assert form.shape_code.native.isHidden() is (family != "vqamodal")


def test_a_shape_code_is_chosen_for_the_network_that_draws_with_it(docked) -> None:
    path = str(put_model("my shapes", "shapecode"))
    put_model("my parts", "resanet")
    _, widget = docked()
    form = widget.form
    form.family.setCurrentIndex(form.family.findData("vqamodal"))
    form.shape_code.box.refresh()
    assert listed(form.shape_code.box) == ["that of the starting weights, or the bundled one", "my shapes"]
    form.shape_code.value = path
    assert form.value().shape_code == path
    form.set_value(recipes.read("vqamodal-fcn"))
    assert form.value().shape_code == ""
    assert form.shape_code.native.isHidden()


# --- the lists of models ----------------------------------------------------------------------------------------------


def put_model(name: str, family: str) -> Path:
    """A file whose header says what a checkpoint's does; nothing else of it is read for a list."""
    from napari_embryo import library

    about = json.dumps({"model": {"family": family}, "preprocessing": {}})
    header = json.dumps({"__metadata__": {library.METADATA_KEY: about}}).encode()
    path = library.library() / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def listed(box: ModelBox) -> list[str]:
    return [box.itemText(place) for place in range(box.count())]


@pytest.mark.window
def test_a_new_model_is_in_every_list_at_once(qtbot, docked, tmp_path: Path, teller) -> None:
    viewer, widget = docked()
    segment = SegmentWidget(viewer)
    viewer.window.add_dock_widget(segment, name="Segment")
    box = segment.form.editors["weights"].box
    assert listed(box) == ["bundled"]
    path = put_model("tiny", "resanet")
    script = TWO_EPOCHS.replace("/models/tiny.safetensors", str(path))
    begin(qtbot, widget, tmp_path, script, teller)
    finish(qtbot, widget)
    assert listed(box) == ["bundled", "tiny"]
    assert segment.form.value().weights == "bundled"
    widget.use_button.click()
    assert segment.form.value().weights == str(path)
    assert "selected in Segment" in widget.panel.status.text()


def test_using_a_model_without_a_segment_widget_says_where_it_is(qtbot, docked, tmp_path: Path, teller) -> None:
    _, widget = docked()
    begin(qtbot, widget, tmp_path, TWO_EPOCHS, teller)
    finish(qtbot, widget)
    widget.use_button.click()
    assert "open Plugins" in widget.panel.status.text()


def test_a_baseline_is_used_with_its_family(qtbot, docked, tmp_path: Path, teller) -> None:
    viewer, widget = docked()
    segment = SegmentWidget(viewer)
    viewer.window.add_dock_widget(segment, name="Segment")
    path = put_model("tiny", "unet")
    script = TWO_EPOCHS.replace("/models/tiny.safetensors", str(path))
    begin(qtbot, widget, tmp_path, script, teller)
    finish(qtbot, widget)
    assert listed(segment.form.editors["weights"].box) == ["bundled"]
    widget.use_button.click()
    used = segment.form.value()
    assert (used.family, used.weights, used.maps) == ("unet", str(path), ())


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("shapecode", "'tiny' is selected in Complete cell."),
        ("inception", "'tiny' cannot be used in another widget: Inception estimates a ratio"),
    ],
)
def test_a_model_that_finds_nothing_is_not_chosen_in_segment(
    docked, monkeypatch: pytest.MonkeyPatch, family: str, said: str
) -> None:
    viewer, widget = docked()
    segment, complete = SegmentWidget(viewer), CompleteWidget(viewer)
    viewer.window.add_dock_widget(segment, name="Segment")
    viewer.window.add_dock_widget(complete, name="Complete cell")
    monkeypatch.setattr(widget, "_model", put_model("tiny", family))
    widget.use_model()
    assert widget.panel.status.text().startswith(said)
    assert segment.form.value() == SegmentSettings()
    assert complete.weights.value == (str(widget._model) if family == "shapecode" else "bundled")


def test_a_list_is_read_again_when_it_is_opened_and_keeps_what_is_chosen(qtbot) -> None:
    put_model("one", "resanet")
    box = ModelBox({"bundled": "bundled"}, ("resanet",))
    qtbot.addWidget(box)
    box.setCurrentIndex(box.findText("one"))
    changed: list[int] = []
    box.currentIndexChanged.connect(changed.append)
    put_model("a new one", "resanet")
    put_model("of another family", "unet")
    box.showPopup()
    box.hidePopup()
    assert listed(box) == ["bundled", "a new one", "one"]
    assert box.currentText() == "one"
    assert changed == []


def test_a_chosen_model_that_is_gone_gives_way_and_says_so(qtbot) -> None:
    path = put_model("one", "resanet")
    box = ModelBox({"bundled": "bundled"})
    qtbot.addWidget(box)
    box.setCurrentIndex(1)
    changed: list[int] = []
    box.currentIndexChanged.connect(changed.append)
    path.unlink()
    box.refresh()
    assert box.currentData() == "bundled"
    assert changed == [0]


# --- curves -----------------------------------------------------------------------------------------------------------

DARK = {"background": "#23242b", "text": "#f0f1f2", "secondary": "#565f6c"}


def test_the_curves_show_every_epoch(qtbot) -> None:
    curves = Curves(DARK)
    qtbot.addWidget(curves)
    for number in (1, 2, 3):
        curves.add_step(number - 0.5, 1 / number)
        scores = {"IoU ICM": number / 4, "mean": 0.5}
        curves.add_epoch(Point(number, 1 / number, 2 / number, scores, best=number < 3))
    lines = {line.get_label(): line for axes in curves.figure.axes for line in axes.get_lines()}
    np.testing.assert_allclose(lines["training"].get_ydata(), [1, 1 / 2, 1 / 3])
    np.testing.assert_allclose(lines["validation"].get_ydata(), [2, 1, 2 / 3])
    np.testing.assert_allclose(lines["IoU ICM"].get_ydata(), [0.25, 0.5, 0.75])
    assert lines["IoU ICM"].get_color() == "#e69f00"
    assert list(lines["best"].get_xdata()) == [2, 2]
    assert curves.history.nearest(2.6).epoch == 3


def test_the_curves_follow_the_theme_and_are_narrow_enough(docked) -> None:
    viewer, widget = docked()
    dark = widget.curves.figure.get_facecolor()
    viewer.theme = "light"
    light = widget.curves.figure.get_facecolor()
    assert sum(dark[:3]) < 1 < 2 < sum(light[:3])
    assert widget.curves.minimumWidth() <= 300


# --- the window -------------------------------------------------------------------------------------------------------


@pytest.mark.window
def test_it_fits_a_laptop(docked, qtbot) -> None:
    viewer, widget = docked(show=True)
    widget.form.training.advanced.expand(animate=False)
    widget.form.data.advanced.expand(animate=False)
    assert widget.minimumSizeHint().height() < 600
    assert widget.minimumSizeHint().width() < 480
    assert any(label.text() == RESEARCH_USE for label in widget.findChildren(type(widget.about_best)))
    if folder := os.environ.get("NAPARI_EMBRYO_SCREENSHOTS"):
        viewer.window.screenshot(str(Path(folder) / "train.png"), canvas_only=False)


# --- real pictures, real training -------------------------------------------------------------------------------------


def test_the_report_is_shown_before_training(qtbot, docked, pictures: Path) -> None:
    _, widget = docked()
    fill_in(widget, pictures)
    (pictures / "broken.json").write_text("{}")
    (pictures / "broken.png").write_bytes((pictures / "embryo0.png").read_bytes())
    widget.check_panel.run_button.click()
    qtbot.waitUntil(lambda: not widget.check_panel.running, timeout=60_000)
    text = widget.report.toPlainText()
    assert "annotated" in text
    assert "broken" in text
    assert "ICM" in text


def test_pictures_that_cannot_be_split_are_refused(qtbot, docked, pictures: Path) -> None:
    for path in sorted(pictures.iterdir())[2:]:
        path.unlink()
    _, widget = docked()
    fill_in(widget, pictures)
    widget.check_panel.run_button.click()
    qtbot.waitUntil(lambda: not widget.check_panel.running, timeout=60_000)
    assert "embryo" in widget.check_panel.status.text()
    assert widget.check_panel.status.text() in shown()


def test_the_preview_is_a_layer(qtbot, docked, pictures: Path) -> None:
    viewer, widget = docked()
    fill_in(widget, pictures)
    widget.preview_panel.run_button.click()
    qtbot.waitUntil(lambda: not widget.preview_panel.running, timeout=60_000)
    layer = viewer.layers["tiny augmented"]
    assert (layer.rgb, layer.data.shape) == (True, (16, 48, 64, 3))
    assert len({picture.tobytes() for picture in layer.data}) == 16


def test_a_sample_is_saved_in_versions_and_found_again(qtbot, docked, pixels, tmp_path: Path) -> None:
    viewer, widget = docked()
    _, labels = drawn(viewer, pixels[0])
    for said in (".v001.json: ICM, ZP drawn; nothing is painted for TE", ".v002.json: ICM, TE, ZP drawn."):
        widget.samples.add_button.click()
        qtbot.waitUntil(lambda: widget.samples.add_button.isEnabled(), timeout=20_000)
        assert said in widget.samples.about.text()
        labels.data[:5] = 2
    assert widget.form.folders.value == (str(tmp_path / "samples"),)
    from napari_embryo import data

    found = data.find_samples(widget.form.value().data, ("ICM", "TE", "ZP"))
    truth = found.samples[0].read()
    np.testing.assert_array_equal(truth.image, pixels[0])
    assert [sample.embryo for sample in found.samples] == ["day_5"]
    assert truth.known.all()
    assert len(list((tmp_path / "samples").glob("*.json"))) == 2


@pytest.mark.parametrize("about", [{}, {"scale": (0.4, 0.4), "units": ("um", "um")}])
@pytest.mark.window
def test_the_worst_pictures_are_looked_at_without_a_complaint(docked, caplog, about: dict[str, Any]) -> None:
    """Beside a far larger picture, at a late frame of a stack, with a pixel size and without."""
    viewer, widget = docked(show=True)
    viewer.add_image(np.zeros((500, 700), np.uint8), **about)
    stack = {name: (value[0], *value) for name, value in about.items()}
    viewer.add_image(np.zeros((9, 500, 700), np.uint8), **stack)
    viewer.dims.set_current_step(0, 8)
    labels = np.ones((2, *HW), np.uint8)
    caplog.clear()
    before = viewer.scene.camera.zoom
    widget._add_worst(_train_work.Worst(("a", "b"), ("ICM",), labels, labels, labels))
    assert "units" not in caplog.text
    assert viewer.layers[f"{widget._recipe.name} worst"].visible
    assert viewer.dims.point[0] == 0
    assert viewer.scene.camera.center[-2:] == pytest.approx(((HW[0] - 1) / 2, (HW[1] - 1) / 2))
    assert viewer.scene.camera.zoom > before * 3


@pytest.mark.slow
def test_a_real_training_from_the_widget(qtbot, docked, pictures: Path, tmp_path: Path) -> None:
    """Through the process, the engine and the library; then the worst pictures and the list of models."""
    from napari_embryo import library

    viewer, widget = docked()
    fill_in(widget, pictures)
    widget.panel.run_button.click()
    finish(qtbot, widget)
    assert "Finished after 2 epochs" in widget.panel.status.text(), widget.panel.status.text()
    assert len(widget.curves.history.epochs) == 2
    assert "annotated" in widget.report.toPlainText()
    out = tmp_path / "runs" / "tiny"
    assert {"best.safetensors", "last.safetensors", "history.csv", "recipe.yaml"} <= {p.name for p in out.iterdir()}
    assert list(library.in_library()) == ["tiny"]
    widget.form.start.box.showPopup()
    widget.form.start.box.hidePopup()
    assert "tiny" in listed(widget.form.start.box)

    widget.worst_panel.run_button.click()
    qtbot.waitUntil(lambda: not widget.worst_panel.running, timeout=60_000)
    names = viewer.layers["tiny worst"].metadata["names"]
    assert set(names) <= {f"annotated/embryo{number}" for number in range(6)}
    assert viewer.layers["tiny worst"].data.shape == (len(names), *HW)
    assert set(np.unique(viewer.layers["tiny worst annotated"].data)) == {0, 1, 2, 3}

    for kind in (".png", ".json"):  # another split than that of the run
        for number in range(6, 12):
            content = (pictures / f"embryo0{kind}").read_bytes()
            (pictures / f"embryo{number}{kind}").write_bytes(content.replace(b"embryo0.png", b"embryo%d.png" % number))
    worst = finished_work(_train_work.predict_worst(widget._recipe, names, out / "best.safetensors"))
    assert worst.names == names
    gone = names[0].partition("/")[2]
    (pictures / f"{gone}.json").unlink()
    with pytest.raises(ValueError, match=f"annotated/{gone}: no longer in the folders of annotated images"):
        finished_work(_train_work.predict_worst(widget._recipe, names, out / "best.safetensors"))


def finished_work(steps: Any) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.mark.slow
def test_a_real_training_is_stopped_and_taken_up_again(qtbot, docked, pictures: Path, tmp_path: Path) -> None:
    _, widget = docked()
    fill_in(widget, pictures, epochs=500)
    widget.panel.run_button.click()
    qtbot.waitUntil(lambda: len(widget.curves.history.epochs) > 1 or not widget.panel.running, timeout=120_000)
    widget.panel.cancel_button.click()
    finish(qtbot, widget)
    assert widget.panel.status.text().startswith("Stopped after"), widget.panel.status.text()
    done = widget.curves.history.epochs[-1].epoch
    widget.go_on(tmp_path / "runs" / "tiny")
    qtbot.waitUntil(lambda: bool(widget.curves.history.epochs) or not widget.panel.running, timeout=120_000)
    assert widget.curves.history.epochs[0].epoch >= done
    widget.panel.cancel_button.click()
    finish(qtbot, widget)


def test_a_step_is_at_its_place_between_epochs(docked) -> None:
    _, widget = docked()
    widget._recipe = TINY
    step = stream.Step(done=3, total=4, epoch=2, losses={}, learning_rate=1, seconds=1)
    assert widget._place(step) == 1.5


FRESH = """
import sys
import napari
from qtpy.QtCore import QEventLoop, QTimer
from napari_embryo.widgets.train import TrainWidget

def wait(ms):
    loop = QEventLoop()
    QTimer.singleShot(ms, loop.quit)
    loop.exec()

viewer = napari.Viewer(show=True)
widget = TrainWidget(viewer)
viewer.window.add_dock_widget(widget)
wait(300)
widget.load_recipe(sys.argv[1])
widget.check()
while widget.check_panel.running:
    wait(50)
print(widget.report.toPlainText(), file=sys.stderr)
assert not {"torch", "torchvision", "captum", "triton"} & sys.modules.keys(), "torch was imported"
widget.preview()
while widget.preview_panel.running:
    wait(50)
assert "torch" in sys.modules
print([layer.name for layer in viewer.layers])
viewer.close()
"""


@pytest.mark.slow
def test_a_fresh_window_checks_data_without_torch_and_survives_its_import(pictures: Path, tmp_path: Path) -> None:
    recipe = TINY.model_copy(update={"data": TINY.data.model_copy(update={"folders": (str(pictures),)})})
    path = recipes.write(tmp_path / "r.yaml", recipe)
    done = subprocess.run([sys.executable, "-c", FRESH, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['tiny augmented']"
