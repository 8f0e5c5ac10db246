"""Segment: parts of a blastocyst, fragments or single cells of a cleavage-stage embryo, and attention maps."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from magicgui.widgets import ComboBox
from napari.layers import Image, Labels
from napari.settings import get_plugin_settings
from napari.viewer import Viewer
from qtpy.QtWidgets import QComboBox, QVBoxLayout, QWidget

from napari_embryo.cells import CellFrame, follow
from napari_embryo.families import DEFAULT, FAMILIES, segmenting_families
from napari_embryo.image import Cells, EmbryoImage, Progress, as_parts
from napari_embryo.notes import RESEARCH_USE, Failure
from napari_embryo.results import Index, PlaneResult
from napari_embryo.settings import SegmentSettings
from napari_embryo.widgets._cells_layers import CellResults
from napari_embryo.widgets._cells_readout import CellsLine
from napari_embryo.widgets._editors import BUNDLED, DeviceEditor, LayerChoice, WeightsEditor
from napari_embryo.widgets._form import CheckList, NoteLabel, Scrolled, SettingsForm, guard_wheel
from napari_embryo.widgets._layers import described, index_at, source_of
from napari_embryo.widgets._parts_layers import Found, Results, Started
from napari_embryo.widgets._parts_readout import MeasuredLine
from napari_embryo.widgets._torch_import import prepare_for_torch
from napari_embryo.widgets._worker import Job, RunPanel, Steps, tell

PLUGIN = "napari-embryo"

NONE_SHIPS = {"bundled": "none bundled: train a model, or choose a file"}
SAME_WEIGHTS = {"": "the same weights"}


# --- in the worker: the only part that imports torch ----------------------------------------------------------------


def segment(image: EmbryoImage, settings: SegmentSettings, indices: Sequence[Index] | None) -> Steps[str]:
    """Load the network and analyze an image; the item of a step is :class:`Started` or :class:`Found`.

    Returns the device used at the end.
    """
    total = image.n_planes if indices is None else len(indices)
    yield Progress(0, total, "Loading the network …")
    prepare_for_torch()
    from napari_embryo import pipeline, predict

    predictor = pipeline.load_predictor(settings)
    started = Started(pipeline.provenance_of(image, predictor), predictor.classes, predict.devices())
    yield Progress(0, total, f"Computing on {predictor.device} …", started)
    told, cells = 0, list[CellFrame]()
    for step in pipeline.analyze(image, predictor, indices):
        notes = tuple(predictor.notes[told:])
        told += len(notes)
        item = _as_item(step.item)
        cells += [item] if isinstance(item, CellFrame) else []
        yield replace(step, item=Found(item, notes))
    if cells:
        yield from arranging(cells, image)
    return str(predictor.device)


def arranging(frames: Sequence[CellFrame], image: EmbryoImage) -> Steps[None]:
    """Track the cells of the finished planes; the item of the last step is :class:`ImageCells`."""
    done = len(frames)
    if done > 1:
        yield Progress(done, done, "Tracking the cells …")
    cells = follow(frames, image)
    if cells.cells:  # their pixels are computed here, not in the window's thread
        yield Progress(done, done, "Drawing the cells …", cells)
    else:
        yield Progress(done, done, "No cell was found", cells)


def _as_item(item: PlaneResult | Failure) -> PlaneResult | CellFrame | Failure:
    """The part of a plane's result that the window keeps."""
    if isinstance(item, Failure):
        return item
    # Half precision resolves a thousandth of the display range and halves the memory of a long time-lapse.
    maps = tuple(replace(m, grid=m.grid.astype(np.float16)) if item.index else m for m in item.maps)
    return CellFrame.of(item, maps) if isinstance(item.finding, Cells) else replace(item, maps=maps)


def look_for_devices() -> Steps[dict[str, str | None]]:
    """Every device and why it cannot be used, or None."""
    yield Progress(0, 1, "Looking for devices …")
    prepare_for_torch()
    from napari_embryo.predict import devices

    return devices()


# --- the widget -----------------------------------------------------------------------------------------------------


def preferred() -> SegmentSettings:
    """The settings in napari's preferences, or the defaults."""
    try:
        preferences = get_plugin_settings(PLUGIN).segment
    except KeyError:
        return SegmentSettings()
    named = ("family", "device", "weights", "batch_size")
    return SegmentSettings.model_validate({name: getattr(preferences, name) for name in named})


def meanings(family: str) -> dict[str, str]:
    """Description of each attention map of a family."""
    return {name: info.meaning for name, info in FAMILIES[family].maps.items()}


def _cam_choices(family: str) -> list[tuple[str, str]]:
    return [("none", ""), *((name, name) for name in FAMILIES[family].cam_layers)]


