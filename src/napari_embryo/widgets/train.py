"""Train: learn from annotated images in a separate process, watch the curves, and use the model at once."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from napari.layers import Layer
from napari.utils.colormaps import DirectLabelColormap
from napari.utils.theme import get_theme
from napari.viewer import Viewer
from qtpy.QtGui import QFontDatabase
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QMenu,
    QPlainTextEdit,
    QPushButton,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_embryo import library, recipes, render, stream
from napari_embryo.families import FAMILIES
from napari_embryo.image import Progress
from napari_embryo.io.cells import RESULT
from napari_embryo.notes import RESEARCH_USE, Note, counted
from napari_embryo.settings import Recipe
from napari_embryo.widgets._cells import colormap as cell_colors
from napari_embryo.widgets._curves import Curves, Point, scores_said
from napari_embryo.widgets._editors import PathEditor, refresh_models
from napari_embryo.widgets._form import NoteLabel, Scrolled, form_layout
from napari_embryo.widgets._layers import colormap
from napari_embryo.widgets._recipe_form import RecipeForm
from napari_embryo.widgets._samples import SampleMaker, user_folder
from napari_embryo.widgets._train_panel import CloseGuard, TrainPanel
from napari_embryo.widgets._train_process import Child, total_loss
from napari_embryo.widgets._train_work import Rgb, Worst, check, going_on, learning, predict_worst, preview
from napari_embryo.widgets._worker import Job, RunPanel, Steps, add_layer, show, tell
from napari_embryo.widgets.complete import CompleteWidget
from napari_embryo.widgets.segment import SegmentWidget, look_for_devices

DOCK = "Train (napari-embryo)"
"""Name of the dock when napari opens it from the menu."""


def free_folder(parent: Path, name: str) -> Path:
    """``name``, or ``name-2``, ``name-3`` ... if a run of this name exists."""
    number, folder = 1, parent / name
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


def theme_colors(theme: str) -> Mapping[str, str]:
    """Colors of the window, for the curves."""
    colors = get_theme(theme)
    return {name: getattr(colors, name).as_hex() for name in ("background", "text", "secondary")}


def worst_colors(worst: Worst) -> DirectLabelColormap:
    """Colors of classes, or of cells by number."""
    return cell_colors(len(worst.classes)) if worst.are_cells else colormap(worst.classes)


def _side_panel(button: str, what: str, on_run: Callable[[], None]) -> RunPanel:
    panel = RunPanel(what, on_run)
    panel.run_button.setText(button)
    return panel


def _column(*parts: QWidget) -> QWidget:
    content = QWidget()
    column = QVBoxLayout(content)
    column.setContentsMargins(2, 4, 2, 2)
    for part in parts:
        column.addWidget(part)
    column.addStretch(1)
    return content


def _row(*parts: QWidget) -> QWidget:
    content = QWidget()
    row = QHBoxLayout(content)
    row.setContentsMargins(0, 0, 0, 0)
    for part in parts:
        row.addWidget(part)
    return content


def _call(act: Callable[[], None], _: bool) -> None:
    act()


class TrainWidget(QWidget):
    """Choose images, press Train, watch the curves, and use the model.

    Parameters
    ----------
    napari_viewer
        Viewer with annotated images, to which previews are added.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._looking: Job[dict[str, str | None]] | None = None
        self._recipe, self._out = Recipe(), Path()
        self._model: Path | None = None
        self._worst: tuple[str, ...] = ()
        self._told: set[Note] = set()
        self.form = RecipeForm(self._look_for_devices)
        self.samples = SampleMaker(napari_viewer, self.form.folders.add)
        self._follow_family()
        self.form.family.currentIndexChanged.connect(lambda _: self._follow_family())
        self.report, self.curves = QPlainTextEdit(), Curves(theme_colors(napari_viewer.theme))
        self.about_best = NoteLabel("Curves appear after the first steps.")
        self.runs = PathEditor("Folder for training runs")
        self.runs.value = str(user_folder("runs"))
        self.check_panel = _side_panel("Check data", "Checking the data", self.check)
        self.preview_panel = _side_panel("Preview augmentation", "The preview", self.preview)
        self.worst_panel = _side_panel("Show worst", "Showing the worst images", self.show_worst)
        self.use_button = QPushButton("Use it")
        self.panel = TrainPanel(self.run, self._ended)
        self._lay_out()
        self._connect()
        self.reset_choices()

    def reset_choices(self, _: Any = None) -> None:
        """Follow the layer list; napari calls it when a layer is added, removed or renamed."""
        self.samples.refresh()

    # --- layout

    def _lay_out(self) -> None:
        self.tabs = QTabWidget()
        for name, parts in (
            ("Images", self._pictures()),
            ("Network", self._network()),
            ("Curves", self._progress()),
        ):
            self.tabs.addTab(Scrolled(_column(*parts)), name)
        whole = QVBoxLayout(self)
        whole.addWidget(self.tabs, stretch=1)
        whole.addWidget(self.panel)
        whole.addWidget(NoteLabel(RESEARCH_USE))
        self.setMinimumWidth(300)

    def _follow_family(self) -> None:
        """Labels painted from scratch are taken for what the chosen family learns."""
        self.samples.choose_painted(FAMILIES[self.form.family.currentData()].settings.model_validate({}).classes)

    def _pictures(self) -> Sequence[QWidget]:
        self.report.setReadOnly(True)
        narrow = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        narrow.setPointSize(max(6, narrow.pointSize() - 2))
        self.report.setFont(narrow)
        self.report.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.report.setPlaceholderText("Check data reports what is found, what is left out, and how it is split.")
        self.report.setMinimumHeight(130)
        heading = NoteLabel("<b>From layers open in napari</b>")
        return self.form.data, heading, self.samples, self.check_panel, self.report

    def _network(self) -> Sequence[QWidget]:
        self.form.shown_with_augmentation.addWidget(self.preview_panel)
        self.load_button, self.save_button = QPushButton("Load recipe"), QPushButton("Save recipe…")
        self.resume_button = QPushButton("Resume a run…")
        self.resume_button.setToolTip("Choose the folder of a stopped or interrupted run.")
        runs = QWidget()
        form_layout(runs).addRow("Runs are kept in", self.runs.native)
        return self.form.network, runs, _row(self.load_button, self.save_button), self.resume_button

    def _progress(self) -> Sequence[QWidget]:
        self.use_button.setToolTip("Select the model in the open Segment widget.")
        self.use_button.setEnabled(False)
        self.worst_panel.run_button.setEnabled(False)
        return self.curves, self.about_best, self.worst_panel, self.use_button

    def _connect(self) -> None:
        menu = QMenu(self)
        for name in recipes.names():
            menu.addAction(name, partial(self.load_recipe, name))
        menu.addSeparator()
        menu.addAction("From a file…", self._choose_recipe)
        self.load_button.setMenu(menu)
        for button, act in (
            (self.save_button, self._choose_where_to_save),
            (self.resume_button, self._choose_run),
            (self.use_button, self.use_model),
        ):
            button.clicked.connect(partial(_call, act))
        self._viewer.events.theme.connect(self._follow_theme)
        self.guard = CloseGuard(self, self.panel, self._put_back)

    def _follow_theme(self, _: Any = None) -> None:
        self.curves.set_colors(theme_colors(self._viewer.theme))

    # --- recipes

    def load_recipe(self, path_or_name: str | Path) -> None:
        """Show a recipe in the form; if it names no folders, those in the form are kept."""
        try:
            recipe = recipes.read(path_or_name)
        except (ValueError, OSError) as error:
            self.panel.refuse(error)
            return
        folders = self.form.folders.value
        self.form.set_value(recipe)
        self.form.folders.value = recipe.data.folders or folders

    def save_recipe(self, path: Path) -> None:
        """Save the form as YAML."""
        try:
            recipes.write(path, self.form.value())
        except (ValueError, OSError) as error:
            self.panel.refuse(error)

    def _choose_recipe(self) -> None:
        if chosen := QFileDialog.getOpenFileName(self, "Choose a recipe", filter="Recipes (*.yaml *.yml)")[0]:
            self.load_recipe(Path(chosen))

    def _choose_where_to_save(self) -> None:
        name = f"{self.form.name.text()}.yaml"
        if chosen := QFileDialog.getSaveFileName(self, "Save the recipe", name, "Recipes (*.yaml *.yml)")[0]:
            self.save_recipe(Path(chosen))

    # --- looking at the data

    def check(self) -> None:
        """Inspect the folders in a worker and show what is found."""
        self._beside(self.check_panel, check, self._show_report)

    def _show_report(self, text: str) -> str:
        self.report.setPlainText(text)
        return ""

    def preview(self) -> None:
        """Add augmented training images as a layer."""
        self._beside(self.preview_panel, preview, self._add_preview)

    def _add_preview(self, pictures: Rgb) -> str:
        about = {"name": f"{self.form.name.text()} augmented", "rgb": True, "metadata": {RESULT: "augmentation"}}
        self._look_at(add_layer(self._viewer, (pictures, {**about, **self._units()}, "image")))
        return f"{counted(len(pictures), 'image')}, one per slider position."

    def _beside(self, panel: RunPanel, work: Callable[[Recipe], Steps[Any]], take: Callable[[Any], str]) -> None:
        try:
            recipe = self._filled_in()
        except ValueError as error:
            panel.refuse(error)
            return
        panel.start(partial(work, recipe), lambda _: None, take)

    def _filled_in(self) -> Recipe:
        recipe = self.form.value()
        if not recipe.data.folders:
            raise ValueError("there are no images yet; add a folder of annotated images, or a sample from layers")
        return recipe

    # --- training

    def run(self) -> None:
        """Train in a separate process."""
        try:
            recipe = self._filled_in()
            out = free_folder(Path(self.runs.value), recipe.name)
        except (ValueError, OSError) as error:
            self.panel.refuse(error)
            return
        child = Child()
        self._start(recipe, out, child, partial(learning, recipe, child, out))

    def go_on(self, out: Path) -> None:
        """Resume a stopped or interrupted run from its folder."""
        try:
            recipe = recipes.read(out / "recipe.yaml")
        except (ValueError, OSError) as error:
            self.panel.refuse(error)
            return
        child = Child()
        self._start(recipe, out, child, partial(going_on, child, out))

    def _choose_run(self) -> None:
        if chosen := QFileDialog.getExistingDirectory(self, "Choose the folder of a run", self.runs.value):
            self.go_on(Path(chosen))

    def _start(self, recipe: Recipe, out: Path, child: Child, work: Callable[[], Steps[stream.Finished]]) -> None:
        if self.panel.running:
            self.panel.refuse("training is already running; stop it first")
            return
        self._recipe, self._out, self._worst, self._told = recipe, out, (), set()
        self.use_button.setEnabled(False)
        self.resume_button.setEnabled(False)
        self.curves.clear()
        self.about_best.setText(f"The run is kept in {out}")
        self.panel.follow(child)
        self.panel.start(work, self._take, self._finished)

    def _take(self, progress: Progress) -> None:
        match progress.item:
            case stream.Report(text=text):
                self.report.setPlainText(text)
                self.tabs.setCurrentIndex(2)
            case stream.Step() as step:
                self.curves.add_step(self._place(step), total_loss(step.losses))
            case stream.Epoch() as epoch:
                self._show_epoch(epoch)
            case stream.Noted(note=note):
                self._show_note(note)
            case stream.Paused():
                self.panel.set_paused(True)
            case stream.Resumed():
                self.panel.set_paused(False)

    def _show_note(self, note: Note) -> None:
        """Show a note once: at the end a training reports all of them again."""
        if note not in self._told:
            self._told.add(note)
            self.report.appendPlainText(note.text)
            show([note])

    def _place(self, step: stream.Step) -> float:
        """Position in epochs: the last step of epoch 3 is at 3."""
        return step.done * self._recipe.training.epochs / max(1, step.total)

    def _show_epoch(self, epoch: stream.Epoch) -> None:
        losses = total_loss(epoch.train), total_loss(epoch.validation)
        self.curves.add_epoch(Point(epoch.epoch, *losses, epoch.scores, epoch.best))
        self._worst = tuple(name for name, _ in epoch.worst)
        self.worst_panel.run_button.setEnabled(bool(self._worst) and not self.worst_panel.running)
        self.about_best.setText(self._best_said())

    def _best_said(self) -> str:
        best = self.curves.history.best
        return f"Best epoch {best.epoch}: {', '.join(scores_said(best))}." if best else "No epoch is finished yet."

    def _finished(self, outcome: stream.Finished) -> str:
        self._model = outcome.added or outcome.best
        refresh_models()
        self.use_button.setEnabled(self._model is not None)
        for note in outcome.notes:
            self._show_note(note)
        return f"{outcome.reason.capitalize()} after {counted(outcome.epochs, 'epoch')}. {self._kept(outcome)}"

    def _kept(self, outcome: stream.Finished) -> str:
        if outcome.added:
            return f"{self._best_said()} {outcome.added.stem!r} is now in the lists of models."
        if outcome.best:
            return f"{self._best_said()} The lists of models are unchanged; the weights are in {outcome.best}."
        return "Nothing was kept."

    def _ended(self) -> None:
        self.resume_button.setEnabled(True)
        self.guard.ended()

    def _put_back(self) -> None:
        self._viewer.window.add_dock_widget(self, name=DOCK)
        self.show()

    # --- after and beside it

    def show_worst(self) -> None:
        """Add the worst validation images, their annotations, and what the best network so far finds."""
        best = self._out / "best.safetensors"
        if not self._worst or not best.is_file():
            self.worst_panel.refuse("no epoch is finished yet; wait for the first one")
            return
        work = partial(predict_worst, self._recipe, self._worst, best)
        self.worst_panel.start(work, lambda _: None, self._add_worst)

    def _add_worst(self, worst: Worst) -> str:
        metadata = {RESULT: "worst", "names": worst.names, "classes": worst.classes}
        name, colors = f"{self._recipe.name} worst", worst_colors(worst)
        shown: dict[str, Any] = {"metadata": metadata, "axis_labels": ("picture", "y", "x"), **self._units()}
        images = add_layer(self._viewer, (worst.images, {**shown, "name": name}, "image"))
        drawn = {**shown, "colormap": colors, "features": render.label_names(worst.classes)}
        found = add_layer(self._viewer, (worst.predicted, {**drawn, "name": f"{name} found", "opacity": 0.4}, "labels"))
        truth = add_layer(self._viewer, (worst.truth, {**drawn, "name": f"{name} annotated"}, "labels"))
        truth.contour = 2
        self._look_at(images, found, truth)
        return f"Outlines: annotated. Filled: found. The slider goes through {', '.join(worst.names)}."

    def _units(self) -> dict[str, Any]:
        """Units of the other layers, for a stack of images; napari warns and ignores them if they differ."""
        units = self._viewer.layers.units
        return {} if units is None else {"units": ("pixel", *units)[-3:]}

    def _look_at(self, *layers: Layer) -> None:
        """Show the first image of a stack as large as the canvas allows."""
        self._viewer.dims.set_point(self._viewer.dims.ndim - 3, 0)
        self._viewer.reset_view(layers=layers)

    def use_model(self) -> None:
        """Select the new model in every open widget that can use it."""
        if self._model is None:
            return
        family = FAMILIES[library.family_of(self._model) or self._recipe.model.family]
        if family.draws:
            said = f"is {self._choose_in(SegmentWidget, 'Segment', family.name, self._model)}"
        elif family.has_shape_code:
            said = f"is {self._choose_in(CompleteWidget, 'Complete cell', family.name, self._model)}"
        else:
            said = f"cannot be used in another widget: {family.caveat}"
        self.panel.status.setText(f"{self._model.stem!r} {said}.")

    def _choose_in(
        self, kind: type[SegmentWidget] | type[CompleteWidget], called: str, family: str, model: Path
    ) -> str:
        found = [widget for widget in self._viewer.window.dock_widgets.values() if isinstance(widget, kind)]
        for widget in found:
            widget.use(family, str(model))
        elsewhere = f"in {called}'s list of weights; open Plugins ▸ napari-embryo ▸ {called}"
        return f"selected in {called}" if found else elsewhere

    def _look_for_devices(self) -> None:
        self._looking = Job(
            look_for_devices,
            on_step=lambda _: None,
            on_result=self.form.device.describe,
            on_error=partial(tell, what="Looking for devices"),
            on_end=lambda: None,
        )
        self._looking.start()
