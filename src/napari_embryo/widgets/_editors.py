"""Custom form fields: devices, weights, folders, numbers, layers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from magicgui.widgets import ComboBox
from napari.layers import Image, Layer
from napari.viewer import Viewer
from pydantic import BaseModel
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_embryo import library
from napari_embryo.io.cells import RESULT
from napari_embryo.settings import Device
from napari_embryo.widgets._form import NoteLabel, guard_wheel, tooltip

DEVICES: dict[Device, str] = {
    "auto": "the fastest available",
    "cuda": "NVIDIA graphics card",
    "mps": "Apple graphics processor",
    "cpu": "processor: slower, always available",
}

WEIGHTS_FILES = "Weights of napari-embryo (*.safetensors)"
BUNDLED: Mapping[str, str] = MappingProxyType({"bundled": "bundled"})


class DeviceEditor:
    """The devices, with a description of each on this computer.

    The description needs torch, which takes seconds to import, so it is loaded when the user first opens the list.

    Parameters
    ----------
    look
        Starts loading the descriptions; called once.

    Attributes
    ----------
    line
        Says why the chosen device cannot be used; placed below in the form.
    """

    def __init__(self, look: Callable[[], None]) -> None:
        self.native = self.box = QComboBox()
        self.line = NoteLabel()
        narrow(self.box)
        for name in get_args(Device):
            self.box.addItem(f"{name} – {DEVICES[name]}", name)
        self.line.setVisible(False)
        self.box.currentIndexChanged.connect(lambda _: self._show_reason())
        self._unusable: dict[str, str] = {}
        _OnReach(self.box, look)

    @property
    def value(self) -> str:
        return str(self.box.currentData())

    @value.setter
    def value(self, name: str) -> None:
        self.box.setCurrentIndex(self.box.findData(name))

    def describe(self, devices: Mapping[str, str | None]) -> None:
        """Show the description of each device, or the reason why it cannot be used."""
        self._unusable = {name: reason for name, reason in devices.items() if reason is not None}
        best = next(name for name, reason in devices.items() if reason is None)
        for place, name in enumerate(get_args(Device)):
            said = f"not usable: {self._unusable[name]}" if name in self._unusable else DEVICES[name]
            said = f"{said}: {best}" if name == "auto" else said
            self.box.setItemText(place, f"{name} – {said}")
            self.box.setItemData(place, tooltip(said), Qt.ItemDataRole.ToolTipRole)
        self._show_reason()

    def _show_reason(self) -> None:
        reason = self._unusable.get(self.value, "")
        self.line.setText(f"Not usable: {reason}" if reason else "")
        self.line.setVisible(bool(reason))


class _OnReach(QObject):
    """Calls a function once, at the first click or key press in a widget."""

    def __init__(self, widget: QWidget, call: Callable[[], None]) -> None:
        super().__init__(widget)
        self._call: Callable[[], None] | None = call
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        reached = event is not None and event.type() in (QEvent.Type.MouseButtonPress, QEvent.Type.KeyPress)
        if reached and self._call is not None:
            call, self._call = self._call, None
            call()
        return False


class ModelBox(QComboBox):
    """A list of named choices, models of the user's library, and files; reloads the library when opened.

    Parameters
    ----------
    first
        Value -> text, for the choices that are always available.
    families
        Families whose models in the library are listed; all by default.
    """

    def __init__(self, first: Mapping[str, str], families: Sequence[str] = ()) -> None:
        super().__init__()
        self._first, self._files, self._families = dict(first), dict[str, str](), tuple(families)
        self.refresh()

    def offer(self, first: Mapping[str, str], families: Sequence[str]) -> None:
        """Replace the choices; select the first if the current one is gone. Files of other families are removed."""
        self._first, self._families = dict(first), tuple(families)
        fitting = ("", *families)
        self._files = {path: name for path, name in self._files.items() if library.family_of(Path(path)) in fitting}
        self.refresh()

    def add_file(self, path: str) -> None:
        """Add a file to the models of the library."""
        self._files[path] = Path(path).name
        self.refresh()

    def refresh(self) -> None:
        """Reload the list and keep the selection."""
        chosen = self.currentData()
        self.blockSignals(True)
        self.clear()
        for value, name in self._choices().items():
            self.addItem(name, value)
            self.setItemData(self.count() - 1, tooltip(value), Qt.ItemDataRole.ToolTipRole)
        self.setCurrentIndex(max(0, self.findData(chosen)))
        self.blockSignals(False)
        if self.currentData() != chosen:
            self.currentIndexChanged.emit(self.currentIndex())

    def _choices(self) -> dict[str, str]:
        models = {str(path): name for name, path in library.in_library().items() if self._is_of_family(path)}
        files = {path: name for path, name in self._files.items() if path not in models}
        return {**self._first, **models, **files}

    def _is_of_family(self, path: Path) -> bool:
        return not self._families or library.family_of(path) in self._families

    def showPopup(self) -> None:
        self.refresh()
        super().showPopup()


def refresh_models() -> None:
    """Reload every list of models from the library."""
    for widget in QApplication.allWidgets():
        if isinstance(widget, ModelBox):
            widget.refresh()


class WeightsEditor:
    """The bundled weights, a model of the user's library, or a file chosen by the user.

    Parameters
    ----------
    first
        Value -> text, for the choices that are always available.
    families
        Families whose models in the library are listed; all by default.
    """

    def __init__(self, first: Mapping[str, str] = BUNDLED, families: Sequence[str] = ()) -> None:
        self.native = QWidget()
        self.box, self.browse = ModelBox(first, families), QPushButton("Browse…")
        narrow(self.box)
        self.browse.clicked.connect(lambda _: self._choose())
        _beside(self.native, self.box, self.browse)
        guard_wheel(self.box)

    @property
    def value(self) -> str:
        return str(self.box.currentData())

    @value.setter
    def value(self, weights: str) -> None:
        if self.box.findData(weights) < 0:
            self.box.add_file(weights)
        self.box.setCurrentIndex(self.box.findData(weights))

    def _choose(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(self.native, "Choose weights", filter=WEIGHTS_FILES)
        self.value = chosen or self.value


def _beside(parent: QWidget, wide: QWidget, *others: QWidget) -> None:
    layout = QHBoxLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(wide, stretch=1)
    for other in others:
        layout.addWidget(other)


def narrow(box: QComboBox) -> None:
    """Keep long entries from widening the panel."""
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(8)


class PathEditor:
    """A file or folder, typed or chosen.

    Parameters
    ----------
    what
        Title of the dialog.
    files
        Filter of the dialog, such as "Tables (*.csv)"; empty for a folder.
    """

    def __init__(self, what: str, files: str = "") -> None:
        self._what, self._files = what, files
        self.native, self.line, self.browse = QWidget(), QLineEdit(), QPushButton("Browse…")
        self.browse.clicked.connect(lambda _: self._choose())
        _beside(self.native, self.line, self.browse)

    @property
    def value(self) -> str:
        return str(self.line.text().strip())

    @value.setter
    def value(self, path: str) -> None:
        self.line.setText(path)
        self.line.setToolTip(tooltip(path))

    def _choose(self) -> None:
        chosen = (
            QFileDialog.getOpenFileName(self.native, self._what, self.value, filter=self._files)[0]
            if self._files
            else QFileDialog.getExistingDirectory(self.native, self._what, self.value)
        )
        self.value = chosen or self.value


class FolderList:
    """Folders, one per line."""

    def __init__(self) -> None:
        self.native, self.list = QWidget(), QListWidget()
        self.add_button, self.remove_button = QPushButton("Add folder…"), QPushButton("Remove")
        self.list.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.list.setTextElideMode(Qt.TextElideMode.ElideLeft)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setFixedHeight(3 * 22)
        self.add_button.clicked.connect(lambda _: self._choose())
        self.remove_button.clicked.connect(lambda _: self._remove())
        buttons = QWidget()
        _beside(buttons, self.add_button, self.remove_button)
        layout = QVBoxLayout(self.native)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.list)
        layout.addWidget(buttons)

    @property
    def value(self) -> tuple[str, ...]:
        items = (self.list.item(row) for row in range(self.list.count()))
        return tuple(item.text() for item in items if item is not None)

    @value.setter
    def value(self, folders: Sequence[str]) -> None:
        self.list.clear()
        for folder in dict.fromkeys(folders):
            QListWidgetItem(folder, self.list).setToolTip(tooltip(folder))

    def add(self, folder: str) -> None:
        """Add a folder, unless it is already listed."""
        self.value = (*self.value, folder)

    def _choose(self) -> None:
        if chosen := QFileDialog.getExistingDirectory(self.native, "Choose a folder of annotated images"):
            self.add(chosen)

    def _remove(self) -> None:
        chosen = {item.text() for item in self.list.selectedItems()}
        self.value = [folder for folder in self.value if folder not in chosen]


class NumberEditor:
    """A number as typed, such as 3e-5, without rounding or fixed steps."""

    def __init__(self) -> None:
        self.native = QLineEdit()

    @property
    def value(self) -> str:
        return str(self.native.text().strip().replace(",", "."))

    @value.setter
    def value(self, number: float) -> None:
        self.native.setText(f"{number:g}" if float(f"{number:g}") == number else repr(number))


def number_editors(model: type[BaseModel]) -> dict[str, NumberEditor]:
    """An editor for every real-valued field of a settings class."""
    return {name: NumberEditor() for name, field in model.model_fields.items() if field.annotation is float}


class TableEditor:
    """Names and numbers: ``dice 1, edge 0.5``."""

    def __init__(self) -> None:
        self.native = QLineEdit()
        self.native.setPlaceholderText("name number, name number")

    @property
    def value(self) -> dict[str, str]:
        entries = (entry.strip().rpartition(" ") for entry in self.native.text().split(",") if entry.strip())
        return {name.strip(" :="): number for name, _, number in entries}

    @value.setter
    def value(self, numbers: Mapping[str, float]) -> None:
        self.native.setText(", ".join(f"{name} {number:g}" for name, number in numbers.items()))


class NamesEditor:
    """Names separated by commas."""

    def __init__(self) -> None:
        self.native = QLineEdit()
        self.native.setPlaceholderText("name, name")

    @property
    def value(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.native.text().split(",") if name.strip())

    @value.setter
    def value(self, names: Sequence[str]) -> None:
        self.native.setText(", ".join(names))


class LayerChoice:
    """A layer of one kind; it stays selected when renamed, and result images are not offered.

    Parameters
    ----------
    viewer
        The viewer whose layers are offered.
    kind
        Image or Labels.
    """

    def __init__(self, viewer: Viewer, kind: type[Layer] = Image) -> None:
        self._viewer, self._kind = viewer, kind
        self.widget = ComboBox(choices=lambda _: self._layers(), nullable=False)
        self.native: QComboBox = self.widget.native
        narrow(self.native)
        guard_wheel(self.native)

    @property
    def value(self) -> Any:
        return self.widget.value

    @value.setter
    def value(self, layer: Layer) -> None:
        self.widget.value = layer

    def refresh(self) -> None:
        """Follow the layer list; magicgui finds a choice by name and would lose a renamed one."""
        kept = self.widget.value
        self.widget.reset_choices()
        if any(layer is kept for _, layer in self._layers()):
            self.widget.value = kept

    def _layers(self) -> list[tuple[str, Layer]]:
        found = [layer for layer in self._viewer.layers if isinstance(layer, self._kind)]
        return [(layer.name, layer) for layer in found if self._kind is not Image or RESULT not in layer.metadata]