class SegmentWidget(QWidget):
    """Choose an image layer, press Run, and correct the labels.

    Parameters
    ----------
    napari_viewer
        Viewer with the images, to which results are added.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._looking: Job[dict[str, str | None]] | None = None
        self.image = LayerChoice(napari_viewer)
        self.about, self.frames = NoteLabel(), QComboBox()
        self.frames.addItems(["current frame", "all frames"])
        self.device, self.maps = DeviceEditor(self._look_for_devices), CheckList(meanings(DEFAULT))
        self.weights, self.grad_cam = WeightsEditor(families=(DEFAULT,)), ComboBox(choices=_cam_choices(DEFAULT))
        self.family: Any = ComboBox(choices=[(FAMILIES[name].title, name) for name in segmenting_families()])
        self.ratio_weights = WeightsEditor(SAME_WEIGHTS, (DEFAULT,))
        self.form = SettingsForm(
            SegmentSettings,
            advanced=("grad_cam", "views", "one_embryo", "precision", "threshold", "batch_size"),
            editors={
                "family": self.family,
                "device": self.device,
                "weights": self.weights,
                "ratio_weights": self.ratio_weights,
                "maps": self.maps,
                "grad_cam": self.grad_cam,
            },
            labels={
                "ratio_weights": "Ratio from",
                "maps": "Attention maps",
                "one_embryo": "Only the largest embryo",
                "views": "Views averaged",
                "batch_size": "Frames together",
                "grad_cam": "Grad-CAM at",
            },
        )
        self.panel, self.measured = RunPanel("Segmentation", self.run), MeasuredLine(napari_viewer)
        self.cells = CellsLine(napari_viewer)
        self._lay_out()
        self.image.widget.changed.connect(self._describe)
        self.family.changed.connect(self._follow_family)
        self._follow_family(self.family.value)
        self.form.set_value(preferred())
        self.reset_choices()

    def _lay_out(self) -> None:
        guard_wheel(self.frames)
        for place, (label, widget) in enumerate(
            (("Image", self.image.native), ("", self.about), ("Frames", self.frames))
        ):
            self.form.rows.insertRow(place, label, widget)
        below_device, _ = self.form.rows.getWidgetPosition(self.device.native)
        self.form.rows.insertRow(below_device + 1, "", self.device.line)
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.form)
        column.addStretch(1)
        whole = QVBoxLayout(self)
        whole.addWidget(Scrolled(content), stretch=1)
        whole.addWidget(self.panel)
        whole.addWidget(self.measured)
        whole.addWidget(self.cells)
        whole.addWidget(NoteLabel(RESEARCH_USE))
        self.setMinimumWidth(300)

    def use(self, family: str, weights: str) -> None:
        """Choose weights, and their family."""
        if family in segmenting_families():
            self.family.value = family
        self.weights.value = weights

    def _follow_family(self, family: str) -> None:
        """Update weights, maps and layers, which differ between families."""
        self.weights.box.offer(BUNDLED if FAMILIES[family].ships else NONE_SHIPS, (family,))
        self.maps.offer(meanings(family))
        self.maps.value = FAMILIES[family].usual_maps
        self.grad_cam.choices = _cam_choices(family)
        self._offer_ratio_weights(family)

    def _offer_ratio_weights(self, family: str) -> None:
        """Show the weights for the ratio only for a family that estimates one."""
        offered = FAMILIES[family].tells_a_ratio
        if not offered:
            self.ratio_weights.value = ""
        bundled = BUNDLED if FAMILIES[family].ships else {}
        self.ratio_weights.box.offer({**SAME_WEIGHTS, **bundled}, (family,))
        field = self.ratio_weights.native
        for part in filter(None, (field, self.form.rows.labelForField(field))):
            part.setVisible(offered)

    def reset_choices(self, _: Any = None) -> None:
        """Follow the layer list; napari calls it when a layer is added, removed or renamed."""
        self.image.refresh()
        self._describe()

    def _describe(self, _: Any = None) -> None:
        """Show how the chosen layer is interpreted, so that a channel taken for time is noticed."""
        layer = self.image.value
        if layer is None:
            self.about.setText("Open an image, or a sample: File ▸ Open Sample ▸ napari-embryo.")
            return
        try:
            image = source_of(layer).image
        except ValueError as error:
            self.about.setText(str(error))
            return
        self.about.setText(described(image))
        self.frames.setEnabled(image.n_planes > 1)

    # --- running

    def run(self) -> None:
        """Segment the chosen layer in a worker."""
        layer = self.image.value
        if layer is None:
            self.panel.refuse("there is no image layer; open an image or a sample first")
            return
        try:
            source, settings = source_of(layer), self.form.value()
        except ValueError as error:
            self.panel.refuse(error)
            return
        work = partial(segment, source.image, settings, self._indices(layer, source.image))
        if FAMILIES[settings.family].finds_cells:
            self._start_cells(work, CellResults(self._viewer, source))
            return
        results = Results(self._viewer, source, FAMILIES[settings.family].finds)
        self.panel.start(work, partial(self._take, results), results.outcome)

    def _start_cells(self, work: Callable[[], Steps[str]], results: CellResults) -> None:
        """Track the cells of the finished planes even if the run was interrupted."""

        def keep(ended: str) -> None:
            if results.frames and results.cells is None:
                rest = partial(arranging, results.frames, results.source.image)
                self.panel.start(rest, partial(self._take, results), lambda _: f"{ended} {results.said()}")

        self.panel.start(work, partial(self._take, results), results.outcome, keep)

    def cancel(self) -> None:
        """Stop after the current batch; finished frames are kept."""
        self.panel.cancel()

    def _indices(self, layer: Image, image: EmbryoImage) -> list[Index] | None:
        if self.frames.currentText() == "all frames":
            return None
        return [index_at(layer, self._viewer.dims.point, image)]

    def _take(self, results: Results | CellResults, progress: Progress) -> None:
        if isinstance(progress.item, Started):
            self.device.describe(progress.item.devices)
        results.take(progress.item)
        match progress.item, results:
            case Found(item=PlaneResult() as result), Results(labels=Labels() as layer):
                self.measured.trust(layer, result.index, as_parts(result.finding).labels())

    def _look_for_devices(self) -> None:
        self._looking = Job(
            look_for_devices,
            on_step=lambda _: None,
            on_result=self.device.describe,
            on_error=partial(tell, what="Looking for devices"),
            on_end=lambda: None,
        )
        self._looking.start()
