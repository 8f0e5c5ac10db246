"""What every network can be asked, and what the program has to know about a family to train and run its networks."""

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
"""A batch's outputs, targets, losses or scores by name."""


class Network(nn.Module):
    """A network that can be rebuilt from its settings.

    Attributes
    ----------
    settings
        Those that it was built from.
    """

    settings: NetworkSettings

    def map_names(self) -> tuple[str, ...]:
        """The attention maps that this network has, of those of its family; none by default."""
        return ()

    def shape_code(self) -> "ShapeCode | None":
        """The shape code that this network is, or draws with; none by default."""
        return None

    def cam_layers(self) -> dict[str, nn.Module]:
        """Layers that Grad-CAM can look at, from the deepest to the one that feeds the classifier; none by default."""
        return {}


@dataclass(frozen=True)
class View:
    """What a network said of a batch that was mirrored left-right or not, then turned by so many quarters."""

    outputs: Tensors
    turns: int
    mirrored: bool


def averaged(views: Iterable[View], hw: tuple[int, int], settings: NetworkSettings) -> Tensors:
    """The mean probability of every pixel, and the mean ratio, as logits again."""
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
    """A number that has to differ from picture to picture.

    Parameters
    ----------
    number
        outputs -> (B,), or None if the network does not tell it.
    least_spread
        Standard deviation over an epoch's pictures below which it counts as the same for all.
    warning
        What is wrong then, and what to do.
    """

    number: Callable[[Tensors], Tensor | None]
    least_spread: float
    warning: str


@dataclass(frozen=True)
class NetworkFunctions:
    """How the networks of a family are built, trained and read.

    Parameters
    ----------
    build
        settings -> a network with random weights.
    loss
        (outputs, targets) -> losses by name.
    counts
        targets -> over how many things every loss is a mean; has every name that the losses can have.
    score
        (outputs, targets, classes) -> scores (B,) by name for each picture; higher is better, NaN where unknown.
    decode
        (one picture's outputs, geometry, classes, threshold) -> what was found, in the picture's pixels; None for
        networks that draw nothing on a picture.
    merge_views
        (views of a batch, height and width of the unturned input, settings) -> what they say together.
    guided
        Whether ``forward`` takes the targets beside the images when something is learned or judged: which boxes it
        looks at depends on the true ones.
    watch
        What tells that a network has stopped learning, where that is known.
    adopt
        (network, weights) -> None: takes over the weights of a network without the family's additions.
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
