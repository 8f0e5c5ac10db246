"""AttnRegDeepLab: fragments, the whole embryo, and the fragmentation ratio of a cleavage-stage embryo.

A DeepLabV3+ on a dilated ResNet-50 with an attention gate on its skip connection and a regression head whose features
join the last convolution (RegDeepLab, section III). There is no public code; docs/decisions.md gives what the paper
leaves open.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from napari_embryo.families.regdeeplab import MAPS, RegDeepLabSettings
from napari_embryo.models import fragmentation_loss
from napari_embryo.models.attention import AttentionGate
from napari_embryo.models.blocks import ASPP, InjectedConv, RegressionHead, averages, cbr, resize_to, separable, shown
from napari_embryo.models.encoder import ENCODER_CHANNELS, Encoder
from napari_embryo.models.network import Network, NetworkFunctions

WIDTH, LOW, VECTOR = 256, 48, 2048
"""Channels of the decoder, of its skip connection, and of the injected vector."""
RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
"""Dilation rates of the ASPP, by output stride."""
PRIOR_LOGITS = (-3.0, -1.0)
"""Initial biases: fragments cover about a twentieth of an image, the embryo a quarter; this saves the first steps."""


class RegDeepLab(Network):
    """Segment normalized gray images (B, 1, H, W) of any size from 32 pixels.

    ``forward`` returns ``logits`` (B, 2, H, W) of fragments and embryo; with a regression head also ``ratio`` (B, 1), a
    logit; with the gate its map ``AG``; with injection ``injection`` (B, 2 or 256), what was added.
    """

    settings: RegDeepLabSettings

    def __init__(self, settings: RegDeepLabSettings) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = Encoder(settings.encoder, settings.output_stride)
        self.aspp = ASPP(ENCODER_CHANNELS[-1], RATES[settings.output_stride], WIDTH)
        self.gate = AttentionGate(ENCODER_CHANNELS[1], WIDTH, 128, project=False) if settings.gate else None
        self.low = cbr(ENCODER_CHANNELS[1], LOW)
        self.decoder = nn.Sequential(separable(WIDTH + LOW, WIDTH), separable(WIDTH, WIDTH))
        self.regression = _regression(settings) if settings.regression else None
        self.head = Head(settings)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """See the class."""
        _, skip, _, middle, deep = self.encoder(images)
        told: dict[str, Tensor] = {}
        vector: Tensor | None = None
        weight = shown(images, deep)
        if self.regression is not None:
            vector, told["ratio"] = self.regression(averages((middle, deep), weight))
        context = self.aspp(deep, weight)
        if self.gate is not None:
            skip, told["AG"] = self.gate(skip, context)
        low = self.low(skip)
        features = self.decoder(torch.cat((resize_to(context, low), low), 1))
        logits, injected = self.head(features, vector)
        if injected is not None:
            told["injection"] = injected
        return {"logits": resize_to(logits, images), **told}

    def map_names(self) -> tuple[str, ...]:
        """Names of the attention maps of this network."""
        return tuple(MAPS) if self.settings.gate else ()

    def cam_layers(self) -> dict[str, nn.Module]:
        """Layers available for Grad-CAM, from the deepest to the one that feeds the classifier."""
        trunk = self.encoder.trunk
        deepest = f"encoder 1/{self.settings.output_stride}"
        return {deepest: trunk.layer4, "ASPP": self.aspp, "decoder 1/4": self.decoder[0], "last": self.decoder[1]}


class Head(nn.Module):
    """The last convolution, with or without the vector of the regression head."""

    def __init__(self, settings: RegDeepLabSettings) -> None:
        super().__init__()
        classes, vector = len(settings.classes), 0 if settings.inject == "none" else VECTOR
        self.is_injected = bool(vector)
        wide = settings.inject == "3x3"
        self.join = InjectedConv(WIDTH, vector, WIDTH if wide else classes, 3 if wide else 1)
        self.last = nn.Sequential(nn.ReLU(), nn.Conv2d(WIDTH, classes, 1)) if wide else nn.Identity()
        with torch.no_grad():
            self.get_parameter("last.1.bias" if wide else "join.bias").copy_(torch.tensor(PRIOR_LOGITS))

    def forward(self, features: Tensor, vector: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the logits (B, 2, h, w) and what was injected."""
        if vector is None or not self.is_injected:
            vector = features.new_zeros(len(features), 0)
        joined, injected = self.join(features, vector)
        return self.last(joined), injected if self.is_injected else None


def _regression(settings: RegDeepLabSettings) -> RegressionHead:
    inside = ENCODER_CHANNELS[-2] + ENCODER_CHANNELS[-1]
    return RegressionHead(nn.Sequential(nn.Linear(inside, VECTOR), nn.ReLU()), VECTOR, settings.dropout)


def build(settings: RegDeepLabSettings) -> RegDeepLab:
    """An AttnRegDeepLab with random weights."""
    return RegDeepLab(settings)


def adopt(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the weights of a network without regression head or injection; new parts keep their initial weights.

    Raises
    ------
    ValueError
        If other parts differ; 3x3 injection has a different last layer.
    """
    own, last = model.state_dict(), "head.join.weight"
    given = {**own, **state}
    lacking = own[last].shape[1] - state[last].shape[1]
    if own[last].shape[0] == state[last].shape[0] and lacking > 0:
        zeros = state[last].new_zeros(*state[last].shape[:1], lacking, *state[last].shape[2:])
        given[last] = torch.cat((state[last], zeros), 1)
    try:
        model.load_state_dict(given)
    except RuntimeError as error:
        raise ValueError(
            f"the starting weights do not fit this network ({error}); only a regression head and 1x1 injection "
            "can be added to a network"
        ) from error


NETWORK = NetworkFunctions(
    build=build,
    loss=fragmentation_loss.loss,
    counts=fragmentation_loss.counts,
    score=fragmentation_loss.score,
    decode=fragmentation_loss.to_parts,
    watch=fragmentation_loss.COLLAPSED,
    adopt=adopt,
)
