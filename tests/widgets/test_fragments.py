"""Fragments in the Segment widget: ratio and grade, as found and as corrected, with the layers of a real viewer."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from napari.layers import Labels
from napari.utils.notifications import notification_manager

from napari_embryo import io, measure, samples
from napari_embryo.families import FAMILIES, RegDeepLabSettings
from napari_embryo.settings import DataSettings, Preprocessing, SegmentSettings
from napari_embryo.widgets import segment as module
from napari_embryo.widgets.segment import SegmentWidget

Pixels = npt.NDArray[np.uint8]
CLASSES = ("fragment", "embryo")


def tiny(path: Path, ratio: float) -> Path:
    """A network that calls everything a fragment and tells one ratio."""
    import torch

    from napari_embryo import models
    from napari_embryo.models import checkpoint
    from napari_embryo.models.checkpoint import CheckpointInfo

    torch.manual_seed(0)
    settings = RegDeepLabSettings()
    model: Any = models.build(settings)
    with torch.no_grad():
        model.head.join.weight.zero_()
        model.head.join.bias.copy_(torch.tensor([3.0, 3.0]))
    model.regression.start_at(ratio)
    checkpoint.save(path, model, CheckpointInfo(model=settings, preprocessing=Preprocessing(height=64, width=64)))
    return path


@pytest.fixture(scope="session")
def visual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It tells 12 %: two grades below its own mask."""
    return tiny(tmp_path_factory.mktemp("weights") / "visual.safetensors", 0.12)


@pytest.fixture(scope="session")
def quantification(visual: Path) -> Path:
    return tiny(visual.with_name("quantification.safetensors"), 0.88)


@pytest.fixture
def docked(
    make_viewer, visual: Path, load_once: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Any, SegmentWidget]]:
    """A viewer with an image and the widget, set to the tiny network."""
    from napari_embryo.models import checkpoint

    monkeypatch.setattr(checkpoint, "load", load_once)
    notification_manager.records.clear()

    def make(image: Any = None, **settings: Any) -> tuple[Any, SegmentWidget]:
        viewer = make_viewer()
        if image is not None:
            viewer.add_image(image, name="day 2")
        widget = SegmentWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Segment")
        widget.form.set_value(SegmentSettings(family="regdeeplab", weights=str(visual), device="cpu", **settings))
        return viewer, widget

    return make


def run(qtbot, widget: SegmentWidget) -> None:
    widget.frames.setCurrentText("all frames")
    widget.run()
    qtbot.waitUntil(lambda: not widget.panel.running, timeout=60_000)


def shown() -> str:
    return "\n".join(str(notification.message) for notification in notification_manager.records)


def says(qtbot, widget: SegmentWidget, *words: str) -> None:
    """The line comes to hold these words."""
    qtbot.waitUntil(lambda: all(word in widget.measured.line.text() for word in words), timeout=10_000)


def fragments_row(labels: Labels, frame: int | None = None) -> dict[str, Any]:
    rows = labels.metadata["measurements"]
    return next(row for row in rows if row["class"] == "fragment" and row.get("frame") == frame)


# --- as found ---------------------------------------------------------------------------------------------------------


def test_fragments_become_a_layer_with_ratio_grade_and_gate(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[0])
    run(qtbot, widget)
    labels, gate = viewer.layers["day 2 fragments"], viewer.layers["day 2 AG"]
    assert (labels.data == 1).all()
    assert labels.metadata["classes"] == CLASSES
    assert list(labels.features["class"]) == ["background", *CLASSES]
    assert gate.contrast_limits == [0, 1]
    assert "attention gate" in gate.metadata["meaning"]
    row = fragments_row(labels)
    assert (row["ratio_from_mask"], row["grade_from_mask"]) == (1, "D")
    assert (row["ratio_regressed"], row["grade"]) == (pytest.approx(0.12, abs=1e-3), "B")
    assert (row["grade_low"], row["grade_high"]) == (0.1, 0.25)


def test_ratio_and_grade_are_said_with_research_use_only(qtbot, docked, pixels: Pixels, quantification: Path) -> None:
    _, widget = docked(pixels[0], ratio_weights=str(quantification))
    run(qtbot, widget)
    says(qtbot, widget, "Fragments 100.0 % of the embryo (mask), 88.0 % (regression): grade D (50-100 %)")
    assert widget.measured.line.text().endswith("Research use only.")
    assert not widget.measured.line.isHidden()
    assert widget.measured.warning.isHidden()
    assert "apart" not in shown()


