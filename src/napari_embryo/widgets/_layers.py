"""Conversion between layers and images, without a window."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dask.array
import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap

from napari_embryo import measure, render
from napari_embryo.families import BLASTOCYST_CLASSES, FRAGMENT_CLASSES
from napari_embryo.image import AXES, EmbryoImage
from napari_embryo.io import LayerData, from_napari, to_gray
from napari_embryo.io.cells import RESULT, ROWS
from napari_embryo.io.layers import NAMESPACE
from napari_embryo.io.lazy import LazyPlanes
from napari_embryo.notes import Failure
from napari_embryo.results import AttentionMap, Index

Gray = npt.NDArray[np.float32]

PLACED = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
"""Properties a result layer takes over from its source, so that both are aligned."""


@dataclass(frozen=True, eq=False)
class Source:
    """An image layer as it was when Run was pressed; later renaming, moving or deleting has no effect."""

    image: EmbryoImage
    layer: Mapping[str, str]
    placed: Mapping[str, Any]


def source_of(layer: Image) -> Source:
    """The image in a layer, without reading it yet.

    Raises
    ------
    ValueError
        If it cannot be an image of an embryo; the message says what is needed.
    """
    placed = {key: getattr(layer, key) for key in PLACED}
    pixels = layer.data[0] if layer.multiscale else layer.data
    if np.dtype(pixels.dtype).kind not in "biuf":
        raise ValueError(f"{layer.name}: the pixels have type {pixels.dtype}, but gray values or RGB are needed")
    image = from_napari(_gray(pixels) if layer.rgb else pixels, _attributes(layer))
    return Source(image, {"name": layer.name, "unique_id": str(layer.unique_id)}, placed)


def _attributes(layer: Layer) -> dict[str, Any]:
    return {**{key: getattr(layer, key) for key in PLACED}, "name": layer.name, "metadata": layer.metadata}


def _gray(pixels: Any) -> Any:
    """RGB(A) -> gray; for a stack lazily, one plane at a time."""
    if isinstance(pixels, np.ndarray) and pixels.ndim == 3:
        return to_gray(pixels)
    chunks = (*(1 for _ in pixels.shape[:-3]), *pixels.shape[-3:])
    lazy = pixels.rechunk(chunks) if isinstance(pixels, dask.array.Array) else dask.array.from_array(pixels, chunks)
    return lazy.map_blocks(to_gray, dtype=pixels.dtype, drop_axis=pixels.ndim - 1)


def index_at(layer: Layer, point: Sequence[float], image: EmbryoImage) -> Index:
    """Index of the plane shown when the sliders are at ``point``."""
    leading = image.shape[:-2]
    where = np.rint(layer.world_to_data(point)).astype(int)[: len(leading)]
    return tuple(int(np.clip(place, 0, size - 1)) for place, size in zip(where, leading, strict=True))


def described(image: EmbryoImage) -> str:
    """A line such as "12 frames, 7 focal planes, 500 x 400 pixels of 0.5 µm"."""
    words = {"T": "frames", "F": "focal planes"}
    counts = [f"{image.sizes[axis]} {words[axis]}" for axis in image.axes[:-2]]
    sides = " x ".join(f"{side:.3g}" for side in dict.fromkeys(image.pixel_size_um or ()))
    unit = f"pixels of {sides} µm" if sides else "pixels of unknown size"
    return ", ".join([*counts, f"{image.shape[-1]} x {image.shape[-2]} {unit}"])


@dataclass(eq=False)
class LabelStack:
    """Labels of every plane of an image, filled in one by one; what the user painted meanwhile is kept."""

    shape: tuple[int, ...]
    # Zero pages take no memory until they are written.
    data: npt.NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        self.data = np.zeros(self.shape, np.uint8)

    def put(self, index: Index, labels: npt.NDArray[np.uint8]) -> None:
        frame = self.data[index]
        np.copyto(frame, labels, where=frame == 0)


@dataclass(eq=False)
class MapStack:
    """The maps of one module over an image, each kept on its small grid until it is shown."""

    shape: tuple[int, ...]
    maps: dict[Index, AttentionMap] = field(default_factory=dict)

    def put(self, index: Index, found: AttentionMap) -> None:
        self.maps[index] = found

    def data(self) -> Any:
        """An array for one plane, or a lazy one for many; zeros where nothing has been computed yet."""
        if len(self.shape) == 2:
            return self._plane(())
        return LazyPlanes(self._plane, self.shape[:-2], self.shape[-2:], np.dtype(np.float32)).as_dask()

    def _plane(self, index: Index) -> Gray:
        found = self.maps.get(index)
        return np.zeros(self.shape[-2:], np.float32) if found is None else found.on_image()


def labels_layer(
    source: Source, labels: LabelStack, classes: Sequence[str], about: Mapping[str, Any], what: str
) -> LayerData:
    """A Labels layer for the brush: fixed colors, the class under the mouse, and provenance in the metadata."""
    metadata = {**origin(source, about), RESULT: what, "classes": tuple(classes), ROWS: [], "failures": []}
    keywords = {
        **source.placed,
        "name": f"{source.image.name} {what}",
        "colormap": colormap(classes),
        "features": render.label_names(classes),
        "opacity": 0.5,
        "metadata": metadata,
    }
    return labels.data, keywords, "labels"


def map_layer(
    source: Source, stack: MapStack, shown: AttentionMap, about: Mapping[str, Any], visible: bool
) -> LayerData:
    """An Image layer of one attention module in the fixed range of the module."""
    keywords = {
        **source.placed,
        "name": f"{source.image.name} {shown.name}",
        "colormap": "inferno",
        "blending": "additive",
        "opacity": 0.6,
        "contrast_limits": shown.window,
        "visible": visible,
        "rgb": False,
        # A frame shown before it was computed must not stay in dask's cache as zeros.
        "cache": False,
        "metadata": {**origin(source, about), RESULT: "attention", "map": shown.name, "meaning": shown.meaning},
    }
    return stack.data(), keywords, "image"


def origin(source: Source, about: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance in the metadata of a result layer."""
    image = source.image
    values = {key: getattr(image, key) for key in ("axes", "pixel_size_um", "hours", "focus_um")}
    return {**about, "source_layer": dict(source.layer), NAMESPACE: values}


