"""Fields that need more than a setting's annotation says: devices, weights, image layers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args

from magicgui.widgets import ComboBox
from napari.layers import Image
from napari.viewer import Viewer
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QPushButton, QWidget

from napari_embryo.settings import Device
from napari_embryo.widgets._form import Note, guard_wheel, tooltip
from napari_embryo.widgets._layers import RESULT

DEVICES: dict[Device, str] = {
    "auto": "the fastest there is",
    "cuda": "NVIDIA graphics card",
    "mps": "Apple graphics processor",
    "cpu": "processor: slower, always there",
}


class DeviceEditor:
    """Devices and what each is here.

    Finding out imports torch, which takes seconds: it is done when the user first reaches for the list.

    Parameters
    ----------
    look
        Starts finding out; called once.

    Attributes
    ----------
    line
        Says why the chosen device cannot be used; a form puts it below.
    """

    def __init__(self, look: Callable[[], None]) -> None:
        self.native = self.box = QComboBox()
        self.line = Note()
        _narrow(self.box)
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
        """Say what each device is; a reason where it cannot be used."""
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
    """Calls once, when a widget is clicked or a key pressed in it."""

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


class WeightsEditor:
    """The bundled weights, or a file that the user chooses."""

    def __init__(self) -> None:
        self.native = QWidget()
        self.box, self.browse = QComboBox(), QPushButton("Browse…")
        _narrow(self.box)
        self.browse.clicked.connect(lambda _: self._choose())
        layout = QHBoxLayout(self.native)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.box, stretch=1)
        layout.addWidget(self.browse)
        self.value = "bundled"
        guard_wheel(self.box)

    @property
    def value(self) -> str:
        return str(self.box.currentData())

    @value.setter
    def value(self, weights: str) -> None:
        place = self.box.findData(weights)
        if place < 0:
            place = self.box.count()
            self.box.addItem(Path(weights).name, weights)
            self.box.setItemData(place, tooltip(weights), Qt.ItemDataRole.ToolTipRole)
        self.box.setCurrentIndex(place)

    def _choose(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(
            self.native, "Choose weights", filter="Weights of napari-embryo (*.safetensors)"
        )
        self.value = chosen or self.value


def _narrow(box: QComboBox) -> None:
    """Long entries do not widen the panel."""
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(8)


class LayerChoice:
    """An image layer; it stays chosen when it is renamed, and results are not offered.

    Parameters
    ----------
    viewer
        Whose layers.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self.widget = ComboBox(choices=lambda _: self._images(), nullable=False)
        self.native: QComboBox = self.widget.native
        _narrow(self.native)
        guard_wheel(self.native)

    @property
    def value(self) -> Image | None:
        return self.widget.value

    @value.setter
    def value(self, layer: Image) -> None:
        self.widget.value = layer

    def refresh(self) -> None:
        """Follow the layer list; magicgui finds a choice by its name, and would lose a renamed one."""
        kept = self.widget.value
        self.widget.reset_choices()
        if any(layer is kept for _, layer in self._images()):
            self.widget.value = kept

    def _images(self) -> list[tuple[str, Image]]:
        images = [layer for layer in self._viewer.layers if isinstance(layer, Image)]
        return [(layer.name, layer) for layer in images if RESULT not in layer.metadata]