def test_grades_that_disagree_are_warned_of(qtbot, docked, pixels: Pixels) -> None:
    _, widget = docked(pixels[0])
    run(qtbot, widget)
    says(qtbot, widget, "grade D (mask), B (regression)")
    assert "Mask and regression are 2 grades apart" in widget.measured.warning.text()
    assert not widget.measured.warning.isHidden()
    assert "day 2: mask and regression are 2 grades apart" in shown()


def test_the_second_weights_tell_the_ratio(qtbot, docked, pixels: Pixels, visual: Path, quantification: Path) -> None:
    viewer, widget = docked(pixels[0])
    widget.ratio_weights.value = str(quantification)
    run(qtbot, widget)
    metadata = viewer.layers["day 2 fragments"].metadata
    assert fragments_row(viewer.layers["day 2 fragments"])["ratio_regressed"] == pytest.approx(0.88, abs=1e-3)
    assert metadata["settings"]["ratio_weights"] == quantification.name
    assert metadata["ratio_weights_sha256"] != metadata["weights_sha256"]


def test_a_film_says_its_range_and_the_line_follows_the_slider(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[:3])
    run(qtbot, widget)
    assert "Fragments 12.0 % to 12.0 %, grades B to B." in widget.panel.status.text()
    assert "in 3 of 3 images" in shown()
    labels = viewer.layers["day 2 fragments"]
    assert [row["frame"] for row in labels.metadata["measurements"]] == [0, 0, 1, 1, 2, 2]
    fragments_row(labels, 1)["ratio_from_mask"] = 0.34
    viewer.dims.set_point(0, 1)
    says(qtbot, widget, "34.0 % of the embryo (mask)")
    viewer.dims.set_point(0, 2)
    says(qtbot, widget, "100.0 % of the embryo (mask)")


def test_grad_cam_of_fragments(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[0], grad_cam="ASPP")
    run(qtbot, widget)
    assert widget.panel.status.text().startswith("Done")
    assert any("fragment" in layer.name and "CAM" in layer.name for layer in viewer.layers)


# --- as corrected -----------------------------------------------------------------------------------------------------


def test_ratio_and_grade_follow_the_brush_and_undoing(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[0])
    run(qtbot, widget)
    labels = viewer.layers["day 2 fragments"]
    labels.data_setitem(np.nonzero(np.arange(48)[:, None] * np.ones(64) >= 6), 2)
    says(qtbot, widget, "12.5 % of the embryo (mask), 12.0 % (regression): grade B")
    assert widget.measured.warning.isHidden()
    row = fragments_row(labels)
    assert (row["ratio_from_mask"], row["grade_from_mask"], row["grades_apart"]) == (0.125, "B", 0)
    assert row["ratio_regressed"] == pytest.approx(0.12, abs=1e-3)
    assert (row["image"], row["area_px"]) == ("day 2", 6 * 64)
    assert len(labels.metadata["measurements"]) == 2
    labels.undo()
    says(qtbot, widget, "100.0 % of the embryo (mask)")


def test_what_is_erased_is_no_embryo(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[0])
    run(qtbot, widget)
    labels = viewer.layers["day 2 fragments"]
    labels.data_setitem(np.nonzero(labels.data), 0)
    says(qtbot, widget, "no embryo in the mask, 12.0 % (regression)")
    assert fragments_row(labels)["ratio_from_mask"] is None


def test_only_the_painted_frame_of_a_film_is_measured_again(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[:3])
    run(qtbot, widget)
    labels = viewer.layers["day 2 fragments"]
    viewer.dims.set_point(0, 1)
    says(qtbot, widget, "100.0 %")
    labels.selected_label, labels.brush_size = 2, 10
    labels.paint((1, 20, 20), 2)
    painted = (labels.data[1] == 2).sum()
    assert painted > 50
    qtbot.waitUntil(lambda: fragments_row(labels, 1)["ratio_from_mask"] < 1, timeout=10_000)
    assert fragments_row(labels, 1)["ratio_from_mask"] == pytest.approx(1 - painted / (48 * 64))
    assert [fragments_row(labels, frame)["ratio_from_mask"] for frame in (0, 2)] == [1, 1]
    assert [row["frame"] for row in labels.metadata["measurements"]] == [0, 0, 1, 1, 2, 2]


