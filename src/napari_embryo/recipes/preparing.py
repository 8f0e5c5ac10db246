"""Prepare a training run: check the starting weights and the data, and report on them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from napari_embryo import library
from napari_embryo.families import FAMILIES, NetworkSettings
from napari_embryo.notes import Note
from napari_embryo.recipes.files import IMAGENET, RANDOM
from napari_embryo.recipes.shapes import network_of, shape_code_path, with_shape_code
from napari_embryo.settings import Recipe

if TYPE_CHECKING:
    from napari_embryo.data import Found, Report, Split

GET_BACKBONE = (
    "torchvision's resnet50 as safetensors, created once on a computer with internet access by: python -c \"from "
    "torchvision.models import resnet50; from safetensors.torch import save_file; "
    "save_file(resnet50(weights='IMAGENET1K_V2').state_dict(), 'resnet50.safetensors')\" "
    "(these are encoder: v1.5; He et al.'s own weights are encoder: v1)"
)


@dataclass(frozen=True)
class Started:
    """A recipe and the files that it starts from.

    Parameters
    ----------
    recipe
        The recipe with the network and preprocessing of the starting weights.
    weights
        File of the starting weights; None if training starts from random weights or an ImageNet encoder.
    shape_code
        File of the shape code; None if there is none, or the starting weights contain it.
    notes
        Messages for the user about both.
    """

    recipe: Recipe
    weights: Path | None = None
    shape_code: Path | None = None
    notes: tuple[Note, ...] = ()

    def parts(self) -> dict[str, str]:
        """Digest of an embryo -> its part when the starting weights were trained; empty if unknown.

        Training data of a shape code count as training data; if both know an embryo, the starting weights decide.
        """
        return _parts(self.shape_code) | _parts(self.weights)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A recipe ready to run, and what was found for it.

    Parameters
    ----------
    started
        The recipe and the files that it starts from.
    split, found, report
        The samples, what was skipped, and both as a table.
    parts_at_start
        Digest of an embryo -> its part when the starting weights were trained.
    notes
        Messages for the user about the layouts of the folders and the starting weights.
    """

    started: Started
    split: "Split"
    found: "Found"
    report: "Report"
    parts_at_start: Mapping[str, str]
    notes: tuple[Note, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The recipe with the network and preprocessing of the starting weights."""
        return self.started.recipe

    @cached_property
    def usual_ratio(self) -> float | None:
        """Median fragmentation ratio of the training images, if any is known."""
        told = [self.found.contents[sample].ratio for sample in self.split.train]
        ratios = [ratio for ratio in told if ratio is not None]
        return median(ratios) if ratios else None

    @property
    def text(self) -> str:
        """The report and the notes, to be read before training."""
        return "\n".join((self.report.text(), *(note.line for note in self.notes)))


def prepare(recipe: Recipe) -> Prepared:
    """Check the starting weights and the data: what is used for training and validation, and what is skipped.

    Raises
    ------
    FileNotFoundError
        If the starting weights, the backbone or a folder does not exist.
    ValueError
        If no folder is named, or the data do not suffice.
    """
    from napari_embryo import data
    from napari_embryo.data.layouts import layout_doubts

    started = with_start(recipe)
    asked, classes = started.recipe, started.recipe.model.classes
    if not asked.data.folders:
        raise ValueError("the recipe names no folder of annotated images; name one with --data, or under data.folders")
    of_cells = FAMILIES[asked.model.family].needs_cells
    found = data.find_samples(asked.data, classes, cells=of_cells)
    _check_something_is_drawn(found, asked)
    parts = started.parts()
    split = data.split(found.samples, asked.data, parts)
    report = data.report(found, split, () if of_cells else classes, asked.data)
    doubts = (Note("warning", doubt) for doubt in layout_doubts(asked.data, classes))
    return Prepared(started, split, found, report, parts, (*doubts, *started.notes, *_flattered(split, parts)))


def _check_something_is_drawn(found: "Found", recipe: Recipe) -> None:
    """Check for usable samples: masks, or also ratios and grades for a network that estimates a ratio."""
    if FAMILIES[recipe.model.family].needs_cells:  # an image without any is no sample
        return
    told = found.contents.values()
    regresses = recipe.model.tells_a_ratio
    if any(any(each.known) or (regresses and each.graded) for each in told):
        return
    also = " or from ratios and grades" if regresses else ", not from cells or grades alone"
    raise ValueError(
        f"{', '.join(recipe.data.folders)}: no image there has an annotated {' or '.join(recipe.model.classes)}; "
        f"{recipe.model.family} learns from annotated masks{also}"
    )


def _parts(weights: Path | None) -> dict[str, str]:
    from napari_embryo import data

    said = (library.header(weights) if weights else None) or {}
    told = said.get("provenance")
    return data.kept_parts(told) if isinstance(told, dict) else {}


def _flattered(split: "Split", kept: Mapping[str, str]) -> tuple[Note, ...]:
    """Report whether the validation and test embryos were also held out from the starting weights."""
    from napari_embryo import data

    judging = [data.digest(embryo) for embryo in {s.embryo for s in (*split.validation, *split.test)}]
    learned = sum(kept.get(each) == "train" for each in judging)
    aside = sum(kept.get(each) in ("validation", "test") for each in judging)
    if not learned + aside:
        return ()
    what = "validation and test" if split.test else "validation"
    flatter = f"; these were trained on {learned} of them, whose scores are too good" if learned else ""
    said = f"{what} embryos also held out from the starting weights: {aside} of {len(judging)}{flatter}"
    return (Note("warning" if learned else "info", said),)


def with_start(recipe: Recipe) -> Started:
    """The recipe with the network and preprocessing of its starting weights, the files, and notes about them."""
    started = _with_shape_code(_with_weights(recipe))
    caveat = FAMILIES[started.recipe.model.family].caveat
    return replace(started, notes=(*started.notes, Note("info", caveat))) if caveat else started


def _with_shape_code(started: Started) -> Started:
    path = shape_code_path(started.recipe)
    if path is None:
        return started
    recipe, note = with_shape_code(started.recipe, path)
    return replace(started, recipe=recipe, shape_code=path, notes=(*started.notes, note))


def _with_weights(recipe: Recipe) -> Started:
    if recipe.start == RANDOM:
        return Started(recipe, notes=(Note("info", f"starts from random weights: {_described(recipe)}"),))
    if recipe.start == IMAGENET:
        check_backbone(recipe)
        said = f"the encoder starts from {recipe.backbone}: {_described(recipe)}"
        return Started(recipe, notes=(Note("info", said),))
    path = library.find(recipe.start, recipe.model.family)
    model, preprocessing = network_of(path)
    model, added = _with_additions(model, recipe.model)
    started = recipe.model_copy(update={"model": model, "preprocessing": preprocessing})
    first = Note("info", f"starts from {recipe.start}: {_described(started)}")
    notes = (first, *added, *_other_family(recipe, started), *_overruled(recipe, started))
    return Started(started, path, notes=notes)


def _with_additions(model: NetworkSettings, asked: NetworkSettings) -> tuple[NetworkSettings, tuple[Note, ...]]:
    """The network of the starting weights with the additions of the recipe that its family supports."""
    if asked.family != model.family:
        return model, ()
    has, wanted = model.model_dump(), asked.model_dump()
    lacking = FAMILIES[model.family].additions
    added = {name: wanted[name] for name, nothing in lacking.items() if has[name] == nothing != wanted[name]}
    if not added:
        return model, ()
    grown = type(model).model_validate(has | added)
    return grown, (Note("info", f"added to the starting weights, initialized with zero: {', '.join(added)}"),)


def check_backbone(recipe: Recipe) -> None:
    """Check that the file needed for start: imagenet exists.

    Raises
    ------
    ValueError
        If the network has no such encoder, or the recipe names no file.
    FileNotFoundError
        If there is no such file.
    """
    if not FAMILIES[recipe.model.family].has_imagenet_encoder:
        raise ValueError(
            f"start: imagenet was given with the family {recipe.model.family}, which has no such encoder; use start: "
            "random"
        )
    if not recipe.backbone:
        raise ValueError(f"start: imagenet needs an ImageNet ResNet-50 (backbone:, or --backbone FILE): {GET_BACKBONE}")
    if not Path(recipe.backbone).is_file():
        raise FileNotFoundError(f"{recipe.backbone}: no such backbone; use {GET_BACKBONE}")


def _described(recipe: Recipe) -> str:
    pre = recipe.preprocessing
    return f"{recipe.model.family} for {', '.join(recipe.model.classes)}, {pre.height} x {pre.width} {pre.fit}"


def _other_family(recipe: Recipe, started: Recipe) -> tuple[Note, ...]:
    asked, family = recipe.model.family, started.model.family
    if family == asked:
        return ()
    said = f"the starting weights are of the family {family}: that is trained, not {asked} as in the recipe"
    return (Note("warning", said),)


def _overruled(recipe: Recipe, started: Recipe) -> tuple[Note, ...]:
    """A note on non-default settings of the recipe that the settings of the starting weights override."""
    lost = [
        f"{group}.{name}"
        for group, asked, taken in (
            ("model", recipe.model, started.model),
            ("preprocessing", recipe.preprocessing, started.preprocessing),
        )
        for name, field in type(asked).model_fields.items()
        if getattr(asked, name) not in (field.default, getattr(taken, name, None))
    ]
    said = f"ignored, because the starting weights have their own settings: {', '.join(lost)}"
    return (Note("warning", said),) if lost else ()
