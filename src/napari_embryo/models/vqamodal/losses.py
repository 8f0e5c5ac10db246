"""Losses of a batch, computed from those of its images."""

from torch import Tensor

from napari_embryo.models.vqamodal.targets import has_pixels

PREFIX = "loss_"
EVERYWHERE = ("objectness", "class", "occlusion")
"""Losses defined for every image; the others need a cell."""
WITH_CELLS = ("anchor", "box", "code", "mask", "occluded")


def _known(targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """1 for each image (B,) in which a loss is defined, 0 otherwise."""
    celled = has_pixels(targets["cells"].bool()).any(1).float()
    return {name: celled.new_ones(len(celled)) for name in EVERYWHERE} | dict.fromkeys(WITH_CELLS, celled)


def counts(targets: dict[str, Tensor]) -> dict[str, float]:
    """Number of images in the mean of each loss."""
    return {name: float(known.sum()) for name, known in _known(targets).items()}


def loss(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Losses by name, each a mean over the images in which it is defined.

    Parameters
    ----------
    outputs
        Outputs of the network when called with the targets.
    targets
        ``cells`` (B, N, h, w); empty masks are not cells.

    Returns
    -------
    dict
        ``objectness`` and ``anchor``: classification and regression of anchors; ``class`` and ``box``: the same for the
        proposed boxes; ``code`` of the shape code, ``mask`` of the silhouette (with refinement, or with Mask R-CNN's
        head), ``occlusion`` of the branch's map, ``occluded`` of ASN.
    """
    known = _known(targets)
    return {
        name: outputs[PREFIX + name].masked_fill(which == 0, 0).sum() / which.sum().clamp_min(1)
        for name, which in known.items()
        if PREFIX + name in outputs
    }
