"""The interface of networks, and the functions the program needs to train and run those of a family."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from napari_embryo.families import NetworkSettings
from napari_embryo.image import Finding

if TYPE_CHECKING:
    from napari_embryo.models.shapecode import ShapeCode

Tensors = dict[str, Tensor]
"""Outputs, targets, losses or scores of a batch by name."""


class Network(nn.Module):
    """A network that can be rebuilt from its settings.

    Attributes
    ----------
    settings
        The settings it was built from.
    """

    settings: NetworkSettings

    def map_names(self) -> tuple[str, ...]:
        """Names of the attention maps of its family that this network has; none by default."""
        return ()

    def shape_code(self) -> "ShapeCode | None":
        """The shape code that this network is or contains; none by default."""
        return None

    def cam_layers(self) -> dict[str, nn.Module]:
        """Layers available for Grad-CAM, from the deepest to the one that feeds the classifier; none by default."""
        return {}


@dataclass(frozen=True)
class View:
    """Outputs for a batch that was mirrored left-right or not, then rotated by a number of quarter turns."""

    outputs: Tensors
    turns: int
    mirrored: bool


def averaged(views: Iterable[View], hw: tuple[int, int], settings: NetworkSettings) -> Tensors:
    """The mean probability of every pixel and the mean ratio, as logits."""
    totals: Tensors = {}
    count = 0
    for view in views:
        count += 1
        for name, logits in _turned_back(view).items():
            probability = torch.sigmoid(logits)
            totals[name] = totals[name] + probability if name in totals else probability
    return {name: torch.logit(total / count, eps=1e-6) for name, total in totals.items()}


def _turned_back(view: View) -> Tensors:
    said: Tensors = {name: view.outputs[name] for name in ("logits", "ratio") if name in view.outputs}
    if "logits" in said:
        back = torch.rot90(said["logits"], -view.turns, (-2, -1))
        said["logits"] = back.flip(-1) if view.mirrored else back
    return said


@dataclass(frozen=True)
class Watch:
    """A number that is expected to differ between images.

    Parameters
    ----------
    number
        outputs -> (B,), or None if the network does not output it.
    least_spread
        Standard deviation over the images of an epoch below which it counts as constant.
    warning
        What is wrong in that case, and what to do.
    """

    number: Callable[[Tensors], Tensor | None]
    least_spread: float
    warning: str


@dataclass(frozen=True)
class NetworkFunctions:
    """How the networks of a family are built, trained and decoded.

    Parameters
    ----------
    build
        settings -> a network with random weights.
    loss
        (outputs, targets) -> losses by name.
    counts
        targets -> number of terms in the mean of every loss; contains the names of all losses.
    score
        (outputs, targets, classes) -> scores (B,) by name; higher is better, NaN if unknown.
    decode
        (outputs for one image, geometry, classes, threshold) -> what was found, at the image's size; None for networks
        that draw no masks.
    merge_views
        (views of a batch, height and width of the unrotated input, settings) -> their combined outputs.
    guided
        Whether ``forward`` also takes the targets in training and validation, because the boxes it uses depend on the
        true ones.
    watch
        How to detect that a network has stopped learning, if possible.
    adopt
        (network, weights) -> None: loads the weights of a network without the family's additions.
    """

    build: Callable[[Any], Network]
    loss: Callable[[Tensors, Tensors], Tensors]
    counts: Callable[[Tensors], dict[str, float]]
    score: Callable[[Tensors, Tensors, Sequence[str]], Tensors]
    decode: Callable[..., Finding] | None = None
    merge_views: Callable[[Iterable[View], tuple[int, int], Any], Tensors] = averaged
    guided: bool = False
    watch: Watch | None = None
    adopt: Callable[[nn.Module, Mapping[str, Tensor]], None] | None = None
