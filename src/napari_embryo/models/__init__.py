"""The networks: ``FAMILIES`` maps a family's name to its builder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from napari_embryo.image import Segmentation
from napari_embryo.models import baselines, binary_loss, fragmentation, regdeeplab, resanet, shapecode, vqamodal
from napari_embryo.models.blocks import MapInfo
from napari_embryo.settings import AnyModelSettings

__all__ = [
    "COUNTS",
    "DECODERS",
    "FAMILIES",
    "GUIDED",
    "LOSSES",
    "MAPS",
    "SCORES",
    "WATCHES",
    "MapInfo",
    "Watch",
    "build",
]

FAMILIES: dict[str, Callable[[Any], nn.Module]] = {
    "resanet": resanet.build,
    "unet": baselines.build,
    "regdeeplab": regdeeplab.build,
    "inception": baselines.build_inception,
    "vqamodal": vqamodal.build,
    "shapecode": shapecode.build,
}
LOSSES: dict[str, Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]]] = {
    "resanet": binary_loss.loss,
    "unet": binary_loss.loss,
    "regdeeplab": fragmentation.loss,
    "inception": fragmentation.loss,
    "vqamodal": vqamodal.loss,
    "shapecode": shapecode.loss,
}

GUIDED = frozenset(("vqamodal",))
"""Families whose ``forward`` takes the targets beside the images where something is learned or judged: which boxes they
look at depends on the true ones."""

COUNTS: dict[str, Callable[[dict[str, Tensor]], dict[str, float]]] = {
    "resanet": binary_loss.counts,
    "unet": binary_loss.counts,
    "regdeeplab": fragmentation.counts,
    "inception": fragmentation.counts,
    "vqamodal": vqamodal.counts,
    "shapecode": shapecode.counts,
}
"""targets -> over how many things every loss is a mean; all names that the losses can have."""

SCORES: dict[str, Callable[[dict[str, Tensor], dict[str, Tensor], Sequence[str]], dict[str, Tensor]]] = {
    "resanet": binary_loss.score,
    "unet": binary_loss.score,
    "regdeeplab": fragmentation.score,
    "inception": fragmentation.score,
    "vqamodal": vqamodal.score,
    "shapecode": shapecode.score,
}
"""(outputs, targets, classes) -> scores (B,) by name for each picture, higher is better, NaN where unknown."""

DECODERS: dict[str, Callable[..., Segmentation]] = {
    "resanet": binary_loss.to_segmentation,
    "unet": binary_loss.to_segmentation,
    "regdeeplab": fragmentation.to_segmentation,
    "vqamodal": vqamodal.to_segmentation,
}
"""(one picture's outputs, geometry, classes, threshold) -> what was found, in the picture's pixels; an Inception draws
nothing, and a shape code looks at no picture."""
MAPS: dict[str, Mapping[str, MapInfo]] = {
    "resanet": resanet.MAPS,
    "unet": {},
    "regdeeplab": regdeeplab.MAPS,
    "inception": {},
    "vqamodal": vqamodal.MAPS,
    "shapecode": shapecode.MAPS,
}
"""What each family can show, by map name."""


@dataclass(frozen=True)
class Watch:
    """A number that has to differ from picture to picture.

    Parameters
    ----------
    number
        outputs -> (B,), or None where the network does not tell it.
    least_spread
        Standard deviation over an epoch's pictures below which it is the same for all.
    warning
        What is wrong then, and what to do.
    """

    number: Callable[[dict[str, Tensor]], Tensor | None]
    least_spread: float
    warning: str


def _ratio(outputs: dict[str, Tensor]) -> Tensor | None:
    return torch.sigmoid(outputs["ratio"].float()[:, 0]) if "ratio" in outputs else None


_COLLAPSED = Watch(
    _ratio,
    1e-3,
    "the regression head says the same for every picture; lower regression_rate or learning_rate, or give "
    "loss_weights: {ratio_bce: 0.1} so that it does not saturate",
)
WATCHES: dict[str, Watch] = {"regdeeplab": _COLLAPSED, "inception": _COLLAPSED}
"""What tells that a family has stopped to learn, where it is known to."""


def build(settings: AnyModelSettings) -> nn.Module:
    """The network that ``settings`` describe, with random weights."""
    if settings.family not in FAMILIES:
        raise ValueError(f"no family {settings.family!r}; there are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[settings.family](settings)
