"""Work that the Train widget does in a worker; the only part of it that may import torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_embryo import recipes, render, stream
from napari_embryo.families import FAMILIES
from napari_embryo.image import Progress, cell_names
from napari_embryo.settings import Recipe, SegmentSettings
from napari_embryo.widgets._torch_import import prepare_for_torch
from napari_embryo.widgets._train_process import Child, command
from napari_embryo.widgets._worker import Steps

if TYPE_CHECKING:
    from napari_embryo import data

PREVIEWED = 16
"""Number of augmented images in a preview."""

Rgb = npt.NDArray[np.uint8]


def check(recipe: Recipe) -> Steps[str]:
    """Report on the images, before training."""
    yield Progress(0, 1, "Reading the images …")
    return recipes.prepare(recipe).text


def preview(recipe: Recipe) -> Steps[Rgb]:
    """Training images as the network sees them, (N, h, w, 3)."""
    yield Progress(0, 1, "Reading the images …")
    prepared = recipes.prepare(recipe)
    yield Progress(0, 1, "Augmenting images …")
    prepare_for_torch()
    from napari_embryo import augment
    from napari_embryo.train import loader

    seen, classes = prepared.recipe.preprocessing, prepared.recipe.model.classes
    visited = loader.visited(prepared.split.train, recipe.data.repeats)
    pictures: Rgb = augment.preview(visited, seen, recipe.augmentation, recipe.training.seed, PREVIEWED, classes)
    return pictures


@dataclass(frozen=True, eq=False)
class Worst:
    """Validation images as stacks of one size: gray (N, H, W), truth and prediction as labels (N, H, W)."""

    names: tuple[str, ...]
    classes: tuple[str, ...]
    images: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.uint8]
    predicted: npt.NDArray[np.uint8]
    are_cells: bool = False


def predict_worst(recipe: Recipe, names: Sequence[str], weights: Path) -> Steps[Worst]:
    """Predict validation images with the best network so far, on the processor during training.

    ``names`` are ``source/name`` as reported by an epoch, so that the folders are not split again: with an image added
    since, the split would differ.
    """
    if not FAMILIES[recipe.model.family].draws:
        raise ValueError(
            f"a network of the family {recipe.model.family} draws no masks; its curves show how well it does"
        )
    yield Progress(0, len(names), "Loading the network …")
    prepare_for_torch()
    from napari_embryo import predict
    from napari_embryo.models import checkpoint

    settings = SegmentSettings(device="cpu", maps=())
    predictor = predict.Predictor(checkpoint.load(weights), settings)
    samples = _named(recipe, predictor.classes, names)
    are_cells, triples = predictor.family.finds_cells, []
    for done, name in enumerate(names):
        yield Progress(done, len(names), name)
        truth = samples[name].read()
        found = next(predictor.predict([truth.image])).finding
        drawn = labels_of(truth.cells if are_cells else truth.masks)
        triples.append((render.gray_to_rgb(truth.image)[..., 0], drawn, found.labels()))
    images, truths, predicted = (stacked(kind) for kind in zip(*triples, strict=True))
    classes = cell_names(int(max(truths.max(), predicted.max()))) if are_cells else predictor.classes
    return Worst(tuple(names), classes, images, truths, predicted, are_cells)


def _named(recipe: Recipe, classes: Sequence[str], names: Sequence[str]) -> "dict[str, data.Sample]":
    from napari_embryo import data

    found = {f"{s.source}/{s.name}": s for s in data.find_samples(recipe.data, classes).samples}
    if gone := [name for name in names if name not in found]:
        raise ValueError(
            f"{', '.join(gone)}: no longer in the folders of annotated images, or no longer readable; restore "
            "the files that were there when training started"
        )
    return {name: found[name] for name in names}


def labels_of(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """(C, H, W) bool -> (H, W): 0 background, i + 1 for class i, the first where they overlap."""
    if not len(masks):
        return np.zeros(masks.shape[1:], np.uint8)
    return np.where(masks.any(axis=0), masks.argmax(axis=0) + 1, 0).astype(np.uint8)


def stacked(pictures: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Images of any size -> (N, H, W), smaller ones padded at the right and bottom."""
    height, width = (max(picture.shape[side] for picture in pictures) for side in (0, 1))
    whole = np.zeros((len(pictures), height, width), np.uint8)
    for place, picture in zip(whole, pictures, strict=True):
        place[: picture.shape[0], : picture.shape[1]] = picture
    return whole


def learning(recipe: Recipe, child: Child, out: Path) -> Steps[stream.Finished]:
    """Start a new run in a separate process and read its events."""
    yield Progress(0, 1, "starting a separate process …")
    with TemporaryDirectory(prefix="napari-embryo-") as folder:
        path = recipes.write(Path(folder) / f"{recipe.name}.yaml", recipe)
        return (yield from child.events(command(path, out)))


def going_on(child: Child, out: Path) -> Steps[stream.Finished]:
    """Resume an interrupted run."""
    yield Progress(0, 1, "starting a separate process …")
    return (yield from child.events(command(out / "recipe.yaml", out, resume=True)))
