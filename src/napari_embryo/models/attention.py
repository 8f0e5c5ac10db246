"""The attention of the networks: non-local, gates, channels and scales."""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from napari_embryo.models.blocks import cbr, resize_to


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
