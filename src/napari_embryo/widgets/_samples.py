"""Turn layers open in napari into annotated images for training."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs
from napari.layers import Image, Labels, Layer
from napari.utils.notifications import show_error
from napari.viewer import Viewer
from qtpy.QtWidgets import QComboBox, QPushButton, QVBoxLayout, QWidget

from napari_embryo.data.labels import ALWAYS_THERE, are_cells, canonical
from napari_embryo.data.labels import CELL as CELL_CLASS
from napari_embryo.families import BLASTOCYST_CLASSES, FRAGMENT_CLASSES
from napari_embryo.image import EmbryoImage, Progress
from napari_embryo.io.cells import CELL, RUN
from napari_embryo.notes import counted
from napari_embryo.results import Index
from napari_embryo.widgets._cells import cells_of, is_cell, others_said
from napari_embryo.widgets._editors import LayerChoice, PathEditor
from napari_embryo.widgets._form import NoteLabel, form_layout
from napari_embryo.widgets._layers import index_at, source_of
from napari_embryo.widgets._worker import Job, LeaveAll, Steps, tell

PAINTED = {
    "parts of a blastocyst (ICM 1, TE 2, ZP 3)": BLASTOCYST_CLASSES,
    "fragments (1) and the embryo (2)": FRAGMENT_CLASSES,
    "cells (a number each)": (CELL_CLASS,),
}
"""What labels painted from scratch may be."""


@dataclass(frozen=True, eq=False)
class Pair:
    """One image plane and its annotation, as they were when requested, with one mask per cell."""

    name: str
    image: EmbryoImage
    index: Index
    labels: npt.NDArray[Any]
    classes: tuple[str, ...]
    about: dict[str, Any]
    note: str = ""


def user_folder(name: str) -> Path:
    """Default folder among the user's data."""
    return Path(platformdirs.user_data_path("napari-embryo", appauthor=False)) / name


def pair_of(
    image: Image,
    labels: Labels,
    point: tuple[float, ...],
    layers: Iterable[Layer] = (),
    classes: Sequence[str] = BLASTOCYST_CLASSES,
) -> Pair:
    """The current frame with its labels; one cell of a run brings all cells of that run.

    Parameters
    ----------
    image, labels
        The selected layers.
    point
        Position of the sliders.
    layers
        All layers, including those of other cells: a single cell would imply that there are no others.
    classes
        What labels are that were painted from scratch; those of a result know it themselves.

    Raises
    ------
    ValueError
        If image and labels do not fit; the message gives their sizes.
    """
    embryo = source_of(image).image
    index = index_at(image, point, embryo)
    drawn, note, chosen = _drawn(labels, embryo, index, image.name), "", [labels]
    if is_cell(labels):
        chosen = cells_of(layers, labels.metadata[RUN]) or chosen
        planes = [_drawn(cell, embryo, index, image.name) for cell in chosen]
        note = others_said(chosen, planes)
        drawn = np.stack([plane == cell.metadata[CELL] for cell, plane in zip(chosen, planes, strict=True)])
    where = "_".join(f"{axis}{place:04d}" for axis, place in zip(embryo.axes, index, strict=False))
    name = f"{embryo.name}_{where}" if where else embryo.name
    kept = {key: labels.metadata[key] for key in ("family", "weights", "weights_sha256") if key in labels.metadata}
    about = {
        **kept,
        "image": image.name,
        "labels": ", ".join(layer.name for layer in chosen),
        "frame": list(index),
        "source": str(embryo.metadata.get("source", "")),
        "pixel_size_um": embryo.pixel_size_um,
    }
    return Pair(name, embryo, index, drawn, own_classes(labels) or tuple(classes), about, note)


def own_classes(labels: Labels | None) -> tuple[str, ...]:
    """What the labels of a result are; empty for labels that were painted from scratch."""
    return () if labels is None else tuple(labels.metadata.get("classes", ()))


def _drawn(labels: Labels, embryo: EmbryoImage, index: Index, name: str) -> npt.NDArray[Any]:
    pixels = labels.data[0] if labels.multiscale else labels.data
    if tuple(pixels.shape) == embryo.shape:
        return np.array(pixels[index])
    if tuple(pixels.shape) == embryo.shape[-2:]:
        return np.array(pixels)
    raise ValueError(
        f"{labels.name}: the labels have {_size(pixels.shape)}, but the image {name} has {_size(embryo.shape)}; "
        "choose the labels that were drawn on it"
    )


