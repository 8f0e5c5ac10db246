"""Batch: process a whole folder in worker processes, with a table of images; can be canceled and resumed."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from magicgui.widgets import ComboBox
from napari.layers import Layer
from napari.viewer import Viewer
from qtpy.QtCore import QModelIndex, Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QPushButton,
    QSplitter,
    QTableView,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_embryo import batch, io
from napari_embryo.batch import Again, Outcome, Plan, Status, Summary
from napari_embryo.batch import Job as BatchJob
from napari_embryo.families import FAMILIES, segmenting_families
from napari_embryo.image import Progress
from napari_embryo.io import LayerData
from napari_embryo.io.cells import RESULT
from napari_embryo.notes import RESEARCH_USE, counted
from napari_embryo.settings import BatchSettings, SegmentSettings
from napari_embryo.widgets._batch_table import TO_DO, BatchTable
from napari_embryo.widgets._editors import BUNDLED, DeviceEditor, NamesEditor, PathEditor, WeightsEditor, narrow
from napari_embryo.widgets._form import NoteLabel, Scrolled, form_layout, guard_wheel, make_editor, tooltip
from napari_embryo.widgets._torch_import import prepare_for_torch
from napari_embryo.widgets._worker import Job, RunPanel, Steps, add_layer, tell
from napari_embryo.widgets.open import FormText, choices_of
from napari_embryo.widgets.segment import NONE_SHIPS, look_for_devices, preferred

RESULTS = "napari-embryo-results"
"""Name of the suggested folder for results, within the folder of images."""

GROUPING = {"auto": "grouped by their names", "separate": "one image each", "stack": "all of them one time-lapse"}
FOCUS = {"best": "the sharpest plane", "edf": "extended depth of field"}


# --- in the worker --------------------------------------------------------------------------------------------------


def looking(source: Path, out: Path, settings: BatchSettings) -> Steps[tuple[Plan, dict[str, Status]]]:
    """Plan a batch, and look up the results of earlier runs."""
    yield Progress(0, 1, "Listing the images …")
    plan = batch.plan([source], out, settings)
    return plan, batch.states(plan)


def working(plan: Plan, again: Again) -> Steps[Summary]:
    """Run a plan in processes of this computer; steps report the speed."""
    yield Progress(0, len(plan.jobs), "Starting the worker processes …")
    device = plan.settings.segment.device
    if device != "cpu":
        prepare_for_torch()  # to count the graphics cards
    steps, start = batch.run(plan, batch.local(device, len(plan.jobs)), again), time.monotonic()
    try:
        while True:
            step = next(steps)
            yield replace(step, message=rate_said(step.done, step.total, time.monotonic() - start))
    except StopIteration as finished:
        return finished.value  # type: ignore[no-any-return]
    finally:
        steps.close()


def rate_said(done: int, total: int, seconds: float) -> str:
    """Speed and remaining time as text.

    Examples
    --------
    >>> rate_said(30, 120, 60)
    '0.5 images/s, 3 min left'
    """
    if not done:
        return "loading the network …"
    rate = done / max(seconds, 1e-6)
    return f"{rate:.2g} images/s, {_duration((total - done) / rate)} left"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def comparing(job: BatchJob, plan: Plan) -> Steps[list[LayerData]]:
    """Open the original of an image and its result."""
    yield Progress(0, 1, f"Opening {job.name} …")
    image = io.open_image(io.plan_group(job.found, plan.settings.grouping).embryos.images[0])
    about = {"name": f"{job.name} (original)", "metadata": {RESULT: "batch"}}
    layers: list[LayerData] = [(image.data, {**about, "rgb": False}, "image")]
    overlay = plan.out / f"{job.name}_overlay.png"
    if overlay.is_file():
        beside = (0.0,) * (image.data.ndim - 2) + (0.0, 1.03 * image.shape[-1])
        pixels = _rgb(overlay)
        shown = pixels.reshape((1,) * (image.data.ndim - 2) + pixels.shape)
        about = {"name": f"{job.name} (result)", "metadata": {RESULT: "batch"}}
        layers.append((shown, {**about, "rgb": True, "translate": beside}, "image"))
    return layers


def _rgb(path: Path) -> npt.NDArray[np.uint8]:
    return np.asarray(io.read_image(path).metadata["rgb"])


# --- the widget -----------------------------------------------------------------------------------------------------


class BatchWidget(QWidget):
    """Choose a folder, check the plan, and press Start.

    Parameters
    ----------
    napari_viewer
        Viewer that shows originals and results.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._plan: Plan | None = None
        self._shown: list[Layer] = []
        self._jobs: list[Job[Any]] = []
        self.source, self.out = PathEditor("Choose a folder of images"), PathEditor("Choose a folder for the results")
        self.include, self.exclude = NamesEditor(), NamesEditor()
        self.family: Any = ComboBox(choices=[(FAMILIES[name].title, name) for name in segmenting_families()])
        self.weights, self.device = WeightsEditor(), DeviceEditor(self._look_for_devices)
        schema = SegmentSettings.model_json_schema()["properties"]
        self.views: Any = make_editor(SegmentSettings, "views", schema["views"])
        self.overlays, self.maps = QCheckBox("overlays"), QCheckBox("attention maps")
        self.grouping: Any = ComboBox(choices=[(said, name) for name, said in GROUPING.items()])
        self.focus: Any = ComboBox(choices=[(said, name) for name, said in FOCUS.items()])
        self.pixel_size = QLineEdit()
        self.table, self.rows = BatchTable(self), QTableView()
        self.panel, self.said = RunPanel("Batch", self.start), NoteLabel()
        self.retry_button, self.sheet_button = QPushButton("Retry failed"), QPushButton("Contact sheet")
        for box in (self.family, self.grouping, self.focus, self.views):
            narrow(box.native)
        self._lay_out()
        self._connect()
        self._follow_family(self.family.value)
        self._use(preferred())
        self._refresh_buttons()

    # --- layout

    def _lay_out(self) -> None:
        fields = QWidget()
        rows = form_layout(fields)
        for label, widget, about in (
            ("Images", self.source.native, "Folder of images, including its subfolders."),
            ("Only", self.include.native, "Names or patterns such as *.png, day5/*; empty: every image."),
            ("Results", self.out.native, "Folder for the results; an existing run there is resumed."),
            ("Family", self.family.native, "Family of networks."),
            ("Weights", self.weights.native, "The bundled weights, or one of your models."),
            ("Device", self.device.native, "auto uses the graphics card if there is one."),
            ("", self.device.line, ""),
        ):
            self._add(rows, label, widget, about)
        self.include.native.setPlaceholderText("*.png, day5/*")
        advanced = QCollapsible("More", expandedIcon="▾", collapsedIcon="▸")
        folded = QWidget()
        more = form_layout(folded)
        for label, widget, about in (
            ("Not", self.exclude.native, "No files that match one of these patterns."),
            ("Files are", self.grouping.native, "Which files of a folder are one image."),
            ("Of planes", self.focus.native, "What to use of several focal planes."),
            (
                "µm/pixel",
                self.pixel_size,
                "Pixel size to use instead of that in the files; one number or height x width.",
            ),
            ("Views", self.views.native, SegmentSettings.model_fields["views"].description or ""),
            ("Write", self.overlays, "Write each image with the results drawn over it."),
            ("", self.maps, "Attention maps take ten times the space of everything else."),
        ):
            self._add(more, label, widget, about)
        advanced.setContent(folded)
        advanced.collapse(animate=False)
        self.overlays.setChecked(True)
        self._lay_out_table()
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(fields)
        column.addWidget(advanced)
        column.addStretch(1)
        parts = QSplitter(Qt.Orientation.Vertical)
        parts.addWidget(Scrolled(content))
        parts.addWidget(self.rows)
        parts.setChildrenCollapsible(False)
        parts.setSizes([260, 240])
        whole = QVBoxLayout(self)
        whole.addWidget(parts, stretch=1)
        whole.addWidget(self.said)
        whole.addWidget(self.panel)
        buttons = QHBoxLayout()
        buttons.addWidget(self.retry_button)
        buttons.addWidget(self.sheet_button)
        whole.addLayout(buttons)
        whole.addWidget(NoteLabel(RESEARCH_USE))
        self.panel.run_button.setText("Start")
        self.setMinimumWidth(300)

    def _add(self, rows: Any, label: str, widget: QWidget, about: str) -> None:
        widget.setToolTip(tooltip(about))
        guard_wheel(widget)
        rows.addRow(label, widget)

    def _lay_out_table(self) -> None:
        self.rows.setModel(self.table)
        self.rows.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.rows.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.rows.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.rows.setWordWrap(False)
        self.rows.setMinimumHeight(110)
        below, across = self.rows.verticalHeader(), self.rows.horizontalHeader()
        if below is not None and across is not None:
            below.setVisible(False)
            below.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)  # querying the height of every row takes seconds
            below.setDefaultSectionSize(22)
            across.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
            across.setSectionResizeMode(0, QHeaderView.ResizeMode.Fixed)
            across.resizeSection(0, 82)

    def _connect(self) -> None:
        self.source.line.editingFinished.connect(self._propose_out)
        self.source.line.textChanged.connect(lambda _: self._propose_out())
        for editor in (self.source.line, self.out.line, self.include.native, self.exclude.native):
            editor.editingFinished.connect(self.look)
        for path in (self.source, self.out):
            path.browse.clicked.connect(lambda _: self.look())
        for choice in (self.grouping, self.focus):
            choice.changed.connect(lambda _: self.look())
        self.family.changed.connect(self._follow_family)
        self.rows.clicked.connect(self.compare)
        self.retry_button.clicked.connect(lambda _: self.start("failed"))
        self.sheet_button.clicked.connect(lambda _: self.open_sheet())

    def _use(self, settings: SegmentSettings) -> None:
        """The user's preferences."""
        self.family.value = settings.family
        self.weights.value = settings.weights
        self.device.value = settings.device

    def _follow_family(self, family: str) -> None:
        self.weights.box.offer(BUNDLED if FAMILIES[family].ships else NONE_SHIPS, (family,))

    def reset_choices(self, _: Any = None) -> None:
        """Do nothing: this widget does not depend on layers."""

    # --- the plan

    def settings(self) -> BatchSettings:
        """The request in the form.

        Raises
        ------
        ValueError
            If a field is invalid; the message names it, its value and what is needed.
        """
        family = self.family.value
        segment = SegmentSettings(
            family=family,
            weights=self.weights.value,
            device=self.device.value,
            views=int(self.views.value),
            maps=FAMILIES[family].usual_maps if self.maps.isChecked() else (),
        )
        size = choices_of(FormText(pixel_size_um=self.pixel_size.text())).pixel_size_um
        return BatchSettings(
            segment=segment,
            include=self.include.value,
            exclude=self.exclude.value,
            grouping=self.grouping.value,
            focus=self.focus.value,
            pixel_size_um=size,
            overlays=self.overlays.isChecked(),
        )

    def _propose_out(self) -> None:
        """Suggest a folder next to the images, unless the user chose another one."""
        proposed = not self.out.value or Path(self.out.value).name == RESULTS
        if self.source.value and proposed:
            self.out.value = str(Path(self.source.value) / RESULTS)

    def look(self) -> None:
        """Show the plan."""
        if self.panel.running or not self.source.value or not self.out.value:
            return
        try:
            work = partial(looking, Path(self.source.value), Path(self.out.value), self.settings())
        except ValueError as error:
            self.said.setText(str(error))
            return
        self.said.setText("Listing the images …")
        self._do(work, self._show_plan, "Listing the images")

    def _show_plan(self, found: tuple[Plan, dict[str, Status]]) -> None:
        self._plan, before = found
        self.table.show_plan(self._plan, before)
        self.said.setText(plan_said(self._plan))
        self._refresh_buttons()

    def _refresh_buttons(self) -> None:
        left, known = self.table.count(TO_DO), self.table.count("done", "partly done", "failed")
        self.panel.run_button.setText("Resume" if left and known else "Start")
        self.panel.run_button.setEnabled(not self.panel.running and self._plan is not None and bool(self._plan.jobs))
        self.retry_button.setEnabled(not self.panel.running and bool(self.table.count("failed", "partly done")))
        self.sheet_button.setEnabled(bool(known))

    # --- running

    def start(self, again: Again = "changed") -> None:
        """Process the rest of the plan."""
        if self._plan is None:
            self.panel.refuse("choose a folder of images first")
            return
        try:
            self._plan = replace(self._plan, settings=self.settings())
        except ValueError as error:
            self.panel.refuse(error)
            return
        self.panel.start(partial(working, self._plan, again), self._take, self._ended, self._cut_short)
        self._refresh_buttons()

    def cancel(self) -> None:
        """Stop; finished results are kept, and Resume continues with the rest."""
        self.panel.cancel()

    def _take(self, progress: Progress) -> None:
        if isinstance(progress.item, Outcome):
            self.table.take(progress.item)

    def _ended(self, summary: Summary) -> str:
        said = f"{summary.done + summary.partly_done} done, {summary.failed} failed"
        before = f"; {summary.skipped} of them before" if summary.skipped else ""
        self._after()
        return f"{said}{before}. Results in {self.out.value}"

    def _cut_short(self, ended: str) -> None:
        self._after()
        left = self.table.count(TO_DO)
        self.panel.status.setText(f"{ended} {counted(left, 'image')} left: Resume continues with them.")

    def _after(self) -> None:
        # The panel updates its own buttons only after this has returned.
        self._do(_nothing, lambda _: self._refresh_buttons(), "Batch")

    def open_sheet(self) -> None:
        """Show the contact sheet in the browser."""
        if self._plan is not None:
            self._do(partial(_sheet, self._plan), _open_in_browser, "The contact sheet")

    # --- looking at results

    def compare(self, index: QModelIndex) -> None:
        """Show original and result of a row side by side in the viewer."""
        job = self.table.job(index.row())
        if job is not None and self._plan is not None:
            self._do(partial(comparing, job, self._plan), self._show, f"Opening {job.name}")

    def _show(self, layers: list[LayerData]) -> None:
        for layer in self._shown:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self._shown = [add_layer(self._viewer, each) for each in layers]
        self._viewer.reset_view()

    def _do(self, work: Any, on_result: Any, what: str) -> None:
        """Run something short in a worker thread."""
        job: Job[Any] = Job(work, lambda _: None, on_result, partial(tell, what=what), lambda: self._jobs.remove(job))
        self._jobs.append(job)
        job.start()

    def _look_for_devices(self) -> None:
        self._do(look_for_devices, self.device.describe, "Looking for devices")


def plan_said(plan: Plan) -> str:
    """A plan in a line or two."""
    stacks = sum(len(job.files) > 1 for job in plan.jobs)
    said = [counted(len(plan.jobs), "image")]
    said += [f"{stacks} of several files"] if stacks else []
    said += [f"{len(plan.left_out)} left out"] if plan.left_out else []
    return "; ".join([", ".join(said), *(note.text for note in plan.notes), *(p.text() for p in plan.problems[:2])])


def _nothing() -> Steps[None]:
    yield Progress(1, 1, "")


def _sheet(plan: Plan) -> Steps[Path]:
    yield Progress(0, 1, "Making the contact sheet …")
    return batch.contact_sheet(plan)


def _open_in_browser(path: Path) -> None:
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(path.absolute())))
