"""Sample data for napari: embryos drawn by the program, each with exact ground truth.

The ground truth is in hidden Labels layers named after their image, so that the image is seen first.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_embryo.families import BLASTOCYST_CLASSES, FRAGMENT_CLASSES
from napari_embryo.image import EmbryoImage

if TYPE_CHECKING:
    from napari_embryo.synthetic import SyntheticEmbryo

LayerData = tuple[Any, dict[str, Any], str]

SEED = 2
FRAGMENTED = 0.18
"""Approximate fragmentation ratio of the cleavage-stage embryo: grade B."""
FRAMES = 10
TIMELAPSE_LABELS = (*BLASTOCYST_CLASSES, "fragments", "cell")
"""Label i + 1 of a time-lapse's ground truth is the i-th name; cells are numbered up from the last one."""


def blastocyst() -> list[LayerData]:
    """A blastocyst with its inner cell mass, trophectoderm and zona pellucida as labels 1, 2 and 3."""
    from napari_embryo.synthetic import draw_blastocyst

    embryo = draw_blastocyst(SEED)
    image = _image(embryo, "blastocyst")
    return [_layer(image), _truth(image, _labels(embryo), "truth", classes=BLASTOCYST_CLASSES)]


def cleavage() -> list[LayerData]:
    """A fragmented four-cell embryo; cells overlap, so every cell's complete silhouette is a separate layer.

    The last layer has the fragments as label 1 and the rest of the embryo as label 2, like the layer of a network.
    """
    from napari_embryo.synthetic import draw_cleavage

    embryo = draw_cleavage(SEED, n_cells=4, fragmentation=FRAGMENTED)
    image = _image(embryo, "cleavage")
    parts = [
        ("zona truth", embryo.masks["ZP"]),
        *((f"cell {i + 1} truth", cell) for i, cell in enumerate(embryo.cells)),
    ]
    fragments = np.where(embryo.fragments, 1, 2 * embryo.masks["embryo"]).astype(np.uint8)
    return [
        _layer(image),
        *(_truth(image, mask.astype(np.uint8), name) for name, mask in parts),
        _truth(image, fragments, "fragments truth", classes=FRAGMENT_CLASSES),
    ]


def timelapse() -> list[LayerData]:
    """Two wells side by side, from the two-cell stage to the expanding blastocyst."""
    from napari_embryo.synthetic import draw_timelapse

    layers: list[LayerData] = []
    for number, frames in enumerate(draw_timelapse(SEED, wells=2, frames=FRAMES)):
        image = _film(frames, f"timelapse well {number + 1}")
        labels = np.stack([_labels(frame) for frame in frames])
        pair = [_layer(image), _truth(image, labels, "truth", classes=TIMELAPSE_LABELS)]
        layers += [_beside(layer, number) for layer in pair]
    return layers


def _image(embryo: "SyntheticEmbryo", name: str) -> EmbryoImage:
    return EmbryoImage(embryo.image, "YX", name, embryo.pixel_size_um, metadata=_provenance(embryo))


def _film(frames: Sequence["SyntheticEmbryo"], name: str) -> EmbryoImage:
    hours = tuple(frame.hours for frame in frames if frame.hours is not None)
    pixels = np.stack([frame.image for frame in frames])
    return EmbryoImage(pixels, "TYX", name, frames[0].pixel_size_um, hours, metadata=_provenance(frames[0]))


def _provenance(embryo: "SyntheticEmbryo") -> dict[str, Any]:
    return {"source": "drawn by napari-embryo", "seed": embryo.seed}


def _layer(image: EmbryoImage) -> LayerData:
    from napari_embryo.io import to_napari

    data, about, kind = to_napari(image)
    return data, {**about, "colormap": "gray"}, kind


def _truth(image: EmbryoImage, labels: npt.NDArray[np.uint8], suffix: str, classes: Sequence[str] = ()) -> LayerData:
    _, about, _ = _layer(image)
    shared = {key: about[key] for key in ("scale", "translate", "units", "axis_labels")}
    metadata = {**about["metadata"], "truth": True, "classes": tuple(classes)}
    return labels, {**shared, "name": f"{image.name} {suffix}", "metadata": metadata, "visible": False}, "labels"


def _labels(embryo: "SyntheticEmbryo") -> npt.NDArray[np.uint8]:
    """(H, W): blastocyst parts 1, 2, 3; fragments 4; cells from 5 up, the topmost one where they overlap."""
    labels = np.zeros(embryo.image.shape, np.uint8)
    for i, cell in enumerate(embryo.cells):
        labels[cell] = len(TIMELAPSE_LABELS) + i
    if embryo.fragments.size:
        labels[embryo.fragments] = TIMELAPSE_LABELS.index("fragments") + 1
    for i, mask in enumerate(embryo.stack(BLASTOCYST_CLASSES)):
        labels[mask] = i + 1
    return labels


def _beside(layer: LayerData, number: int) -> LayerData:
    """The same layer, shifted right by ``number`` widths."""
    data, about, kind = layer
    *before, x = about["translate"]
    width = data.shape[-1] * about["scale"][-1]
    return data, {**about, "translate": (*before, x + 1.03 * number * width)}, kind
