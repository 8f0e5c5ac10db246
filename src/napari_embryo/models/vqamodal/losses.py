"""Losses of a batch, out of those of its pictures."""

from torch import Tensor

from napari_embryo.models.vqamodal.targets import has_pixels

PREFIX = "loss_"
EVERYWHERE = ("objectness", "class", "occlusion")
"""Known in every picture; the others in those with a cell."""
WITH_CELLS = ("anchor", "box", "code", "mask", "occluded")


def _known(targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """In which pictures (B,) each loss means something, 1 or 0."""
    celled = has_pixels(targets["cells"].bool()).any(1).float()
    return {name: celled.new_ones(len(celled)) for name in EVERYWHERE} | dict.fromkeys(WITH_CELLS, celled)


def counts(targets: dict[str, Tensor]) -> dict[str, float]:
    """Over how many pictures each loss is a mean."""
    return {name: float(known.sum()) for name, known in _known(targets).items()}


def loss(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Losses by name, each a mean over the pictures where it means something.

    Parameters
    ----------
    outputs
        Those of the network that was told the targets.
    targets
        ``cells`` (B, N, h, w); a mask without a pixel is no cell.

    Returns
    -------
    dict
        ``objectness`` and ``anchor``: which anchors lie on cells, and how they are moved; ``class`` and ``box``: the
        same of the boxes proposed; ``code`` of the shape code, ``mask`` of the silhouette (with a refinement, or Mask
        R-CNN's head), ``occlusion`` of the branch's map, ``occluded`` of ASN.
    """
    known = _known(targets)
    return {
        name: outputs[PREFIX + name].masked_fill(which == 0, 0).sum() / which.sum().clamp_min(1)
        for name, which in known.items()
        if PREFIX + name in outputs
    }
