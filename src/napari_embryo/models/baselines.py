"""Baseline networks."""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d
from torchvision.models import inception_v3

from napari_embryo.families import InceptionSettings, UNetSettings
from napari_embryo.models import binary_loss, fragmentation_loss
from napari_embryo.models.blocks import RegressionHead, cbr, resize_to
from napari_embryo.models.network import Network, NetworkFunctions

SMALLEST_INCEPTION = 75
"""Smallest side in pixels; with less, nothing is left after its unpadded convolutions."""


def _double(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(cbr(inside, outside, 3), cbr(outside, outside, 3))


class UNet(Network):
    """U-Net (Ronneberger et al. 2015) with batch normalization, same padding and bilinear up-sampling.

    64-128-256-512-1024 channels by default; with 16 base channels it is the network that CA-Net extends. Any input size
    from 16 pixels.
    """

    settings: UNetSettings

    def __init__(self, settings: UNetSettings) -> None:
        super().__init__()
        self.settings = settings
        widths = [settings.base_channels * 2**i for i in range(5)]
        self.down = nn.ModuleList(_double(a, b) for a, b in zip([1, *widths[:-1]], widths, strict=True))
        self.reduce = nn.ModuleList(nn.Conv2d(2 * w, w, 1) for w in widths[3::-1])
        self.up = nn.ModuleList(_double(2 * w, w) for w in widths[3::-1])
        self.head = nn.Conv2d(widths[0], len(settings.classes), 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Segment normalized gray images (B, 1, H, W); return ``logits`` (B, C, H, W)."""
        skips: list[Tensor] = []
        x = images
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else max_pool2d(x, 2))
            skips.append(x)
        for reduce, block, skip in zip(self.reduce, self.up, skips[3::-1], strict=True):
            x = block(torch.cat((skip, resize_to(reduce(x), skip)), 1))
        return {"logits": self.head(x)}

    def cam_layers(self) -> dict[str, nn.Module]:
        """Layers available for Grad-CAM, from the deepest to the one that feeds the classifier."""
        decoder = {f"decoder 1/{2 ** (3 - i)}": block for i, block in enumerate(self.up[:3])}
        return {"bottleneck": self.down[4], **decoder, "last": self.up[3]}


def build(settings: UNetSettings) -> UNet:
    """A U-Net with random weights."""
    return UNet(settings)


class Inception(Network):
    """Inception v3 (Szegedy et al. 2016) that estimates a ratio and draws no masks.

    torchvision's network without the auxiliary classifier; the classifier is dropout and one linear layer. Its average
    includes the padding. The usual size is 299 x 299; any size from 75 pixels works.
    """

    settings: InceptionSettings

    def __init__(self, settings: InceptionSettings) -> None:
        super().__init__()
        self.settings = settings
        self.trunk = inception_v3(weights=None, aux_logits=False, init_weights=True)
        width = self.trunk.fc.in_features
        self.trunk.dropout, self.trunk.fc = nn.Identity(), nn.Identity()
        self.regression = RegressionHead(nn.Identity(), width, settings.dropout)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Estimate the ratio of normalized gray images (B, 1, H, W); return ``ratio`` (B, 1), a logit."""
        height, width = images.shape[-2:]
        if min(height, width) < SMALLEST_INCEPTION:
            raise ValueError(
                f"images of {height} x {width} were given; Inception v3 needs at least {SMALLEST_INCEPTION} pixels per "
                "side, and 299 is usual (preprocessing: height, width)"
            )
        return {"ratio": self.regression(self.trunk(images.expand(-1, 3, -1, -1)))[1]}


def build_inception(settings: InceptionSettings) -> Inception:
    """An Inception v3 with random weights."""
    return Inception(settings)


UNET = NetworkFunctions(
    build=build,
    loss=binary_loss.loss,
    counts=binary_loss.counts,
    score=binary_loss.score,
    decode=binary_loss.to_parts,
)
INCEPTION = NetworkFunctions(
    build=build_inception,
    loss=fragmentation_loss.loss,
    counts=fragmentation_loss.counts,
    score=fragmentation_loss.score,
    watch=fragmentation_loss.COLLAPSED,
)
