"""The networks: ``FAMILIES`` maps a family's name to its builder."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from napari_embryo.models import baselines, binary, resanet
from napari_embryo.models.resanet import MapInfo
from napari_embryo.settings import ResANetSettings, UNetSettings

__all__ = ["DECODERS", "FAMILIES", "LOSSES", "MAPS", "SCORES", "MapInfo", "build"]

FAMILIES: dict[str, Callable[[Any], nn.Module]] = {"resanet": resanet.build, "unet": baselines.build}
LOSSES: dict[str, Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]]] = {
    "resanet": binary.loss,
    "unet": binary.loss,
}

SCORES: dict[str, Callable[[dict[str, Tensor], dict[str, Tensor], Sequence[str]], dict[str, Tensor]]] = {
    "resanet": binary.score,
    "unet": binary.score,
}
"""(outputs, targets, classes) -> scores (B,) by name for each picture, higher is better, NaN where unknown."""

DECODERS = {"resanet": binary.to_segmentation, "unet": binary.to_segmentation}
MAPS: dict[str, Mapping[str, MapInfo]] = {"resanet": resanet.MAPS, "unet": {}}
"""What each family can show, by map name."""


def build(settings: ResANetSettings | UNetSettings) -> nn.Module:
    """The network that ``settings`` describe, with random weights."""
    if settings.family not in FAMILIES:
        raise ValueError(f"no family {settings.family!r}; there are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[settings.family](settings)