def _classes_said(pair: Pair) -> str:
    """Describe what is painted, and how classes that are not painted are taken."""
    if pair.labels.ndim > 2:
        return f"{counted(int(pair.labels.any(axis=(1, 2)).sum()), 'cell')} drawn"
    if are_cells(pair.classes):
        return f"{counted(len(np.unique(pair.labels[pair.labels > 0])), 'cell')} drawn"
    painted = [name for label, name in enumerate(pair.classes, start=1) if (pair.labels == label).any()]
    lacking = [name for name in pair.classes if name not in painted]
    unknown = [name for name in lacking if canonical(name) in ALWAYS_THERE]
    counts = (("unknown", unknown), ("absent", [name for name in lacking if name not in unknown]))
    without = [
        f"; nothing is painted for {', '.join(names)}, which counts as {what}" for what, names in counts if names
    ]
    return f"{', '.join(painted) or 'nothing'} drawn{''.join(without)}"


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def saving(pair: Pair, folder: Path) -> Steps[Path]:
    """Write a pair to the folder of samples and return the file."""
    yield Progress(0, 1, f"Saving {pair.name} …")
    from napari_embryo import data

    pixels = np.asarray(pair.image.data[pair.index])
    about = {**pair.about, "embryo": data.embryo_of(pair.image.name)}
    return data.save_sample(folder, pair.name, pixels, pair.labels, pair.classes, about)


class SampleMaker(QWidget):
    """Choose labels and their image, and press Add sample.

    Parameters
    ----------
    viewer
        The viewer whose layers are offered.
    on_saved
        Called with the folder in which a sample was saved.
    """

    def __init__(self, viewer: Viewer, on_saved: Callable[[str], None]) -> None:
        super().__init__()
        self._viewer, self._on_saved = viewer, on_saved
        self._jobs: list[Job[Path]] = []
        self.destroyed.connect(LeaveAll(self._jobs))
        self.labels, self.image = LayerChoice(viewer, Labels), LayerChoice(viewer)
        self.painted = QComboBox()
        for said, classes in PAINTED.items():
            self.painted.addItem(said, classes)
        self.folder, self.about = PathEditor("Folder for samples"), NoteLabel()
        self.add_button = QPushButton("Add sample")
        self.folder.value = str(user_folder("samples"))
        self.about.setText("Correct the labels of an image, then add the pair: it is saved and used for training.")
        self._lay_out()
        self.labels.widget.changed.connect(self._follow_labels)
        self.image.widget.changed.connect(self._say_what)
        self.add_button.clicked.connect(lambda _: self.add())
        self.refresh()

    def _lay_out(self) -> None:
        fields = QWidget()
        rows = form_layout(fields)
        for label, widget in (("Labels", self.labels), ("Image", self.image), ("Saved in", self.folder)):
            rows.addRow(label, widget.native)
        rows.insertRow(2, "Painted", self.painted)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (fields, self.add_button, self.about):
            column.addWidget(part)

    def refresh(self) -> None:
        """Follow the layer list."""
        before = self.labels.value
        for choice in (self.labels, self.image):
            choice.refresh()
        if self.labels.value is not before:
            self._follow_labels()
        self._say_what()
        self.add_button.setEnabled(self.labels.value is not None and not self._jobs)

    def choose_painted(self, classes: Sequence[str]) -> None:
        """Take labels that do not say themselves what they are for these classes."""
        place = next((i for i in range(self.painted.count()) if self.painted.itemData(i) == tuple(classes)), 0)
        self.painted.setCurrentIndex(place)

    def _follow_labels(self, _: Any = None) -> None:
        """Select the image from which labels were computed."""
        labels = self.labels.value
        self.painted.setEnabled(not own_classes(labels))
        source = labels.metadata.get("source_layer", {}).get("unique_id") if labels is not None else None
        for layer in self._viewer.layers:
            if isinstance(layer, Image) and str(layer.unique_id) == source:
                self.image.value = layer

    def _say_what(self, _: Any = None) -> None:
        """Say on the button that only the current frame of a stack is saved."""
        image = self.image.value
        stack = image is not None and image.ndim > 2
        self.add_button.setText("Add sample (the current frame)" if stack else "Add sample")

    def add(self) -> None:
        """Save the chosen pair in a worker."""
        labels, image = self.labels.value, self.image.value
        if labels is None or image is None:
            self._refuse("there is no image with labels; open an image and segment or annotate it first")
            return
        try:
            pair = pair_of(image, labels, self._viewer.dims.point, self._viewer.layers, self.painted.currentData())
            folder = self.folder.value
        except ValueError as error:
            self._refuse(str(error))
            return
        self.add_button.setEnabled(False)
        job = Job(
            lambda: saving(pair, Path(folder)),
            on_step=lambda step: self.about.setText(step.message),
            on_result=lambda path: self._saved(path, pair, folder),
            on_error=lambda error: self.about.setText(tell(error, "Adding the sample")),
            on_end=self._end,
        )
        self._jobs.append(job)
        job.start()

    def _refuse(self, reason: str) -> None:
        self.about.setText(reason)
        show_error(f"Adding the sample: {reason}")

    def _saved(self, path: Path, pair: Pair, folder: str) -> None:
        frame = f", the current frame {', '.join(map(str, pair.index))}" if pair.index else ""
        note = f" {pair.note}." if pair.note else ""
        self.about.setText(f"Saved {path.name}{frame}: {_classes_said(pair)}.{note}")
        self._on_saved(folder)

    def _end(self) -> None:
        self._jobs.clear()
        self.refresh()
