"""The shape code: a silhouette as a small grid of codes (VQ-VAE, van den Oord et al. 2017).

A few strided convolutions turn a binary mask in a square into M x M vectors; each is replaced by the nearest of the K
entries of a codebook, and these are decoded into a silhouette again. The paper gives no sizes: see docs/decisions.md,
"Size of the shape code" and "Learning the codebook".
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import log2
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss, one_hot

from napari_embryo.families import ShapeCodeSettings
from napari_embryo.models.boxes import boxes_of, crop_masks, grown, paste
from napari_embryo.models.network import Network, NetworkFunctions

COMMITMENT = 0.25
"""The paper's beta: how strongly vectors are pulled to their codes."""
DECAY, SMOOTHING = 0.99, 1e-5
"""Decay of the moving averages and Laplace smoothing of the counts, as in van den Oord et al."""
HASTE = 10
"""The decay starts low and reaches ``DECAY`` after about 900 batches, as (1 + t) / (10 + t): at first, vectors move
faster than an average over a hundred batches can follow, and codes left behind would take long to be revived."""
DEAD, DEAD_SHARE = 1.0, 0.1
"""A code is revived below this number of vectors per batch, or this share of the mean number, whichever is lower: with
few vectors per code in a batch, many codes get less than one."""
GROW = 0.25
"""Margin that :func:`complete` adds to a mask's box on each side, as a share of the box."""


def build(settings: ShapeCodeSettings) -> "ShapeCode":
    """Build the network described by ``settings``, with random weights."""
    return ShapeCode(settings)


