"""The networks: ``FAMILIES`` maps a family's name to its builder."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from napari_embryo.models import baselines, binary, fragmentation, regdeeplab, resanet
from napari_embryo.models.blocks import MapInfo
from napari_embryo.settings import AnyModelSettings

__all__ = ["COUNTS", "DECODERS", "FAMILIES", "LOSSES", "MAPS", "SCORES", "MapInfo", "build"]

FAMILIES: dict[str, Callable[[Any], nn.Module]] = {
    "resanet": resanet.build,
    "unet": baselines.build,
    "regdeeplab": regdeeplab.build,
    "inception": baselines.build_inception,
}
LOSSES: dict[str, Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]]] = {
    "resanet": binary.loss,
    "unet": binary.loss,
    "regdeeplab": fragmentation.loss,
    "inception": fragmentation.loss,
}

COUNTS: dict[str, Callable[[dict[str, Tensor]], dict[str, float]]] = {
    "resanet": binary.counts,
    "unet": binary.counts,
    "regdeeplab": fragmentation.counts,
    "inception": fragmentation.counts,
}
"""targets -> over how many things every loss is a mean; all names that the losses can have."""

SCORES: dict[str, Callable[[dict[str, Tensor], dict[str, Tensor], Sequence[str]], dict[str, Tensor]]] = {
    "resanet": binary.score,
    "unet": binary.score,
    "regdeeplab": fragmentation.score,
    "inception": fragmentation.score,
}
"""(outputs, targets, classes) -> scores (B,) by name for each picture, higher is better, NaN where unknown."""

DECODERS = {
    "resanet": binary.to_segmentation,
    "unet": binary.to_segmentation,
    "regdeeplab": fragmentation.to_segmentation,
}
"""(one picture's outputs, geometry, classes, threshold) -> what was found, in the picture's pixels; an Inception draws
nothing."""
MAPS: dict[str, Mapping[str, MapInfo]] = {
    "resanet": resanet.MAPS,
    "unet": {},
    "regdeeplab": regdeeplab.MAPS,
    "inception": {},
}
"""What each family can show, by map name."""


def build(settings: AnyModelSettings) -> nn.Module:
    """The network that ``settings`` describe, with random weights."""
    if settings.family not in FAMILIES:
        raise ValueError(f"no family {settings.family!r}; there are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[settings.family](settings)