def test_other_labels_put_into_the_layer_are_measured_in_every_frame(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[:3])
    run(qtbot, widget)
    labels = viewer.layers["day 2 fragments"]
    says(qtbot, widget, "100.0 %")
    labels.data = np.full_like(labels.data, 2)
    ratios = lambda: [fragments_row(labels, frame)["ratio_from_mask"] for frame in range(3)]  # noqa: E731
    qtbot.waitUntil(lambda: ratios() == [0, 0, 0], timeout=10_000)


def test_corrected_areas_of_a_blastocyst_follow_too(qtbot, docked, tiny_settings: SegmentSettings, pixels) -> None:
    viewer, widget = docked(pixels[0])
    widget.form.set_value(tiny_settings)
    run(qtbot, widget)
    labels = viewer.layers["day 2 blastocyst"]
    as_found = list(labels.metadata["measurements"])
    says(qtbot, widget, "Areas: ICM ")
    qtbot.wait(400)
    assert labels.metadata["measurements"] == as_found  # what nobody touched stays as the network's masks measure
    labels.data_setitem(np.nonzero(labels.data != 3), 3)
    says(qtbot, widget, "Areas: ICM 0 px, TE 0 px, ZP 3,072 px.")
    assert [row["area_px"] for row in labels.metadata["measurements"]] == [0, 0, 48 * 64]


def test_labels_from_a_file_are_measured_when_they_are_chosen(qtbot, docked, pixels: Pixels, tmp_path: Path) -> None:
    """As the command line writes them: without rows."""
    viewer, widget = docked()
    drawn = np.where(np.arange(48)[:, None] * np.ones(64) < 12, 1, 2).astype(np.uint8)
    path = tmp_path / "a.ome.tif"
    io.write_ome_tiff(path, drawn, "YX", kind="labels", names=CLASSES, pixel_size_um=(0.5, 0.5))
    data, about, _ = io.layers.written_layer(path)
    labels = viewer.add_labels(data, **about)
    says(qtbot, widget, "Fragments 25.0 % of the embryo (mask): grade C (25-50 %). Research use only.")
    assert fragments_row(labels)["area_um2"] == 12 * 64 / 4


def test_other_labels_are_left_alone(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[0])
    viewer.add_labels(pixels[0] % 4)
    for data, about, kind in samples.cleavage():
        if kind == "labels":
            viewer.add_labels(data, **about)
    qtbot.wait(400)
    assert widget.measured.line.text() == ""
    assert not any("measurements" in layer.metadata for layer in viewer.layers)


def test_a_layer_that_goes_takes_its_line_along(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[0])
    run(qtbot, widget)
    says(qtbot, widget, "Fragments")
    viewer.layers.remove("day 2 fragments")
    assert widget.measured.line.text() == widget.measured.warning.text() == ""