def colormap(classes: Sequence[str]) -> DirectLabelColormap:
    """The fixed colors of the classes; other labels get a separate color."""
    return DirectLabelColormap(color_dict=render.label_colors(classes))


# --- measurements ---------------------------------------------------------------------------------------------------


def is_measurable(layer: Labels) -> bool:
    """Whether the layer is marked as parts of an embryo to measure; the ground truth of samples is not."""
    classes = () if layer.metadata.get("truth") else tuple(layer.metadata.get("classes", ()))
    known = {*BLASTOCYST_CLASSES, *FRAGMENT_CLASSES}
    return bool(classes) and known.issuperset(classes) and not layer.multiscale and layer.ndim <= len(AXES[-1])


def embryo_of_labels(labels: Labels) -> EmbryoImage:
    """The labels as an image with the axes, pixel size, hours and name of the image they belong to."""
    embryo = from_napari(labels.data, _attributes(labels))
    return replace(embryo, name=str(labels.metadata.get("source_layer", {}).get("name", labels.name)))


def rows_of(labels: Labels, index: Index) -> list[dict[str, Any]]:
    """The rows of one plane."""
    return [row for row in labels.metadata.get(ROWS, ()) if _row_index(row) == index]


def put_rows(labels: Labels, index: Index, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace the rows of one plane."""
    others = [row for row in labels.metadata[ROWS] if _row_index(row) != index]
    labels.metadata[ROWS] = sorted([*others, *map(dict, rows)], key=lambda row: (_row_index(row), row["label"]))


def _row_index(row: Mapping[str, Any]) -> Index:
    return tuple(int(row[axis]) for axis in ("frame", "plane") if row.get(axis) is not None)


def measure_again(labels: Labels, index: Index) -> None:
    """Store the current measurements of one plane in the metadata; a regressed ratio is kept."""
    embryo, before = embryo_of_labels(labels), rows_of(labels, index)
    regressed = next((row["ratio_regressed"] for row in before if row.get("ratio_regressed") is not None), None)
    classes, drawn = labels.metadata["classes"], np.asarray(labels.data[index])
    rows = measure.measure_labels(drawn, classes, embryo.pixel_size_um, regressed)
    put_rows(labels, index, [{**measure.where(embryo, index), **row} for row in rows])


def missed_text(missed: Iterable[Failure], total: int) -> str:
    """The first few failures and their reasons."""
    reasons = [miss.reason for miss in missed]
    more = f"\n… and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return f"{len(reasons)} of {total} could not be processed:\n" + "\n".join(reasons[:3]) + more
