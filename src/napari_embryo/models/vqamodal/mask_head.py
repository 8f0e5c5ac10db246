"""The mask heads: a decoded and refined shape code (paper, 4.2), and that of Mask R-CNN."""

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from napari_embryo.families import VQAmodalSettings
from napari_embryo.models.blocks import resize_to
from napari_embryo.models.shapecode import FrozenShapeCode, ShapeCode
from napari_embryo.models.vqamodal.fpn import WIDTH

CODED_SIDE, FCN_SIDE = 16, 14
"""Side of the box features used by the mask heads."""
NARROW = 128


@dataclass(frozen=True, eq=False)
class Drawn:
    """Output of a mask head for N boxes.

    ``cell`` (N, S, S) are the logits of the mask, None if no mask was requested; ``initial`` those before the
    refinement; ``code`` (N, K, M, M) the logits of the codes.
    """

    cell: Tensor | None
    initial: Tensor | None = None
    code: Tensor | None = None


class CodeClassifier(nn.Module):
    """Three convolutions and one fully connected layer predict the codes (N, K, M, M) from a box's features.

    Fully connected on purpose: completing a cell takes the whole box. With independent sigmoids, codes start at a
    probability of one in K (docs/decisions.md, "Start of the code head").
    """

    def __init__(self, settings: VQAmodalSettings) -> None:
        super().__init__()
        self.grid, self.codes = settings.shape.grid, settings.shape.codes
        self.convolutions = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, 2, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, 64, 3, 2, padding=1),
            nn.ReLU(),
        )
        self.last = nn.Linear(64 * (CODED_SIDE // 4) ** 2, self.codes * self.grid**2)
        nn.init.normal_(self.last.weight, std=0.01)
        nn.init.constant_(self.last.bias, -log(self.codes - 1) if settings.code_loss == "bce" else 0.0)

    def forward(self, features: Tensor) -> Tensor:
        """(N, 256, 16, 16) -> (N, K, M, M) float32."""
        flat: Tensor = self.last(self.convolutions(features).flatten(1))
        return flat.float().view(-1, self.codes, self.grid, self.grid)


class Refinement(nn.Module):
    """Combines the decoded silhouette with the features of the cell."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(WIDTH, NARROW, 2, 2),
            nn.ReLU(),
        )
        self.join = nn.Sequential(
            nn.Conv2d(NARROW + 1, NARROW, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(NARROW, NARROW, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(NARROW, 1, 1),
        )

    def forward(self, features: Tensor, initial: Tensor) -> Tensor:
        """(N, 256, 16, 16) and logits (N, 1, S, S) -> logits (N, 1, S, S)."""
        own = resize_to(self.features(features), initial)
        joined: Tensor = self.join(torch.cat((own, torch.sigmoid(initial).to(own.dtype)), 1))
        return joined


class CodedHead(nn.Module):
    """Codes, decoded by a frozen shape code, and the refinement."""

    def __init__(self, settings: VQAmodalSettings) -> None:
        super().__init__()
        self.side, self.mask_side = CODED_SIDE, settings.shape.side
        self.classifier = CodeClassifier(settings)
        self.refinement = Refinement() if settings.refine else None

    def forward(self, features: Tensor, shape: FrozenShapeCode | None, is_shown: bool) -> Drawn:
        """(N, 256, 16, 16) -> codes and, if shown or refined, masks."""
        if shape is None:
            raise ValueError("this head draws with a shape code, but none was given; pass the network's own")
        code = self.classifier(features)
        if self.refinement is None and not is_shown:
            return Drawn(None, None, code)
        initial = decode(code, shape)
        cell = initial if self.refinement is None else self.refinement(features, initial).float()
        return Drawn(cell[:, 0], initial[:, 0], code)


def decode(code: Tensor, shape: ShapeCode) -> Tensor:
    """Logits (N, 1, S, S) of the silhouettes of the most probable codes, with the gradient of their probabilities.

    Straight-through: always one code per place, so that training does not differ from use (docs/decisions.md, "Codes
    are decoded hard").
    """
    share = torch.softmax(code, 1)
    hard = one_hot(code.argmax(1), code.shape[1]).movedim(-1, 1).to(share.dtype)
    with torch.autocast(code.device.type, enabled=False):
        embedded = torch.einsum("nkij,kd->ndij", hard + share - share.detach(), codebook(shape, code.device))
        return shape.decode(embedded).float()


def codebook(shape: ShapeCode, device: torch.device) -> Tensor:
    """The code vectors (K, D)."""
    every = torch.arange(shape.settings.codes, device=device)
    return shape.embed(every[:, None, None])[:, :, 0, 0].detach().float()


class FCNHead(nn.Module):
    """The head of Mask R-CNN: four convolutions, a transposed one, and one mask of 28 x 28 (He et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.side, self.mask_side = FCN_SIDE, 2 * FCN_SIDE
        self.convolutions = MaskRCNNHeads(WIDTH, (WIDTH,) * 4, 1)
        self.last = MaskRCNNPredictor(WIDTH, WIDTH, 1)

    def forward(self, features: Tensor, shape: FrozenShapeCode | None, is_shown: bool) -> Drawn:
        """(N, 256, 14, 14) -> masks; there are no codes."""
        del shape, is_shown
        return Drawn(self.last(self.convolutions(features)).float()[:, 0])


@torch.no_grad()
def encode(crops: Tensor, shape: ShapeCode) -> Tensor:
    """The true codes (N, M, M) of masks (N, 1, S, S), in float32 as in the training of the shape code."""
    with torch.autocast(crops.device.type, enabled=False):
        return shape.encode(crops).long()


def code_loss(code: Tensor, true: Tensor, kind: str, reduction: str) -> Tensor:
    """The paper's third equation for every box (N,), or the cross-entropy over K codes.

    Parameters
    ----------
    code
        Logits (N, K, M, M).
    true
        (N, M, M) int64.
    kind
        ``bce``: independent sigmoids, summed over the codes; ``ce``: softmax over K.
    reduction
        ``mean`` over the M x M places (docs/decisions.md, "Means instead of sums"), or ``sum``.
    """
    if kind == "ce":
        each = cross_entropy(code, true, reduction="none")
    else:
        wanted = one_hot(true, code.shape[1]).movedim(-1, 1).to(code.dtype)
        each = binary_cross_entropy_with_logits(code, wanted, reduction="none").sum(1)
    return each.mean((1, 2)) if reduction == "mean" else each.sum((1, 2))


def mask_loss(cell: Tensor, true: Tensor, reduction: str) -> Tensor:
    """The paper's fourth equation for every box (N,), over the pixels of logits and truth (N, S, S)."""
    each = binary_cross_entropy_with_logits(cell, true, reduction="none")
    return each.mean((1, 2)) if reduction == "mean" else each.sum((1, 2))
