"""Run a network on images: image -> network -> back to the image's own pixels."""

from napari_embryo.predict.device import (
    check_precision,
    choose_device,
    devices,
    half_type,
    is_out_of_memory,
    use_bfloat16,
)
from napari_embryo.predict.largest import embryo_box, largest_embryo, one_embryo
from napari_embryo.predict.predictor import Prediction, Predictor
from napari_embryo.predict.views import VIEWS, viewed

__all__ = [
    "VIEWS",
    "Prediction",
    "Predictor",
    "check_precision",
    "choose_device",
    "devices",
    "embryo_box",
    "half_type",
    "is_out_of_memory",
    "largest_embryo",
    "one_embryo",
    "use_bfloat16",
    "viewed",
]
