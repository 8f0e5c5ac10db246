"""Complete a rough or cut-off mask of one cell to a plausible silhouette, using a trained shape code."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from napari_embryo import library
from napari_embryo.families import FAMILIES, shape_code_families
from napari_embryo.models import checkpoint
from napari_embryo.models.checkpoint import Checkpoint, CheckpointError
from napari_embryo.models.shapecode import ShapeCode
from napari_embryo.models.shapecode import complete as complete_by


def complete(mask: npt.NDArray[np.bool_], weights: str = library.BUNDLED) -> npt.NDArray[np.float32]:
    """Encode a mask and decode it into the silhouette that its codes represent.

    Parameters
    ----------
    mask
        (H, W) bool mask of one cell.
    weights
        Weights that are or contain a shape code: ``"bundled"``, the name of a model in the library, or a path.

    Returns
    -------
    ndarray
        (H, W) float32 in [0, 1]: probability that each pixel belongs to the whole cell.

    Raises
    ------
    ValueError
        If the mask is empty or not two-dimensional.
    FileNotFoundError, CheckpointError
        If there are no such weights, or they contain no shape code.
    """
    if mask.ndim != 2 or not mask.any():
        raise ValueError(
            f"a mask of shape {mask.shape} with {int(mask.sum())} painted pixels was given; the mask of one cell is "
            "needed, (height, width), with at least part of the cell painted"
        )
    path = library.find(weights, next(name for name in shape_code_families() if FAMILIES[name].ships))
    about = path.stat()
    with torch.inference_mode():
        return complete_by(_shape_code(path, about.st_mtime_ns, about.st_size), mask)


@lru_cache(maxsize=1)
def _shape_code(path: Path, mtime: int, size: int) -> ShapeCode:
    """Read the weights again only if the file has changed."""
    return shape_code_of(checkpoint.load(path), path)


def shape_code_of(loaded: Checkpoint, path: Path) -> ShapeCode:
    """The shape code that a checkpoint is or contains.

    Raises
    ------
    CheckpointError
        If it contains none.
    """
    model = loaded.model.shape_code()
    if model is None:
        raise CheckpointError(
            f"{path}: these weights of the family {loaded.info.model.family} have no shape code; use weights of "
            f"{' or '.join(shape_code_families())} that have one"
        )
    return model.eval()
