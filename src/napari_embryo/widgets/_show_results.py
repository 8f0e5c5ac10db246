"""Open napari on a folder of results: ``python -m napari_embryo.widgets._show_results FOLDER``."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import napari
import numpy as np

from napari_embryo import io
from napari_embryo.image import EmbryoImage
from napari_embryo.io.cells import CELL
from napari_embryo.io.layers import written_layer
from napari_embryo.widgets._cells import colormap as cell_colors
from napari_embryo.widgets._cells_layers import OUTLINE
from napari_embryo.widgets._layers import colormap

SHARED = ("scale", "translate", "units", "axis_labels")
LABELS_SUFFIX = "_labels.ome.tif"
CELLS_SUFFIX = "_cells.ome.tif"


def show(folder: Path) -> napari.Viewer:
    """A viewer with every embryo of ``folder``: its image, labels and attention maps; the first one is visible.

    Raises
    ------
    FileNotFoundError
        If the folder contains no results.
    """
    found = sorted(path for ending in (LABELS_SUFFIX, CELLS_SUFFIX) for path in folder.glob(f"*{ending}"))
    if not found:
        raise FileNotFoundError(
            f"{folder}: the folder contains no results of napari-embryo ({LABELS_SUFFIX} or {CELLS_SUFFIX}); segment "
            "some images first"
        )
    viewer = napari.Viewer(title=f"napari-embryo: {folder.name}")
    for number, path in enumerate(found):
        add = _add_cells if path.name.endswith(CELLS_SUFFIX) else _add_embryo
        add(viewer, path, visible=number == 0)
    viewer.reset_view()
    return viewer


def _add_embryo(viewer: napari.Viewer, labels_path: Path, visible: bool) -> None:
    layer = written_layer(labels_path)
    if layer is None:
        raise ValueError(f"{labels_path}: not written by napari-embryo")
    labels, about, _ = layer
    placed = {key: about[key] for key in SHARED}
    name = labels_path.name.removesuffix(LABELS_SUFFIX)
    _add_source(viewer, _lying(labels_path, about), name, labels.shape, placed, visible)
    classes = about["metadata"].get("classes", ())
    about |= {"name": f"{name} labels", "colormap": colormap(classes), "opacity": 0.5, "visible": visible}
    _add_attention(viewer, labels_path.with_name(f"{name}_attention.ome.tif"), name, placed, visible)
    viewer.add_labels(labels, **about)


def _add_cells(viewer: napari.Viewer, path: Path, visible: bool) -> None:
    """A layer per cell, or per track of a time-lapse, since silhouettes overlap."""
    layers, name = io.written_layers(path), path.name.removesuffix(CELLS_SUFFIX)
    if not layers:
        raise ValueError(f"{path}: not written by napari-embryo")
    labels, about, _ = layers[0]
    placed = {key: about[key] for key in SHARED}
    _add_source(viewer, _lying(path, about), name, labels.shape, placed, visible)
    _add_attention(viewer, path.with_name(f"{name}_attention.ome.tif"), name, placed, visible)
    for labels, about, _ in layers:
        shown = {"name": f"{name} {about['name']}", "colormap": cell_colors(len(layers)), "opacity": 0.9}
        layer = viewer.add_labels(labels, **{**about, **shown, "visible": visible})
        layer.contour, layer.selected_label = OUTLINE, about["metadata"][CELL]


def _lying(result: Path, about: Mapping[str, Any]) -> Path:
    """The image's own file or folder, which a result knows by name only: beside the results or around them."""
    name = Path(str(about["metadata"].get("source", ""))).name
    if not name:
        return Path()
    return next((path for folder in result.parents[:3] if (path := folder / name).exists()), Path(name))


def _add_source(
    viewer: napari.Viewer, source: Path, name: str, shape: tuple[int, ...], placed: dict[str, Any], visible: bool
) -> None:
    """The image itself, if it still exists; for focal planes the sharpest, the default of `segment`."""
    image = _source_image(source, name, shape)
    if image is not None:
        viewer.add_image(image.data, name=name, visible=visible, rgb=False, **placed)


def _source_image(source: Path, name: str, shape: tuple[int, ...]) -> EmbryoImage | None:
    """The image that the labels belong to; None if it is gone or has changed."""
    if not source.name:
        return None
    try:
        planned = io.plan_path(source).images
        found = planned[0] if len(planned) == 1 else next((image for image in planned if image.name == name), None)
        if found is None:
            return None
        image = io.open_image(found.edited(io.OpenChoices(focus="best")))
    except (OSError, ValueError):
        return None
    return image if image.shape == shape else None


def _add_attention(viewer: napari.Viewer, path: Path, name: str, placed: dict[str, Any], visible: bool) -> None:
    """One layer per map in the range of its module; only the first map of a visible embryo is shown."""
    if not path.is_file():
        return
    ome = io.read_ome_tiff(path)
    maps = np.moveaxis(ome.data, ome.axes.index("C"), 0)
    for number, (map_name, values) in enumerate(zip(ome.names, maps, strict=True)):
        viewer.add_image(
            values,
            name=f"{name} {map_name}",
            colormap="inferno",
            blending="additive",
            opacity=0.6,
            contrast_limits=ome.metadata["windows"][map_name],
            visible=visible and number == 0,
            metadata={**ome.metadata, "map": map_name, "meaning": ome.metadata["meanings"][map_name]},
            **placed,
        )


def main(arguments: Sequence[str]) -> None:
    """Show the named folder; errors are printed in a line."""
    if len(arguments) != 1:
        sys.exit(
            "usage: python -m napari_embryo.widgets._show_results FOLDER (the --out of napari-embryo segment or demo)"
        )
    try:
        show(Path(arguments[0]))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    napari.run()


if __name__ == "__main__":
    main(sys.argv[1:])
