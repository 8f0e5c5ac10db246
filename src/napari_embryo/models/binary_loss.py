"""Loss, scores and decoding of networks with one binary output per class (ResA-Net, U-Net)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from napari_embryo.geometry import Geometry
from napari_embryo.image import Parts

DICE_SMOOTH = 1.0


def dice_loss(logits: Tensor, masks: Tensor, weight: Tensor) -> Tensor:
    """``1 - (2 sum(p g) + s) / (sum(p) + sum(g) + s)`` per image and class (B, C), s = 1.

    See docs/decisions.md, "Dice loss".
    """
    p, g = torch.sigmoid(logits) * weight, masks * weight
    overlap, size = (p * g).sum((2, 3)), (p + g).sum((2, 3))
    return 1 - (2 * overlap + DICE_SMOOTH) / (size + DICE_SMOOTH)


def loss(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Losses by name, from logits in float32.

    Parameters
    ----------
    outputs
        ``logits`` (B, C, H, W).
    targets
        ``masks`` (B, C, H, W) in {0, 1}; ``valid`` (B, 1, H, W), 0 on padding; ``known`` (B, C), 0 where the class is
        not annotated, which makes it unknown, not empty.

    Returns
    -------
    dict
        ``bce`` and ``dice``, each the mean over the known classes.
    """
    logits, masks = outputs["logits"].float(), targets["masks"].float()
    known = targets["known"].float()
    weight = targets["valid"].float()
    entropy = binary_cross_entropy_with_logits(logits, masks, reduction="none") * weight
    per_class = entropy.sum((2, 3)) / weight.sum((2, 3)).clamp_min(1)
    count = known.sum().clamp_min(1)
    return {
        "bce": (per_class * known).sum() / count,
        "dice": (dice_loss(logits, masks, weight) * known).sum() / count,
    }


def counts(targets: dict[str, Tensor]) -> dict[str, float]:
    """Number of terms in the mean of each loss: the known classes of all images."""
    known = float(targets["known"].sum())
    return {"bce": known, "dice": known}


def score(outputs: dict[str, Tensor], targets: dict[str, Tensor], classes: Sequence[str]) -> dict[str, Tensor]:
    """``IoU CLASS`` (B,) of every class at p >= 0.5 and the network's size, within the valid area.

    NaN if the class is unknown; 1 if both masks are empty.
    """
    valid = targets["valid"].bool()
    found, drawn = (outputs["logits"] >= 0) & valid, targets["masks"].bool() & valid
    overlap, union = (found & drawn).sum((2, 3)).float(), (found | drawn).sum((2, 3)).float()
    iou = torch.where(union > 0, overlap / union.clamp_min(1), 1.0)
    iou = iou.masked_fill(~targets["known"].bool(), float("nan"))
    return {f"IoU {name}": iou[:, i] for i, name in enumerate(classes)}


def decode(
    logits: Tensor, geometry: Geometry, classes: Sequence[str], threshold: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Masks and probabilities (C, H, W) at the image's size from the logits (C, h, w) of one image.

    Probabilities are resized, then thresholded, never the other way around.
    """
    nets = torch.sigmoid(logits.float()).cpu().numpy()
    probabilities = np.stack([geometry.net_to_image(p) for p in nets])
    return probabilities >= threshold, probabilities


def to_parts(outputs: dict[str, Tensor], geometry: Geometry, classes: Sequence[str], threshold: float) -> Parts:
    """One image's masks as :class:`Parts`, from its ``logits`` (C, h, w)."""
    masks, probabilities = decode(outputs["logits"], geometry, classes, threshold)
    return Parts(tuple(classes), masks, probabilities)