class ShapeCode(Network):
    """VQ-VAE on silhouettes.

    Its parts are called ``down`` and ``up``, because training gives a part called encoder the lower learning rate of a
    pretrained one.

    Parameters
    ----------
    settings
        Side of the square, codes along each side, size of the codebook, and how it learns.
    """

    settings: ShapeCodeSettings

    def __init__(self, settings: ShapeCodeSettings) -> None:
        super().__init__()
        self.settings = settings
        strides = int(log2(settings.side // settings.grid))
        self.down = _down(strides, settings.dimension)
        self.codebook = Codebook(settings.codes, settings.dimension, settings.codebook)
        self.up = _up(strides, settings.dimension)
        self.last = nn.Conv2d(32, 1, 3, padding=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Encode and decode squares (N, 1, side, side) in {0, 1}.

        Returns
        -------
        dict
            ``logits`` (N, 1, side, side) of the silhouette; ``codebook`` (N,), the loss of codes and vectors;
            ``indices`` (N, M, M) of the codes, as float; ``squared`` (N,), 1 if the settings choose squared errors
            instead of cross-entropy.
        """
        vectors = self.down(images)
        chosen, indices, apart = self.codebook(vectors)
        squared = torch.full_like(apart, self.settings.reconstruction == "mse")
        return {"logits": self.decode(chosen), "codebook": apart, "indices": indices.float(), "squared": squared}

    def shape_code(self) -> "ShapeCode":
        """Return itself."""
        return self

    @torch.no_grad()
    def encode(self, masks: Tensor) -> Tensor:
        """Masks (N, 1, side, side) in {0, 1} -> indices (N, M, M) int64, in the row order of the square."""
        return self.codebook.nearest(self.down(masks))

    def embed(self, indices: Tensor) -> Tensor:
        """Indices (N, M, M) int64 -> their codes (N, dimension, M, M)."""
        return self.codebook.look_up(indices)

    def last_hidden(self, embedded: Tensor) -> Tensor:
        """Features from which :meth:`decode` computes its logits: (N, dimension, M, M) -> (N, 32, side, side)."""
        features: Tensor = self.up(embedded)
        return features

    def decode(self, embedded: Tensor) -> Tensor:
        """Codes, or mixtures of codes, (N, dimension, M, M) -> logits (N, 1, side, side)."""
        logits: Tensor = self.last(self.last_hidden(embedded))
        return logits


class FrozenShapeCode(ShapeCode):
    """A frozen shape code within another network: always in eval mode, and its weights are not parameters.

    They are buffers: saved, loaded (also from the ``state_dict`` of a :class:`ShapeCode`) and moved with the network,
    but invisible to optimizers whatever the training settings. Gradients pass through :meth:`decode` to its input.
    """

    def __init__(self, settings: ShapeCodeSettings) -> None:
        super().__init__(settings)
        for module in list(self.modules()):
            _hold_still(module)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Do nothing, even if a parent changes its mode."""
        return super().train(False)


def _hold_still(module: nn.Module) -> None:
    """Turn a module's parameters into buffers of the same name."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        delattr(module, name)
        module.register_buffer(name, parameter.detach())


class Codebook(nn.Module):
    """A vector quantizer: the nearest code for each vector, and codes that follow the vectors.

    Parameters
    ----------
    codes, dimension
        Number of codes, and length of each.
    learning
        ``ema``: codes are moving averages of their vectors, start as vectors of the first batch, and hardly used ones
        are replaced by vectors of the batch. ``loss``: codes are parameters and learn by gradient.

    Attributes
    ----------
    codes
        (K, D) float32.
    """

    codes: Tensor
    counts: Tensor
    sums: Tensor
    batches: Tensor

    def __init__(self, codes: int, dimension: int, learning: Literal["ema", "loss"] = "ema") -> None:
        super().__init__()
        self.learns_by_gradient = learning == "loss"
        first = (2 * torch.rand(codes, dimension) - 1) / codes
        if self.learns_by_gradient:
            self.codes = nn.Parameter(first)
            return
        self.register_buffer("codes", first)
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", first.clone())
        self.register_buffer("batches", torch.tensor(0))

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (N, D, M, M) -> their codes of the same shape, the indices (N, M, M), and the loss (N,).

        The gradient passes through the codes to the vectors as if they had not been quantized (straight-through). The
        loss is a mean over the grid and the elements of a code: beta times the squared distance, which pulls vectors to
        their codes, and, if codes learn by gradient, the one that pulls codes to their vectors. Always in float32.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = vectors.float()
            if self.training and not self.learns_by_gradient:
                self._start(vectors)
            indices = self.nearest(vectors)
            chosen = self.look_up(indices)
            apart = COMMITMENT * _distance(vectors, chosen.detach())
            if self.learns_by_gradient:
                apart = apart + _distance(chosen, vectors.detach())
            elif self.training:
                self._follow(vectors, indices)
            return vectors + (chosen - vectors).detach(), indices, apart

    @torch.no_grad()
    def nearest(self, vectors: Tensor) -> Tensor:
        """(N, D, M, M) -> indices (N, M, M) of the nearest codes; the first one in a tie."""
        with torch.autocast(vectors.device.type, enabled=False):
            # not by |x|² - 2xy + |y|², in which small distances cancel
            apart = torch.cdist(_rows(vectors), self.codes, compute_mode="donot_use_mm_for_euclid_dist")
        indices: Tensor = apart.argmin(1)
        return indices.reshape(len(vectors), *vectors.shape[2:])

    def look_up(self, indices: Tensor) -> Tensor:
        """(N, M, M) int64 -> (N, D, M, M)."""
        return self.codes[indices].permute(0, 3, 1, 2)

    @torch.no_grad()
    def _start(self, vectors: Tensor) -> None:
        """Initialize codes with vectors of the first batch."""
        if not self.batches:
            self._become(torch.ones_like(self.counts, dtype=torch.bool), _rows(vectors))

    @torch.no_grad()
    def _follow(self, vectors: Tensor, indices: Tensor) -> None:
        """Move every code to the moving average of its vectors, and revive unused codes."""
        rows = _rows(vectors)
        is_nearest = one_hot(indices.flatten(), len(self.codes)).to(rows.dtype)
        new = 1 - min(DECAY, (1 + int(self.batches)) / (HASTE + int(self.batches)))
        self.counts.lerp_(_over_cards(is_nearest.sum(0)), new)
        self.sums.lerp_(_over_cards(is_nearest.T @ rows), new)
        self.batches += 1
        total = self.counts.sum()
        smoothed = (self.counts + SMOOTHING) / (total + len(self.codes) * SMOOTHING) * total
        self.codes.copy_(self.sums / smoothed[:, None])
        self._become(self.counts < min(DEAD, DEAD_SHARE * len(rows) / len(self.codes)), rows)

    def _become(self, which: Tensor, rows: Tensor) -> None:
        """Replace these codes by vectors of the batch, without repetition if there are enough; each counts as one."""
        wanted = int(which.sum())
        if not wanted:
            return
        # on the processor, so that the seed gives the same result on every device
        order = torch.cat([torch.randperm(len(rows)) for _ in range(-(-wanted // len(rows)))])[:wanted]
        taken = _of_first_card(rows[order.to(rows.device)].contiguous())
        self.codes[which], self.sums[which], self.counts[which] = taken, taken, 1.0


def _rows(vectors: Tensor) -> Tensor:
    """(N, D, M, M) -> (N * M * M, D) float32."""
    return vectors.float().permute(0, 2, 3, 1).flatten(0, 2)


def _distance(vectors: Tensor, others: Tensor) -> Tensor:
    """Mean squared difference (N,)."""
    return (vectors - others).square().mean((1, 2, 3))


def _over_cards(numbers: Tensor) -> Tensor:
    """Sum over the devices that train together, so that their codes stay the same."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(numbers)
    return numbers


def _of_first_card(numbers: Tensor) -> Tensor:
    if distributed.is_available() and distributed.is_initialized():
        distributed.broadcast(numbers, src=0)
    return numbers


class Residual(nn.Module):
    """``x + conv1(ReLU(conv3(ReLU(x))))`` (van den Oord et al. 2017)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, inner, 3, padding=1), nn.ReLU(), nn.Conv2d(inner, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> the same shape."""
        out: Tensor = x + self.body(x)
        return out


def _down(strides: int, dimension: int) -> nn.Sequential:
    """A square (N, 1, s, s) -> vectors (N, dimension, s / 2^strides, ...)."""
    widths = (1, 32, *(64,) * (strides - 1))
    halves = _with_relu(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(widths))
    return nn.Sequential(
        *halves,
        nn.Conv2d(64, 64, 3, padding=1),
        Residual(64, 32),
        Residual(64, 32),
        nn.ReLU(),
        nn.Conv2d(64, dimension, 1),
    )


def _up(strides: int, dimension: int) -> nn.Sequential:
    """Codes (N, dimension, M, M) -> features (N, 32, M * 2^strides, ...)."""
    widths = (64, *(32,) * strides)
    doubles = _with_relu(nn.ConvTranspose2d(a, b, 4, 2, 1) for a, b in pairwise(widths))
    return nn.Sequential(
        nn.Conv2d(dimension, 64, 3, padding=1), Residual(64, 32), Residual(64, 32), nn.ReLU(), *doubles
    )


def _with_relu(layers: Iterator[nn.Module]) -> Iterator[nn.Module]:
    for layer in layers:
        yield layer
        yield nn.ReLU()


def loss(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Losses by name, each a mean over the silhouettes, in float32.

    Parameters
    ----------
    outputs
        Outputs of :meth:`ShapeCode.forward`.
    targets
        ``masks`` (N, 1, s, s) in {0, 1}, the target (for a partial input, the whole cell); ``valid`` (N, 1, s, s), 0
        where the truth is unknown.

    Returns
    -------
    dict
        ``reconstruction``: cross-entropy or squared error, a mean over the pixels; ``codebook``.
    """
    logits, masks = outputs["logits"].float(), targets["masks"].float()
    weight = targets["valid"].float()
    entropy = binary_cross_entropy_with_logits(logits, masks, reduction="none")
    squares = mse_loss(torch.sigmoid(logits), masks, reduction="none")
    error = torch.where(outputs["squared"][:, None, None, None] > 0, squares, entropy)
    each = (error * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp_min(1)
    return {"reconstruction": each.mean(), "codebook": outputs["codebook"].float().mean()}


def counts(targets: dict[str, Tensor]) -> dict[str, float]:
    """Number of silhouettes in the mean of each loss."""
    number = float(len(targets["masks"]))
    return {"reconstruction": number, "codebook": number}


def score(outputs: dict[str, Tensor], targets: dict[str, Tensor], classes: Sequence[str]) -> dict[str, Tensor]:
    """``IoU`` (N,) of the prediction at p >= 0.5 with the target, within the square; 1 if both are empty."""
    valid = targets["valid"].bool()
    found, drawn = (outputs["logits"] >= 0) & valid, targets["masks"].bool() & valid
    both, either = (found & drawn).sum((1, 2, 3)).float(), (found | drawn).sum((1, 2, 3)).float()
    return {"IoU": torch.where(either > 0, both / either.clamp_min(1), 1.0)}


NETWORK = NetworkFunctions(build=build, loss=loss, counts=counts, score=score)


def codes_in_use(indices: Tensor, codes: int) -> tuple[float, float]:
    """Share of the ``codes`` that occur in ``indices``, and their perplexity.

    The perplexity, ``exp`` of the entropy, is ``codes`` if all are used equally often and 1 if only one is used.
    """
    used = torch.bincount(indices.flatten().long().cpu(), minlength=codes).double()
    share = used / used.sum().clamp_min(1)
    return float((used > 0).double().mean()), float(torch.exp(-torch.xlogy(share, share).sum()))


@torch.no_grad()
def complete(model: ShapeCode, mask: npt.NDArray[np.bool_], grow: float = GROW) -> npt.NDArray[np.float32]:
    """Complete a silhouette, or its visible part, with the shape code.

    Parameters
    ----------
    model
        A trained shape code; one trained with hidden parts completes best.
    mask
        (H, W) bool.
    grow
        How far the result may extend beyond the box of ``mask`` on each side, as a share of the box's size.

    Returns
    -------
    ndarray
        (H, W) float32 in [0, 1], zero if ``mask`` is empty.

    Raises
    ------
    ValueError
        If the mask is not two-dimensional.
    """
    if mask.ndim != 2:
        raise ValueError(f"a mask of shape {mask.shape} was given; the mask of one cell is needed, (height, width)")
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    device = model.codebook.codes.device
    drawn = torch.from_numpy(np.ascontiguousarray(mask, bool))[None].to(device)
    boxes = grown(boxes_of(drawn), grow)
    square = crop_masks(drawn, boxes, model.settings.side)[:, None]
    logits = model.decode(model.embed(model.encode(square)))
    pasted = paste(torch.sigmoid(logits.float())[:, 0], boxes, (mask.shape[0], mask.shape[1]))
    picture: npt.NDArray[np.float32] = pasted[0].cpu().numpy()
    return picture
