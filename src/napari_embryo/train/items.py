"""What a family learns from: whole pictures, pictures with every cell's silhouette, or the silhouettes alone."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from napari_embryo.augment import TrainingSet
from napari_embryo.data import Sample
from napari_embryo.settings import OF_CELLS, Augmentation, Preprocessing, ShapeCodeSettings
from napari_embryo.train.silhouettes import Silhouettes, of_cells


def visits_of(model: nn.Module, samples: Sequence[Sample]) -> list[Sample]:
    """What an epoch visits: of a network that learns silhouettes every cell on its own, else every picture."""
    return of_cells(samples) if _is_of_silhouettes(model) else list(samples)


def items_for(
    model: nn.Module,
    samples: Sequence[Sample],
    preprocessing: Preprocessing,
    augmentation: Augmentation | None = None,
    seed: int = 0,
) -> TrainingSet:
    """Samples as the network learns from them, or is judged by them where nothing is altered.

    Parameters
    ----------
    model
        Whose settings say what that is.
    samples
        From :func:`visits_of`.
    preprocessing, augmentation, seed
        As for :class:`napari_embryo.augment.TrainingSet`.
    """
    described: Any = model.settings
    if isinstance(described, ShapeCodeSettings):
        return Silhouettes(samples, described.side, augmentation, seed)
    return TrainingSet(samples, preprocessing, augmentation, seed, cells=described.family in OF_CELLS)


def _is_of_silhouettes(model: nn.Module) -> bool:
    return isinstance(model.settings, ShapeCodeSettings)
