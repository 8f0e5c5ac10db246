"""The shape code: a silhouette as a small grid of codes (VQ-VAE, van den Oord et al. 2017).

A binary mask in a square goes through a few strided convolutions to M x M vectors; each becomes the nearest entry of a
codebook of K; what those entries are drawn back into is a silhouette again. The paper gives no sizes: M, K, the widths
and how the codebook learns are our decision.
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
"""The paper's beta: how strongly vectors are drawn to their codes."""
DECAY, SMOOTHING = 0.99, 1e-5
"""Of the moving averages, and of a code's count (Laplace), as in van den Oord et al."""
HASTE = 10
"""The decay begins low and reaches ``DECAY`` after some 900 batches, (1 + t) / (10 + t): at first vectors move faster
than a hundred batches' average can follow, and codes left behind would be long in dying (our decision)."""
DEAD, DEAD_SHARE = 1.0, 0.1
"""A code is revived below this count of vectors per batch, or this share of the mean count, whichever is less: where a
batch has hardly more vectors than there are codes, few have one each."""
GROW = 0.25
"""What :func:`complete` looks at beyond a mask's box on each side, as a share of the box."""


def build(settings: ShapeCodeSettings) -> "ShapeCode":
    """The network that ``settings`` describe, with random weights."""
    return ShapeCode(settings)


