"""ResA-Net: inner cell mass, trophectoderm and zona pellucida of a blastocyst.

A ResNet-50 encoder and a CA-Net decoder with four spatial (SA1-SA4), four channel (CA1-CA4) and one scale (LA)
attention module. There is no public code; docs/decisions.md gives what the paper leaves open, mostly as in the public
code of CA-Net.
"""

import torch
from torch import Tensor, nn

from napari_embryo.families.resanet import MAPS, ResANetSettings
from napari_embryo.models import binary_loss
from napari_embryo.models.attention import AttentionGate, ChannelAttention, DualAttentionGate, NonLocal, ScaleAttention
from napari_embryo.models.blocks import cbr, resize_to
from napari_embryo.models.encoder import ENCODER_CHANNELS, Encoder
from napari_embryo.models.network import Network, NetworkFunctions

WIDTHS = {"base": (16, 32, 64, 128), "wide": (32, 64, 128, 256)}
LA_CHANNELS = 4

PRIOR_LOGIT = -2.0
"""Initial bias: each part covers about an eighth of an image, which saves the first hundred steps."""


def _head(settings: ResANetSettings) -> nn.Conv2d:
    softmax = settings.head == "softmax"
    head = nn.Conv2d(LA_CHANNELS, 2 if softmax else len(settings.classes), 1)
    if head.bias is not None:
        nn.init.constant_(head.bias[-1:] if softmax else head.bias, PRIOR_LOGIT)
    return head


class ResANet(Network):
    """ResA-Net.

    Parameters
    ----------
    settings
        Classes, width and options.
    """

    settings: ResANetSettings

    def __init__(self, settings: ResANetSettings) -> None:
        super().__init__()
        d1, d2, d3, d4 = WIDTHS[settings.width]
        c1, c2, c3, c4, c5 = ENCODER_CHANNELS
        self.settings = settings
        self.encoder = Encoder(settings.encoder)
        self.laterals = nn.ModuleList(cbr(c, d) for c, d in zip((c1, c2, c3, c4), (d1, d2, d3, d4), strict=True))
        # Spelled as in existing weights.
        self.centre = nn.Sequential(cbr(c5, d4), nn.Dropout2d(settings.dropout))
        self.sa1 = NonLocal(2 * d4, inner=d4 // 2)
        self.ca1 = ChannelAttention(2 * d4, d4, settings.dropout)
        gate = DualAttentionGate if settings.dual_gate else AttentionGate
        self.sa2, self.up2, self.ca2 = gate(d3, d4), cbr(d4, d3), ChannelAttention(2 * d3, d3)
        self.sa3, self.up3, self.ca3 = gate(d2, d3), cbr(d3, d2), ChannelAttention(2 * d2, d2)
        self.sa4 = AttentionGate(d1, d2) if settings.sa4 else None
        self.up4, self.ca4 = cbr(d2, d1), ChannelAttention(2 * d1, d1)
        self.to_scales = nn.ModuleList(nn.Conv2d(d, LA_CHANNELS, 1) for d in (d1, d2, d3, d4))
        self.la = ScaleAttention(4, LA_CHANNELS, settings.la_relu)
        self.head = _head(settings)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Segment normalized gray images.

        Parameters
        ----------
        images
            (B, 1, H, W), any H and W from 32.

        Returns
        -------
        dict
            ``logits`` (B, C, H, W), one per class; ``SA1`` (B, 1, h, w) times the number of keys, 1 = uniform;
            ``SA2``, ``SA3`` (B, 2 or 1, h, w) and ``SA4`` (B, 1, h, w) in (0, 1); ``CA1``-``CA4`` (B, 1, h, w) gain in
            (-1, 1) and ``CA1_beta``... (B, channels) in (0, 2); ``LA`` (B, 4, H, W) in [0.5, 1) or (0, 1) and
            ``LA_scale`` (B, 4) in (0, 1).
        """
        maps: dict[str, Tensor] = {}
        *skips, c5 = self.encoder(images)
        e1, e2, e3, e4 = (lateral(c) for lateral, c in zip(self.laterals, skips, strict=True))
        z4, maps["SA1"] = self.sa1(torch.cat((e4, resize_to(self.centre(c5), e4)), 1))
        d4, maps["CA1_beta"], maps["CA1"] = self.ca1(z4)
        s3, maps["SA2"] = self.sa2(e3, d4)
        d3, maps["CA2_beta"], maps["CA2"] = self.ca2(torch.cat((s3, resize_to(self.up2(d4), e3)), 1))
        s2, maps["SA3"] = self.sa3(e2, d3)
        d2, maps["CA3_beta"], maps["CA3"] = self.ca3(torch.cat((s2, resize_to(self.up3(d3), e2)), 1))
        s1 = e1
        if self.sa4 is not None:
            s1, maps["SA4"] = self.sa4(e1, d2)
        d1, maps["CA4_beta"], maps["CA4"] = self.ca4(torch.cat((s1, resize_to(self.up4(d2), e1)), 1))
        scales = [resize_to(conv(d), images) for conv, d in zip(self.to_scales, (d1, d2, d3, d4), strict=True)]
        fused, maps["LA_scale"], maps["LA"] = self.la(torch.cat(scales, 1))
        return {"logits": self._logits(fused), **maps}

    def _logits(self, fused: Tensor) -> Tensor:
        logits: Tensor = self.head(fused)
        if self.settings.head == "softmax":
            return logits[:, 1:] - logits[:, :1]  # its sigmoid equals the second channel of the softmax
        return logits

    def map_names(self) -> tuple[str, ...]:
        """Names of the attention maps of this network."""
        lacking = set() if self.settings.sa4 else {"SA4"}
        if not self.settings.dual_gate:
            lacking |= {"SA2a", "SA2b", "SA3a", "SA3b"}
        return tuple(name for name in MAPS if name not in lacking)

    def cam_layers(self) -> dict[str, nn.Module]:
        """Layers available for Grad-CAM, from the deepest to the one that feeds the classifier."""
        return {
            "encoder 1/32": self.encoder.trunk.layer4,
            "encoder 1/16": self.encoder.trunk.layer3,
            "decoder 1/16": self.ca1.reduce,
            "decoder 1/8": self.ca2.reduce,
            "decoder 1/4": self.ca3.reduce,
            "decoder 1/2": self.ca4.reduce,
            "last": self.la.reduce,
        }


def build(settings: ResANetSettings) -> ResANet:
    """A ResA-Net with random weights."""
    return ResANet(settings)


NETWORK = NetworkFunctions(
    build=build,
    loss=binary_loss.loss,
    counts=binary_loss.counts,
    score=binary_loss.score,
    decode=binary_loss.to_parts,
)
