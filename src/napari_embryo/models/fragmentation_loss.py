"""Losses, scores and decoding of networks that find fragments, estimate their ratio, or both."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from napari_embryo.geometry import Geometry
from napari_embryo.image import Parts
from napari_embryo.models import binary_loss
from napari_embryo.models.network import Watch

FRAGMENT, EMBRYO = 0, 1
FOCUS = 2.0
"""Exponent of the focal loss; there is no alpha, which would weaken the sparse class."""


def focal_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """``(1 - p_t)^2 * BCE`` per pixel (Lin et al. 2017), from logits."""
    entropy = binary_cross_entropy_with_logits(logits, masks, reduction="none")
    return (1 - torch.exp(-entropy)) ** FOCUS * entropy


def range_loss(ratio: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Distance of each ratio from its grade's interval, zero inside (RegDeepLab, L_range)."""
    return torch.relu(low - ratio) + torch.relu(ratio - high)


def soft_ratio(logits: Tensor, embryo: Tensor) -> Tensor:
    """Mean fragment probability (B,) over the embryo (B, h, w); differentiable."""
    return (torch.sigmoid(logits) * embryo).sum((1, 2)) / embryo.sum((1, 2)).clamp_min(1)


class _Truth:
    """The annotations of each image in a batch."""

    def __init__(self, targets: dict[str, Tensor]) -> None:
        self.valid = targets["valid"].float()
        self.known = targets["known"].float()
        masks = targets["masks"].float() * self.valid * self.known[:, :, None, None]
        self.fragments, self.embryo = masks[:, FRAGMENT], torch.maximum(masks[:, EMBRYO], masks[:, FRAGMENT])
        area = self.embryo.sum((1, 2))
        self.fragmented = self.known[:, FRAGMENT] * (self.fragments.sum((1, 2)) > 0)
        self.paired = self.known[:, FRAGMENT] * self.known[:, EMBRYO] * (area > 0)
        from_masks = self.fragments.sum((1, 2)) / area.clamp_min(1)
        told = targets["ratio"].float()
        self.ratio = torch.where(self.paired > 0, from_masks, told.nan_to_num())
        self.exact = torch.maximum(self.paired, (~told.isnan()).float())
        self.low, self.high = targets["low"].float(), targets["high"].float()
        self.graded = (1 - self.exact) * (~self.low.isnan()).float()

    def counts(self) -> dict[str, Tensor]:
        drawn = self.known[:, FRAGMENT]
        return {
            "bce": drawn,
            "dice": self.fragmented,
            "focal": drawn,
            "embryo": self.known[:, EMBRYO],
            "consistency": self.paired,
            "precise": self.exact,
            "range": self.graded,
            "ratio_bce": self.exact,
        }


def counts(targets: dict[str, Tensor]) -> dict[str, float]:
    """Number of images in the mean of each loss."""
    return {name: float(which.sum()) for name, which in _Truth(targets).counts().items()}


