"""Attention, decoder and head modules shared by the families.

The four attention blocks reimplement those of CA-Net (Gu et al. 2020, IEEE TMI), which ResA-Net adopts. Each returns
its output and its attention, so that the attention shown is the one that was computed.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, max_pool2d, relu


def cbr(inside: int, outside: int, kernel: int = 1) -> nn.Sequential:
    """Convolution without bias, batch normalization, ReLU."""
    conv = nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside), nn.ReLU())


def resize_to(x: Tensor, partner: Tensor) -> Tensor:
    """Bilinear upsampling to the size of the partner tensor, never by a fixed factor."""
    return interpolate(x, size=partner.shape[-2:], mode="bilinear", align_corners=False)


class NonLocal(nn.Module):
    """Non-local block, embedded Gaussian (Wang et al. 2018), with keys and values pooled 2 x 2.

    ``A = softmax_j(theta(x)_i . phi(x)_j)``; ``out = x + BN(W (A g))``. The batch normalization starts at zero, so the
    block is initially the identity.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Conv2d(channels, inner, 1)
        self.g = nn.Conv2d(channels, inner, 1)
        self.w = nn.Conv2d(inner, channels, 1)
        self.bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output and the attention each key received, times the number of keys (B, 1, h/2, w/2)."""
        query = self.theta(x).flatten(2).transpose(1, 2)
        key_map = _pool2(self.phi(x))
        value = _pool2(self.g(x)).flatten(2).transpose(1, 2)
        scores = query @ key_map.flatten(2)
        attention = torch.softmax(scores.to(torch.promote_types(scores.dtype, torch.float32)), dim=-1)
        y = (attention.to(value.dtype) @ value).transpose(1, 2).unflatten(2, x.shape[-2:])
        received = attention.mean(dim=1) * attention.shape[-1]
        return x + self.bn(self.w(y)), received.unflatten(1, key_map.shape[-2:]).unsqueeze(1)


def _pool2(x: Tensor) -> Tensor:
    """2 x 2 max-pooling that leaves an axis of length 1 unchanged."""
    kernel = (min(2, x.shape[-2]), min(2, x.shape[-1]))
    return max_pool2d(x, kernel)


class AttentionGate(nn.Module):
    """Additive attention gate (Oktay et al. 2018) at the resolution of the skip.

    ``alpha = sigmoid(psi(relu(theta x + up(phi g))))``; ``out = BN(W(alpha * x))``, or ``alpha * x`` if the next layer
    plays the role of ``W``.
    """

    def __init__(self, channels: int, gate: int, inner: int | None = None, project: bool = True) -> None:
        super().__init__()
        inner = inner or channels
        self.theta = nn.Conv2d(channels, inner, 1, bias=False)
        self.phi = nn.Conv2d(gate, inner, 1)
        self.psi = nn.Conv2d(inner, 1, 1)
        self.w: nn.Module = nn.Identity()
        if project:
            self.w = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """Gate the skip ``x`` (B, C, H, W) by ``g``; return the output and alpha (B, 1, H, W) in (0, 1)."""
        alpha = torch.sigmoid(self.psi(relu(self.theta(x) + resize_to(self.phi(g), x))))
        return self.w(alpha * x), alpha


class DualAttentionGate(nn.Module):
    """Two parallel gates joined by a 1 x 1 convolution (CA-Net's SA2 and SA3)."""

    def __init__(self, channels: int, gate: int) -> None:
        super().__init__()
        self.first = AttentionGate(channels, gate)
        self.second = AttentionGate(channels, gate)
        self.join = nn.Sequential(nn.Conv2d(2 * channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """Return the joined output and both alphas (B, 2, H, W)."""
        (first, alpha1), (second, alpha2) = self.first(x, g), self.second(x, g)
        return self.join(torch.cat((first, second), 1)), torch.cat((alpha1, alpha2), 1)


class ChannelAttention(nn.Module):
    """CA-Net's channel attention: ``beta = sigmoid(mlp(avg)) + sigmoid(mlp(max))``, where 1 is neutral."""

    def __init__(self, inside: int, outside: int, dropout: float = 0.0) -> None:
        super().__init__()
        middle = 2 * outside
        self.expand = nn.Sequential(
            cbr(inside, outside, 3), nn.Conv2d(outside, middle, 3, padding=1, bias=False), nn.BatchNorm2d(middle)
        )
        self.mlp = nn.Sequential(nn.Linear(middle, outside // 2), nn.ReLU(), nn.Linear(outside // 2, middle))
        self.residual = nn.Sequential(nn.Conv2d(inside, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.reduce = cbr(middle, outside, 3)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output, beta (B, 2P) in (0, 2), and the signed gain per pixel (B, 1, H, W) in (-1, 1).

        The gain is ``sum_c (beta_c - 1) |f_c| / sum_c |f_c|``: positive where the features present are amplified.
        """
        features = self.expand(x)
        beta = torch.sigmoid(self.mlp(features.mean((2, 3)))) + torch.sigmoid(self.mlp(features.amax((2, 3))))
        gain = _gain(features.detach(), beta.detach())
        out = relu(features * beta[:, :, None, None] + self.residual(x))
        return self.dropout(self.reduce(out)), beta, gain


def _gain(features: Tensor, beta: Tensor) -> Tensor:
    size = features.abs()
    weighted = torch.einsum("bchw,bc->bhw", size, beta - 1)
    return (weighted / size.sum(1).clamp_min(1e-6)).unsqueeze(1)


class ScaleAttention(nn.Module):
    """CA-Net's scale attention over S scales of k channels each: one weight and then one map per scale.

    With ``use_relu`` the maps lie in [0.5, 1), as in CA-Net's code (a ReLU before the sigmoid); without, in (0, 1).
    """

    def __init__(self, scales: int, per_scale: int, use_relu: bool = True) -> None:
        super().__init__()
        channels = scales * per_scale
        self.scales, self.per_scale = scales, per_scale
        self.mlp = nn.Sequential(nn.Linear(channels, per_scale), nn.ReLU(), nn.Linear(per_scale, channels))
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, scales, 3, padding=1, bias=False),
            nn.BatchNorm2d(scales),
            nn.ReLU(),
            nn.Conv2d(scales, scales, 1, bias=False),
            nn.ReLU() if use_relu else nn.Identity(),
        )
        self.reduce = cbr(channels, per_scale, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output (B, k, H, W), the scale weights (B, S) in (0, 1) and the scale maps (B, S, H, W)."""
        gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        gamma = torch.sigmoid(gate.unflatten(1, (self.scales, self.per_scale)).mean(2))
        weighted = x * gamma.repeat_interleave(self.per_scale, 1)[:, :, None, None]
        maps = torch.sigmoid(self.spatial(weighted))
        attended = weighted * (1 + maps.repeat_interleave(self.per_scale, 1))
        return self.reduce(relu(attended + x)), gamma, maps


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
