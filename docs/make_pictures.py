"""Make the guide's images from the running program and its sample data.

``python docs/make_pictures.py [WEIGHTS]``; without a screen: ``xvfb-run -a -s "-screen 0 1366x768x24" python ...``.
"""

import os
import sys
import tempfile
from pathlib import Path

import napari
import numpy as np
from napari.utils.colormaps import ensure_colormap
from qtpy.QtCore import QEventLoop, QTimer
from qtpy.QtWidgets import QApplication

from napari_embryo import io, pipeline, render, reproduce
from napari_embryo.families import BLASTOCYST_CLASSES as CLASSES
from napari_embryo.image import EmbryoImage
from napari_embryo.predict import Predictor
from napari_embryo.settings import (
    DataSettings,
    Recipe,
    SegmentSettings,
    TrainSettings,
)
from napari_embryo.synthetic import draw_blastocyst
from napari_embryo.widgets.segment import SegmentWidget

DOCS = Path(__file__).parent
WINDOW = 1366, 768
MAPS = ("SA2", "SA2a", "SA3", "SA3a", "SA4", "LA2")
ROW = ("SA2a", "SA2b")
SHOWN = ("SA2", "SA3", "SA4")


def wait(seconds: float) -> None:
    """Process the window's events."""
    loop = QEventLoop()
    QTimer.singleShot(round(seconds * 1000), loop.quit)
    loop.exec()


def segmented_sample(weights: str) -> napari.Viewer:
    """The sample blastocyst, segmented by the widget, with attention maps next to it."""
    viewer = napari.Viewer(title="napari-embryo", show_welcome_screen=False)
    viewer.window.resize(*WINDOW)
    viewer.open_sample("napari-embryo", "blastocyst")
    del viewer.layers["blastocyst truth"]
    _, widget = viewer.window.add_plugin_dock_widget("napari-embryo", "Segment")
    run(widget, SegmentSettings(weights=weights, maps=MAPS))
    show_all(viewer)
    return viewer


def cleavage_sample(family: str) -> napari.Viewer:
    """The sample cleavage-stage embryo: its fragments, their ratio and the attention gate, or a layer per cell."""
    viewer = napari.Viewer(title="napari-embryo", show_welcome_screen=False)
    viewer.window.resize(*WINDOW)
    viewer.open_sample("napari-embryo", "cleavage")
    picture = viewer.layers[0]
    for layer in list(viewer.layers[1:]):
        viewer.layers.remove(layer)
    viewer.layers.selection.active = picture
    _, widget = viewer.window.add_plugin_dock_widget("napari-embryo", "Segment")
    run(widget, SegmentSettings.model_validate({"family": family}))
    viewer.reset_view()
    wait(1)
    return viewer


def trained_sample(folder: Path) -> napari.Viewer:
    """Training the bundled network on drawn blastocysts: its curves and its worst validation images."""
    os.environ["NAPARI_EMBRYO_MODELS"] = str(folder / "models")
    reproduce.draw_embryos(folder / "drawn", 12, (390, 440))
    viewer = napari.Viewer(title="napari-embryo", show_welcome_screen=False)
    viewer.window.resize(*WINDOW)
    _, widget = viewer.window.add_plugin_dock_widget("napari-embryo", "Train")
    widget.form.set_value(
        Recipe(
            name="drawn",
            data=DataSettings(folders=(str(folder / "drawn"),)),
            training=TrainSettings(
                epochs=8, batch_size=4, learning_rate=3e-4, encoder_rate=0.1, frozen_batch_norm=True
            ),
        )
    )
    widget.runs.value = str(folder / "runs")
    widget.run()
    for panel, act in ((widget.panel, None), (widget.worst_panel, widget.show_worst)):
        if act:
            act()
        while panel.running:
            wait(0.1)
    widget.tabs.setCurrentIndex(2)
    viewer.reset_view()
    wait(1)
    return viewer


def run(widget: SegmentWidget, settings: SegmentSettings) -> None:
    widget.form.set_value(settings)
    widget.run()
    while widget.panel.running:
        wait(0.1)
    if not widget.panel.status.text().startswith("Done"):
        raise SystemExit(widget.panel.status.text())


def show_all(viewer: napari.Viewer) -> None:
    """Labels on the image and three maps next to it; the hidden layer above each map fills its place in the grid."""
    viewer.layers.move(viewer.layers.index("blastocyst blastocyst"), 1)
    for name in SHOWN:
        layer = viewer.layers[f"blastocyst {name}"]
        layer.visible, layer.opacity = True, 1
    grid = viewer.canvas.grid
    grid.stride, grid.shape, grid.enabled = 2, (2, 2), True
    viewer.canvas.overlays.scale_bar.visible = True
    viewer.reset_view()
    wait(1)


def overlay(weights: str) -> None:
    """Two drawn embryos, what was found in them, and the attention of the network."""
    predictor = pipeline.load_predictor(SegmentSettings(weights=weights, maps=ROW))
    rows = [row_of(predictor, draw_blastocyst(2, style=style).image) for style in ("microscope", "incubator")]
    io.write_png(DOCS / "overlay.png", render.tiled([picture for row in rows for picture in row], 4))


def row_of(predictor: Predictor, image: np.ndarray) -> list[np.ndarray]:
    (progress,) = pipeline.analyze(EmbryoImage(image, "YX", "sample"), predictor)
    found = progress.item
    maps = [colors((m.on_image() - m.window[0]) / (m.window[1] - m.window[0])) for m in found.maps]
    drawn = render.with_legend(render.overlay(image, found.finding.masks, CLASSES), CLASSES, "found")
    plain = render.with_legend(render.gray_to_rgb(image), (), "a drawn embryo")
    titles = [f"attention gate {name}" for name in ROW]
    return [plain, drawn, *(render.with_legend(m, (), title) for m, title in zip(maps, titles, strict=True))]


def colors(unit: np.ndarray) -> np.ndarray:
    """(H, W) in 0-1 -> (H, W, 3) as napari shows it."""
    rgb = ensure_colormap("inferno").map(unit.ravel())[:, :3].reshape(*unit.shape, 3)
    return (rgb * 255).astype(np.uint8)


def main(weights: str = "bundled") -> None:
    overlay(weights)
    shoot(segmented_sample(weights), "segment.png")
    shoot(cleavage_sample("regdeeplab"), "fragments.png")
    shoot(cleavage_sample("vqamodal"), "cells.png")
    with tempfile.TemporaryDirectory() as folder:
        shoot(trained_sample(Path(folder)), "train.png")


def shoot(viewer: napari.Viewer, name: str) -> None:
    viewer.screenshot(str(DOCS / name), canvas_only=False, flash=False)
    viewer.close()
    QApplication.processEvents()


if __name__ == "__main__":
    main(*sys.argv[1:])