def test_what_is_painted_during_the_run_counts_as_a_correction(
    qtbot, docked, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer, widget = docked(pixels[:3])
    take = module.Results.take

    def take_and_paint(self: Any, item: Any) -> None:
        take(self, item)
        if self.done == 1:
            self.labels.data[2, :24] = 2

    monkeypatch.setattr(module.Results, "take", take_and_paint)
    run(qtbot, widget)
    labels = viewer.layers["day 2 fragments"]
    assert (labels.data[2, :24] == 2).all()
    viewer.dims.set_point(0, 2)
    says(qtbot, widget, "50.0 % of the embryo (mask)")
    assert len(labels.metadata["measurements"]) == 6


@pytest.mark.window
def test_closing_the_dock_lets_go_of_the_viewer(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[0])
    run(qtbot, widget)
    labels = viewer.layers["day 2 fragments"]
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    qtbot.wait(100)
    labels.data_setitem((np.array([3]), np.array([3])), 2)
    viewer.layers.remove(labels)
    qtbot.wait(300)
    assert "deleted" not in shown()


# --- the form ---------------------------------------------------------------------------------------------------------


def test_families_have_names_for_people_and_only_a_ratio_has_weights(docked) -> None:
    _, widget = docked()
    box = widget.family.native
    offered = [box.itemText(place) for place in range(box.count())]
    assert offered == [
        "ResA-Net (blastocyst)",
        "AttnRegDeepLab (fragments)",
        "VQ amodal (complete cells)",
        "U-Net (blastocyst, baseline)",
    ]
    field, label = widget.ratio_weights.native, widget.form.rows.labelForField(widget.ratio_weights.native)
    assert label.text() == "Ratio from"
    assert not field.isHidden()
    assert not label.isHidden()
    assert widget.form.value().maps == ("AG",)
    widget.ratio_weights.value = "/some/quantification.safetensors"
    widget.family.value = "resanet"
    assert field.isHidden()
    assert label.isHidden()
    assert widget.form.value() == SegmentSettings(device="cpu")


@pytest.mark.parametrize("ships", [True, False])
def test_bundled_weights_are_offered_where_they_ship(docked, monkeypatch: pytest.MonkeyPatch, ships: bool) -> None:
    monkeypatch.setitem(FAMILIES, "regdeeplab", replace(FAMILIES["regdeeplab"], ships=ships))
    _, widget = docked()
    widget.family.value = "resanet"
    widget.family.value = "regdeeplab"
    weights, ratio = widget.weights.box, widget.ratio_weights.box
    assert weights.itemText(0) == ("bundled" if ships else "none bundled: train a model, or choose a file")
    assert [ratio.itemText(place) for place in range(2)] == ["the same weights", "bundled" if ships else ""]
    assert widget.form.value().ratio_weights == ""


@pytest.mark.window
def test_it_fits_a_laptop_with_a_result(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[0])
    viewer.window._qt_window.resize(1366, 700)
    run(qtbot, widget)
    says(qtbot, widget, "Fragments")
    assert widget.minimumSizeHint().height() < 600
    assert widget.minimumSizeHint().width() < 480
    for note in (widget.measured.line, widget.measured.warning):
        assert note.height() >= note.heightForWidth(note.width())


def test_the_line_is_that_of_the_rows(qtbot, docked, pixels: Pixels) -> None:
    viewer, widget = docked(pixels[0])
    run(qtbot, widget)
    said = measure.said(viewer.layers["day 2 fragments"].metadata["measurements"])
    says(qtbot, widget, said)


# --- training ---------------------------------------------------------------------------------------------------------


def test_the_train_form_suits_the_family(qtbot) -> None:
    """One family's losses and rates are not another's."""
    from napari_embryo import recipes
    from napari_embryo.widgets._recipe_form import RecipeForm

    form = RecipeForm(lambda: None)
    for part in (form.network, form.data):
        qtbot.addWidget(part)
    before = form.value()
    form.device.value = "cpu"
    form.family.setCurrentIndex(form.family.findData("regdeeplab"))
    asked, start = form.value(), "bundled" if FAMILIES["regdeeplab"].ships else "imagenet"
    usual = recipes.read("regdeeplab-finetune" if start == "bundled" else "regdeeplab-from-imagenet")
    assert form.family.currentText() == "AttnRegDeepLab (fragments)"
    assert (asked.model, asked.start, asked.name) == (RegDeepLabSettings(), start, before.name)
    assert asked.training == usual.training.model_copy(update={"device": "cpu"})
    assert (asked.augmentation, asked.preprocessing) == (usual.augmentation, usual.preprocessing)
    form.device.value = "auto"
    form.family.setCurrentIndex(form.family.findData("resanet"))
    assert form.value() == before


def test_corrected_fragments_become_a_sample(qtbot, docked, pixels: Pixels, tmp_path: Path) -> None:
    from napari_embryo import data
    from napari_embryo.data.sample import fragmentation_ratio
    from napari_embryo.widgets._samples import pair_of, saving

    viewer, widget = docked(pixels[0])
    run(qtbot, widget)
    labels = viewer.layers["day 2 fragments"]
    labels.data_setitem(np.nonzero(np.arange(48)[:, None] * np.ones(64) >= 6), 2)
    pair = pair_of(viewer.layers["day 2"], labels, viewer.dims.point)
    assert pair.classes == CLASSES
    list(saving(pair, tmp_path))
    (sample,) = data.find_samples(DataSettings(folders=(str(tmp_path),)), CLASSES).samples
    truth = sample.read()
    assert list(truth.known) == [True, True]
    assert fragmentation_ratio(truth, CLASSES) == pytest.approx(0.125)