class ShapeCode(Network):
    """VQ-VAE on silhouettes.

    Its parts are called ``down`` and ``up``: the training takes a part called encoder for a pretrained one, to be moved
    slowly.

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
        """Squares (N, 1, side, side) in {0, 1} through the code and back.

        Returns
        -------
        dict
            ``logits`` (N, 1, side, side) of the silhouette; ``codebook`` (N,), the loss of codes and vectors;
            ``indices`` (N, M, M) of the codes, as float; ``squared`` (N,), 1 where the settings ask for squared
            errors instead of cross-entropy.
        """
        vectors = self.down(images)
        chosen, indices, apart = self.codebook(vectors)
        squared = torch.full_like(apart, self.settings.reconstruction == "mse")
        return {"logits": self.decode(chosen), "codebook": apart, "indices": indices.float(), "squared": squared}

    def shape_code(self) -> "ShapeCode":
        """Itself."""
        return self

    @torch.no_grad()
    def encode(self, masks: Tensor) -> Tensor:
        """Masks (N, 1, side, side) in {0, 1} -> indices (N, M, M) int64: row by row, as the square is."""
        return self.codebook.nearest(self.down(masks))

    def embed(self, indices: Tensor) -> Tensor:
        """Indices (N, M, M) int64 -> their codes (N, dimension, M, M)."""
        return self.codebook.look_up(indices)

    def last_hidden(self, embedded: Tensor) -> Tensor:
        """What :meth:`decode` makes its logits of: (N, dimension, M, M) -> (N, 32, side, side)."""
        features: Tensor = self.up(embedded)
        return features

    def decode(self, embedded: Tensor) -> Tensor:
        """Codes, or mixtures of codes, (N, dimension, M, M) -> logits (N, 1, side, side)."""
        logits: Tensor = self.last(self.last_hidden(embedded))
        return logits


class FrozenShapeCode(ShapeCode):
    """A shape code that stays as it is, wherever it is a part: always in eval mode, its weights no parameters.

    They are buffers: saved, loaded (from a :class:`ShapeCode`'s ``state_dict`` too) and moved with the network, while
    no optimizer sees them, whatever a training says of parameters. Gradients go through :meth:`decode` to what it
    draws.
    """

    def __init__(self, settings: ShapeCodeSettings) -> None:
        super().__init__(settings)
        for module in list(self.modules()):
            _hold_still(module)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Nothing; also when a parent asks for it."""
        return super().train(False)


def _hold_still(module: nn.Module) -> None:
    """Make a module's own parameters buffers of the same name."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        delattr(module, name)
        module.register_buffer(name, parameter.detach())


class Codebook(nn.Module):
    """A vector quantizer: the nearest code for each vector, and codes that follow the vectors.

    Parameters
    ----------
    codes, dimension
        How many, of how many numbers.
    learning
        ``ema``: codes are moving averages of their vectors, begin as vectors of the first batch, and those that hardly
        any vector is near become vectors of the batch. ``loss``: codes are parameters and learn by gradient.

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
        """Vectors (N, D, M, M) -> their codes, of the same shape, their indices (N, M, M), and the loss (N,).

        The gradient goes through the codes to the vectors as if nothing had been rounded (straight-through). The loss
        is a mean over the grid and the numbers of a code: beta times the squared distance, which pulls vectors to their
        codes; where codes learn by gradient, also the one that pulls codes to their vectors. In float32 whatever the
        precision.
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
        """(N, D, M, M) -> indices (N, M, M) of the nearest codes; the first of equally near ones."""
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
        """Begin as vectors of the first batch."""
        if not self.batches:
            self._become(torch.ones_like(self.counts, dtype=torch.bool), _rows(vectors))

    @torch.no_grad()
    def _follow(self, vectors: Tensor, indices: Tensor) -> None:
        """Move every code to the moving average of its vectors, and revive the dead."""
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
        """Make these codes vectors of the batch, no vector twice while there are enough; each counts as one."""
        wanted = int(which.sum())
        if not wanted:
            return
        # on the processor, so that the seed means the same on every device
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
    """Added up over the cards that learn together, so that their codes stay the same."""
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
        Of :meth:`ShapeCode.forward`.
    targets
        ``masks`` (N, 1, s, s) in {0, 1}, what shall be drawn (not always what was read: of a part, the whole);
        ``valid`` (N, 1, s, s), 0 where nobody knows.

    Returns
    -------
    dict
        ``reconstruction``: cross-entropy, or squared error, a mean over the pixels; ``codebook``.
    """
    logits, masks = outputs["logits"].float(), targets["masks"].float()
    weight = targets["valid"].float()
    entropy = binary_cross_entropy_with_logits(logits, masks, reduction="none")
    squares = mse_loss(torch.sigmoid(logits), masks, reduction="none")
    error = torch.where(outputs["squared"][:, None, None, None] > 0, squares, entropy)
    each = (error * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp_min(1)
    return {"reconstruction": each.mean(), "codebook": outputs["codebook"].float().mean()}


def counts(targets: dict[str, Tensor]) -> dict[str, float]:
    """Over how many silhouettes each loss is a mean."""
    number = float(len(targets["masks"]))
    return {"reconstruction": number, "codebook": number}


def score(outputs: dict[str, Tensor], targets: dict[str, Tensor], classes: Sequence[str]) -> dict[str, Tensor]:
    """``IoU`` (N,) of what is drawn at p >= 0.5 with what shall be, in the square; nothing and nothing is 1."""
    valid = targets["valid"].bool()
    found, drawn = (outputs["logits"] >= 0) & valid, targets["masks"].bool() & valid
    both, either = (found & drawn).sum((1, 2, 3)).float(), (found | drawn).sum((1, 2, 3)).float()
    return {"IoU": torch.where(either > 0, both / either.clamp_min(1), 1.0)}


NETWORK = NetworkFunctions(build=build, loss=loss, counts=counts, score=score)


def codes_in_use(indices: Tensor, codes: int) -> tuple[float, float]:
    """Share of ``codes`` that occur in ``indices``, and their perplexity.

    The perplexity, ``exp`` of the entropy, is ``codes`` where all are used equally often and 1 where there is only one.
    """
    used = torch.bincount(indices.flatten().long().cpu(), minlength=codes).double()
    share = used / used.sum().clamp_min(1)
    return float((used > 0).double().mean()), float(torch.exp(-torch.xlogy(share, share).sum()))


@torch.no_grad()
def complete(model: ShapeCode, mask: npt.NDArray[np.bool_], grow: float = GROW) -> npt.NDArray[np.float32]:
    """What the shape code takes a silhouette, or the part of it that is seen, for.

    Parameters
    ----------
    model
        Learned; one that learned from parts what the whole is completes best.
    mask
        (H, W) bool.
    grow
        How far it may reach beyond the box of ``mask`` on each side, as a share of the box's size.

    Returns
    -------
    ndarray
        (H, W) float32 in [0, 1], zero where ``mask`` is empty.

    Raises
    ------
    ValueError
        When the mask is not a single picture.
    """
    if mask.ndim != 2:
        raise ValueError(f"a mask of shape {mask.shape} was given; needed is that of one cell, (height, width)")
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
