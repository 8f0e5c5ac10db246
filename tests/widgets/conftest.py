"""Viewers without a window, a network that is quick enough for a test, and embryos that are small enough."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from napari.components import ViewerModel
from napari.settings import get_settings
from qtpy.QtWidgets import QWidget

from napari_embryo.settings import SegmentSettings
from napari_embryo.widgets._torch_import import prepare_for_torch


@pytest.fixture(scope="session", autouse=True)
def _torch_before_windows() -> None:
    """A test that opens a window may run before one that imports torch in its own way; see `prepare_for_torch`."""
    prepare_for_torch()
    import torchvision  # noqa: F401


class Docks:
    """What the widgets need of a window: it tells them when the list of layers changes, as napari's does."""

    def __init__(self, viewer: ViewerModel, qtbot: Any) -> None:
        self._viewer, self._qtbot = viewer, qtbot
        self.dock_widgets: dict[str, QWidget] = {}

    def add_dock_widget(self, widget: QWidget, name: str = "") -> None:
        self._qtbot.addWidget(widget)
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered, events.renamed):
            event.connect(widget.reset_choices)
        self.dock_widgets[name] = widget


class Windowless(ViewerModel):
    """All of a viewer but its window, which takes a second to open and to close."""

    _docks: Any = None

    def __init__(self, qtbot: Any) -> None:
        super().__init__()
        self._docks = Docks(self, qtbot)

    @property
    def window(self) -> Docks:
        return self._docks


@pytest.fixture
def make_viewer(qtbot, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes viewers that draw nothing; a test that is marked `window` gets napari's own."""
    if request.node.get_closest_marker("window"):
        return request.getfixturevalue("make_napari_viewer")
    get_settings().reset()
    return lambda show=False: Windowless(qtbot)


@pytest.fixture(scope="session")
def load_once() -> Callable[..., Any]:
    """Reading and checking 100 MB takes seconds; a refused file is read every time."""
    from napari_embryo.models import checkpoint

    return cache(checkpoint.load)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResA-Net with random weights and an input of 64 x 64 pixels."""
    import torch

    from napari_embryo import models
    from napari_embryo.families import ResANetSettings
    from napari_embryo.models import checkpoint
    from napari_embryo.models.checkpoint import CheckpointInfo
    from napari_embryo.settings import Preprocessing

    torch.manual_seed(0)
    settings = ResANetSettings()
    info = CheckpointInfo(model=settings, preprocessing=Preprocessing(height=64, width=64))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    model = models.build(settings)
    torch.nn.init.constant_(model.head.bias, 1.0)  # so that something is found
    checkpoint.save(path, model, info)
    return path


@pytest.fixture(scope="session")
def tiny_settings(tiny_weights: Path) -> SegmentSettings:
    """One picture at a time, so that a run can be canceled after each."""
    return SegmentSettings(weights=str(tiny_weights), device="cpu", batch_size=1, maps=("SA3", "LA1"))


@pytest.fixture(scope="session")
def pixels() -> npt.NDArray[np.uint8]:
    """(6, 48, 64): pictures that differ."""
    return np.random.default_rng(0).integers(0, 255, (6, 48, 64), np.uint8)
