"""Attention, decoder and head modules shared by the families.

The four attention blocks reimplement those of CA-Net (Gu et al. 2020, IEEE TMI), which ResA-Net adopts. Each returns
its output and its attention, so that the attention shown is the one that was computed.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate


def cbr(inside: int, outside: int, kernel: int = 1) -> nn.Sequential:
    """Convolution without bias, batch normalization, ReLU."""
    conv = nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside), nn.ReLU())


def resize_to(x: Tensor, partner: Tensor) -> Tensor:
    """Bilinear upsampling to the size of the partner tensor, never by a fixed factor."""
    return interpolate(x, size=partner.shape[-2:], mode="bilinear", align_corners=False)


def separable(inside: int, outside: int, dilation: int = 1) -> nn.Sequential:
    """Depthwise 3 x 3 and pointwise convolution, batch normalization, ReLU (DeepLabV3+)."""
    depthwise = nn.Conv2d(inside, inside, 3, padding=dilation, dilation=dilation, groups=inside, bias=False)
    pointwise = nn.Conv2d(inside, outside, 1, bias=False)
    return nn.Sequential(depthwise, pointwise, nn.BatchNorm2d(outside), nn.ReLU())


def shown(images: Tensor, features: Tensor) -> Tensor:
    """Share of each place of a feature map covered by the image (B, 1, h, w); padding of an input is exactly zero."""
    return interpolate((images != 0).to(features.dtype), size=features.shape[-2:], mode="area")


def averages(stages: tuple[Tensor, ...], weight: Tensor) -> Tensor:
    """Global averages (B, C1 + C2 ...) of feature maps; ``weight`` (B, 1, h, w) is 0 on padding."""
    share = weight / weight.sum((2, 3), keepdim=True).clamp_min(1e-6)
    return torch.cat([(stage * share).sum((2, 3)) for stage in stages], 1)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2018) with separable convolutions, to 256 channels.

    See docs/decisions.md, "No normalization in the image branch".
    """

    def __init__(self, inside: int, rates: tuple[int, int, int], outside: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.near = cbr(inside, outside)
        self.far = nn.ModuleList(separable(inside, outside, rate) for rate in rates)
        self.whole = nn.Sequential(nn.Conv2d(inside, outside, 1), nn.ReLU())
        self.join = nn.Sequential(cbr(5 * outside, outside), nn.Dropout(dropout))

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 256, h, w); ``weight`` (B, 1, h, w) as in :func:`averages`."""
        whole = self.whole(averages((x,), weight)[:, :, None, None]).expand(-1, -1, *x.shape[-2:])
        joined: Tensor = self.join(torch.cat((self.near(x), *(branch(x) for branch in self.far), whole), 1))
        return joined


class InjectedConv(nn.Module):
    """A convolution over features concatenated with one vector per image, broadcast over all places.

    The weights have the layout of the literal concatenation (features first). The contribution of the vector is
    computed separately, which is exact even at the borders, where the kernel sees zero padding, and costs almost
    nothing. The vector's weights start at zero, so initially nothing is injected.
    """

    def __init__(self, features: int, vector: int, outside: int, kernel: int = 1) -> None:
        super().__init__()
        whole = nn.Conv2d(features, outside, kernel)
        injected = torch.zeros(outside, vector, kernel, kernel)
        self.weight = nn.Parameter(torch.cat((whole.weight.detach(), injected), 1))
        self.bias = nn.Parameter(torch.zeros(outside))
        self.features, self.padding = features, kernel // 2

    def forward(self, features: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) and (B, V) -> (B, O, h, w), and the contribution of the vector away from the border (B, O)."""
        own, injected = self.weight[:, : self.features], self.weight[:, self.features :]
        out = conv2d(features, own, self.bias, padding=self.padding)
        kernels = torch.einsum("ovij,bv->boij", injected, vector)
        if self.padding == 0:
            return out + kernels, kernels[:, :, 0, 0]
        ones = out.new_ones(1, 1, *out.shape[-2:])
        spread = conv2d(ones, kernels.flatten(0, 1).unsqueeze(1).to(ones.dtype), padding=self.padding)
        return out + spread.view(*out.shape), kernels.sum((2, 3))


USUAL_RATIO = 0.065
"""Fragmentation ratio at which a regression starts if the training images give no other."""


class RegressionHead(nn.Module):
    """Features of an image -> a vector -> the logit of a ratio.

    See docs/decisions.md, "Start of the regression head".
    """

    def __init__(self, vector: nn.Module, width: int, dropout: float) -> None:
        super().__init__()
        self.vector = vector
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(width, 1)
        nn.init.zeros_(self.last.weight)
        self.start_at(USUAL_RATIO)

    def start_at(self, ratio: float) -> None:
        """Set the bias so that the untrained head answers this ratio (clipped to 0.01-0.99)."""
        nn.init.constant_(self.last.bias, float(torch.logit(torch.tensor(ratio), eps=0.01)))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vector (B, width) and the logit (B, 1)."""
        vector = self.vector(features)
        return vector, self.last(self.dropout(vector))
