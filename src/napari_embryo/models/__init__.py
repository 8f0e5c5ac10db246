"""The networks: ``FAMILIES`` maps a family's name to its builder."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from napari_embryo.models import baselines, binary, resanet
from napari_embryo.models.resanet import MapInfo
from napari_embryo.settings import ResANetSettings, UNetSettings

__all__ = ["DECODERS", "FAMILIES", "LOSSES", "MAPS", "MapInfo", "build"]

FAMILIES: dict[str, Callable[[Any], nn.Module]] = {"resanet": resanet.build, "unet": baselines.build}
LOSSES: dict[str, Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]]] = {
    "resanet": binary.loss,
    "unet": binary.loss,
}

DECODERS = {"resanet": binary.to_segmentation, "unet": binary.to_segmentation}
MAPS: dict[str, Mapping[str, MapInfo]] = {"resanet": resanet.MAPS, "unet": {}}
"""What each family can show, by map name."""


def build(settings: ResANetSettings | UNetSettings) -> nn.Module:
    """The network that ``settings`` describe, with random weights."""
    if settings.family not in FAMILIES:
        raise ValueError(f"no family {settings.family!r}; there are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[settings.family](settings)
