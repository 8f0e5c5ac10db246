"""napari-embryo: measure human embryos in napari.

The names below are imported on first use, so that ``import napari_embryo`` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_embryo.explain import attention_maps, grad_cam
    from napari_embryo.families import (
        FAMILIES,
        InceptionSettings,
        RegDeepLabSettings,
        ResANetSettings,
        ShapeCodeSettings,
        UNetSettings,
        VQAmodalSettings,
    )
    from napari_embryo.image import Cells, EmbryoImage, Finding, Parts, Progress
    from napari_embryo.io import read_image
    from napari_embryo.measure import measure_masks
    from napari_embryo.notes import Failure, Note
    from napari_embryo.pipeline import analyze, load_predictor, segment_to_files
    from napari_embryo.predict import Prediction, Predictor
    from napari_embryo.results import AttentionMap, PlaneResult
    from napari_embryo.settings import Preprocessing, SegmentSettings
    from napari_embryo.synthetic import draw_blastocyst, draw_cleavage, draw_timelapse

__version__ = "0.1.0"

__all__ = [
    "FAMILIES",
    "AttentionMap",
    "Cells",
    "EmbryoImage",
    "Failure",
    "Finding",
    "InceptionSettings",
    "Note",
    "Parts",
    "PlaneResult",
    "Prediction",
    "Predictor",
    "Preprocessing",
    "Progress",
    "RegDeepLabSettings",
    "ResANetSettings",
    "SegmentSettings",
    "ShapeCodeSettings",
    "UNetSettings",
    "VQAmodalSettings",
    "__version__",
    "analyze",
    "attention_maps",
    "draw_blastocyst",
    "draw_cleavage",
    "draw_timelapse",
    "grad_cam",
    "load_predictor",
    "measure_masks",
    "read_image",
    "segment_to_files",
]

_HOMES = {
    "explain": ("attention_maps", "grad_cam"),
    "families": (
        "FAMILIES",
        "InceptionSettings",
        "RegDeepLabSettings",
        "ResANetSettings",
        "ShapeCodeSettings",
        "UNetSettings",
        "VQAmodalSettings",
    ),
    "image": ("Cells", "EmbryoImage", "Finding", "Parts", "Progress"),
    "io": ("read_image",),
    "measure": ("measure_masks",),
    "notes": ("Failure", "Note"),
    "pipeline": ("analyze", "load_predictor", "segment_to_files"),
    "predict": ("Prediction", "Predictor"),
    "results": ("AttentionMap", "PlaneResult"),
    "settings": ("Preprocessing", "SegmentSettings"),
    "synthetic": ("draw_blastocyst", "draw_cleavage", "draw_timelapse"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
