"""Networks the families are compared with."""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from napari_embryo.models.blocks import cbr, resize_to
from napari_embryo.settings import UNetSettings


def _double(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(cbr(inside, outside, 3), cbr(outside, outside, 3))


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) with batch normalisation, same padding and bilinear up-sampling.

    64-128-256-512-1024 channels by default; 16 base channels are the network CA-Net extends. Any input size from 16.
    """

    def __init__(self, settings: UNetSettings) -> None:
        super().__init__()
        self.settings = settings
        widths = [settings.base_channels * 2**i for i in range(5)]
        self.down = nn.ModuleList(_double(a, b) for a, b in zip([1, *widths[:-1]], widths, strict=True))
        self.reduce = nn.ModuleList(nn.Conv2d(2 * w, w, 1) for w in widths[3::-1])
        self.up = nn.ModuleList(_double(2 * w, w) for w in widths[3::-1])
        self.head = nn.Conv2d(widths[0], len(settings.classes), 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Segment normalised grey images (B, 1, H, W); return ``logits`` (B, C, H, W)."""
        skips: list[Tensor] = []
        x = images
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else max_pool2d(x, 2))
            skips.append(x)
        for reduce, block, skip in zip(self.reduce, self.up, skips[3::-1], strict=True):
            x = block(torch.cat((skip, resize_to(reduce(x), skip)), 1))
        return {"logits": self.head(x)}

    def map_names(self) -> tuple[str, ...]:
        """A U-Net has no attention maps; Grad-CAM explains it."""
        return ()

    def cam_layers(self) -> dict[str, nn.Module]:
        """Layers Grad-CAM can look at, from the deepest to the one that feeds the classifier."""
        decoder = {f"decoder 1/{2 ** (3 - i)}": block for i, block in enumerate(self.up[:3])}
        return {"bottleneck": self.down[4], **decoder, "last": self.up[3]}


def build(settings: UNetSettings) -> UNet:
    """A U-Net with random weights."""
    return UNet(settings)