def loss(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Losses by name, each a mean over the images for which it is known, from logits in float32.

    Parameters
    ----------
    outputs
        ``logits`` (B, 2, H, W) of fragments and embryo, if the network draws masks; ``ratio`` (B, 1), a logit, if it
        has a regression head.
    targets
        ``masks`` (B, 2, H, W) in {0, 1}; ``valid`` (B, 1, H, W), 0 on padding; ``known`` (B, 2); ``ratio`` (B,), the
        ratio given with the image, or NaN; ``low`` and ``high`` (B,), the interval of its grade, or NaN.

    Returns
    -------
    dict
        ``bce``, ``dice`` (images with fragments) and ``focal`` of the fragments; ``embryo``: cross-entropy and Dice of
        the embryo; ``consistency``: soft ratio of the mask against the true one. With a regression head also
        ``precise`` (L1), ``ratio_bce`` (soft cross-entropy, which keeps the head from saturating) and ``range`` (images
        with only a grade). If masks are annotated, the true ratio is theirs (docs/decisions.md, "Annotated ratio").
    """
    truth = _Truth(targets)
    each: dict[str, Tensor] = {}
    if "logits" in outputs:
        each |= _segmentation(outputs["logits"].float(), truth)
    if "ratio" in outputs:
        each |= _regression(outputs["ratio"].float()[:, 0], truth)
    which = truth.counts()
    return {name: (value * which[name]).sum() / which[name].sum().clamp_min(1) for name, value in each.items()}


def _segmentation(logits: Tensor, truth: _Truth) -> dict[str, Tensor]:
    fragments, valid = logits[:, FRAGMENT], truth.valid[:, 0]
    area = valid.sum((1, 2)).clamp_min(1)
    truths = torch.stack((truth.fragments, truth.embryo), 1)
    dice = binary_loss.dice_loss(logits, truths, truth.valid)
    entropy = binary_cross_entropy_with_logits(logits, truths, reduction="none") * truth.valid
    return {
        "bce": entropy[:, FRAGMENT].sum((1, 2)) / area,
        "dice": dice[:, FRAGMENT],
        "focal": (focal_loss(fragments, truth.fragments) * valid).sum((1, 2)) / area,
        "embryo": entropy[:, EMBRYO].sum((1, 2)) / area + dice[:, EMBRYO],
        "consistency": (soft_ratio(fragments, truth.embryo) - truth.ratio).abs(),
    }


def _regression(logit: Tensor, truth: _Truth) -> dict[str, Tensor]:
    ratio = torch.sigmoid(logit)
    return {
        "precise": (ratio - truth.ratio).abs(),
        "range": range_loss(ratio, truth.low.nan_to_num(0.0), truth.high.nan_to_num(1.0)),
        "ratio_bce": binary_cross_entropy_with_logits(logit, truth.ratio, reduction="none"),
    }


def score(outputs: dict[str, Tensor], targets: dict[str, Tensor], classes: Sequence[str]) -> dict[str, Tensor]:
    """``Dice fragment``, ``IoU embryo`` and ``1 - error of the ratio`` (B,) at the network's size; NaN if unknown.

    1 if both masks are empty. The first two need a network that draws masks, the last one a regression head.
    """
    truth = _Truth(targets)
    scores: dict[str, Tensor] = {}
    if "logits" in outputs:
        scores |= _mask_scores(outputs, targets, truth)
    if "ratio" in outputs:
        error = (torch.sigmoid(outputs["ratio"].float()[:, 0]) - truth.ratio).abs()
        scores["1 - error of the ratio"] = (1 - error).masked_fill(truth.exact == 0, float("nan"))
    return scores


def _mask_scores(outputs: dict[str, Tensor], targets: dict[str, Tensor], truth: _Truth) -> dict[str, Tensor]:
    found = (outputs["logits"] >= 0) & targets["valid"].bool()
    dice = _overlap(found[:, FRAGMENT], truth.fragments > 0, 2.0)
    iou = _overlap(found[:, EMBRYO], truth.embryo > 0, 1.0)
    unknown = targets["known"] == 0
    return {
        "Dice fragment": dice.masked_fill(unknown[:, FRAGMENT], float("nan")),
        "IoU embryo": iou.masked_fill(unknown[:, EMBRYO], float("nan")),
    }


def _overlap(found: Tensor, drawn: Tensor, factor: float) -> Tensor:
    """Dice (factor 2) or IoU (factor 1) of each image."""
    both, either = (found & drawn).sum((1, 2)).float(), (found | drawn).sum((1, 2)).float()
    size = either + (factor - 1) * both
    return torch.where(either > 0, factor * both / size.clamp_min(1), 1.0)


def to_parts(outputs: dict[str, Tensor], geometry: Geometry, classes: Sequence[str], threshold: float) -> Parts:
    """One image's masks, with ``ratio_regressed`` and ``injection`` (logits added to the fragments) if available."""
    masks, probabilities = binary_loss.decode(outputs["logits"], geometry, classes, threshold)
    numbers: dict[str, float] = {}
    if "ratio" in outputs:
        numbers["ratio_regressed"] = float(torch.sigmoid(outputs["ratio"].float())[0])
    if "injection" in outputs and len(outputs["injection"]) == len(classes):
        numbers["injection"] = float(outputs["injection"][FRAGMENT])
    return Parts(tuple(classes), masks, probabilities, numbers, on_top=(classes[FRAGMENT],))


def _ratio(outputs: dict[str, Tensor]) -> Tensor | None:
    return torch.sigmoid(outputs["ratio"].float()[:, 0]) if "ratio" in outputs else None


COLLAPSED = Watch(
    _ratio,
    1e-3,
    "the regression head answers the same for every image; lower regression_rate or learning_rate, or set "
    "loss_weights: {ratio_bce: 0.1} so that it does not saturate",
)
"""Detects a regression head that has stopped learning."""
