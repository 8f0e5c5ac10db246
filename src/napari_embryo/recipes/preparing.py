"""What happens before a training: the start and the data are looked at, and told."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_embryo import library
from napari_embryo.families import FAMILIES, NetworkSettings
from napari_embryo.recipes.files import IMAGENET, RANDOM
from napari_embryo.recipes.shapes import network_of, shape_code_path, with_shape_code
from napari_embryo.settings import Recipe

if TYPE_CHECKING:
    from napari_embryo.data import Found, Report, Split

GET_BACKBONE = (
    "torchvision's resnet50 as safetensors, made once on a computer with a network by: python -c \"from "
    "torchvision.models import resnet50; from safetensors.torch import save_file; "
    "save_file(resnet50(weights='IMAGENET1K_V2').state_dict(), 'resnet50.safetensors')\" "
    "(these are encoder: v1.5; He et al.'s own weights are encoder: v1)"
)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A recipe that can be run, and what was found for it.

    Parameters
    ----------
    recipe
        With the network and the preprocessing that the start brings.
    split, found, report
        The samples, what was skipped, and both as a table.
    notes
        What a user should know of the folders' layouts and of the start.
    """

    recipe: Recipe
    split: "Split"
    found: "Found"
    report: "Report"
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The report and the notes, to be read before training."""
        return "\n".join((self.report.text(), *self.notes))


def prepare(recipe: Recipe) -> Prepared:
    """Look at the start and the data: what will be learned from, validated on, skipped.

    Raises
    ------
    FileNotFoundError
        When the start, the backbone or a folder is not there.
    ValueError
        When no folder is named, or what is there does not suffice.
    """
    from napari_embryo import data
    from napari_embryo.data.layouts import layout_doubts

    started, notes = with_start(recipe)
    if not started.data.folders:
        raise ValueError(
            "the recipe names no folder of annotated pictures; name one with --data, or under data.folders"
        )
    of_cells = FAMILIES[started.model.family].needs_cells
    found = data.find_samples(started.data, started.model.classes, cells=of_cells)
    _check_something_is_drawn(found, started)
    kept = kept_by_start(started)
    split = data.split(found.samples, started.data, kept)
    report = data.report(found, split, () if of_cells else started.model.classes, started.data)
    doubts = layout_doubts(started.data, started.model.classes)
    return Prepared(started, split, found, report, (*doubts, *notes, *_flattered(split, kept)))


def _check_something_is_drawn(found: "Found", recipe: Recipe) -> None:
    """A network that tells a ratio learns from ratios and grades as well; others learn from drawn masks alone."""
    if FAMILIES[recipe.model.family].needs_cells:  # a picture without any is no sample
        return
    told = found.contents.values()
    regresses = recipe.model.tells_a_ratio
    if any(any(each.known) or (regresses and each.graded) for each in told):
        return
    also = " or from ratios and grades" if regresses else ", not from cells or grades alone"
    raise ValueError(
        f"{', '.join(recipe.data.folders)}: none of {', '.join(recipe.model.classes)} is drawn on any picture "
        f"there; {recipe.model.family} learns from drawn masks{also}"
    )


def kept_by_start(recipe: Recipe) -> dict[str, str]:
    """Digest of an embryo -> the part it had when the start was trained; empty where that is not told.

    What a shape code has learned from was learned from, too; where both know an embryo, the start's word goes.
    """
    kept = _kept_by(shape_code_path(recipe))
    if recipe.start in (RANDOM, IMAGENET):
        return kept
    return kept | _kept_by(library.find(recipe.start, recipe.model.family))


def _kept_by(weights: Path | None) -> dict[str, str]:
    from napari_embryo import data

    said = (library.header(weights) if weights else None) or {}
    told = said.get("provenance")
    return data.kept_parts(told) if isinstance(told, dict) else {}


def _flattered(split: "Split", kept: Mapping[str, str]) -> tuple[str, ...]:
    """Whether what judges was unknown to the start, too."""
    from napari_embryo import data

    judging = [data.digest(embryo) for embryo in {s.embryo for s in (*split.validation, *split.test)}]
    learned = sum(kept.get(each) == "train" for each in judging)
    aside = sum(kept.get(each) in ("validation", "test") for each in judging)
    if not learned + aside:
        return ()
    what = "validation and test" if split.test else "validation"
    flatter = f"; learned from by it: {learned}, whose scores flatter" if learned else ""
    return (f"{what} embryos that the start kept aside, too: {aside} of {len(judging)}{flatter}",)


def with_start(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with the network and the preprocessing that its start brings, and what is to be said of it."""
    started, notes = with_shape_code(*_with_weights(recipe))
    caveat = FAMILIES[started.model.family].caveat
    return started, (*notes, caveat) if caveat else notes


def _with_weights(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    if recipe.start == RANDOM:
        return recipe, (f"starts from random weights: {_described(recipe)}",)
    if recipe.start == IMAGENET:
        check_backbone(recipe)
        return recipe, (f"the encoder starts from {recipe.backbone}: {_described(recipe)}",)
    path = library.find(recipe.start, recipe.model.family)
    model, preprocessing = network_of(path)
    model, added = _with_additions(model, recipe.model)
    started = recipe.model_copy(update={"model": model, "preprocessing": preprocessing})
    said = f"starts from {recipe.start}: {_described(started)}"
    return started, (said, *added, *_other_family(recipe, started), *_overruled(recipe, started))


def _with_additions(model: NetworkSettings, asked: NetworkSettings) -> tuple[NetworkSettings, tuple[str, ...]]:
    """The start's network with what its family can add to trained weights, if the recipe asks for it."""
    if asked.family != model.family:
        return model, ()
    has, wanted = model.model_dump(), asked.model_dump()
    lacking = FAMILIES[model.family].additions
    added = {name: wanted[name] for name, nothing in lacking.items() if has[name] == nothing != wanted[name]}
    if not added:
        return model, ()
    grown = type(model).model_validate(has | added)
    return grown, (f"added to the start, beginning at zero: {', '.join(added)}",)


def check_backbone(recipe: Recipe) -> None:
    """Whether the file that start: imagenet needs is there.

    Raises
    ------
    ValueError
        When the network has no such encoder, or the recipe names no file.
    FileNotFoundError
        When there is no such file.
    """
    if not FAMILIES[recipe.model.family].has_imagenet_encoder:
        raise ValueError(
            f"start: imagenet was given with the family {recipe.model.family}, which has no such encoder; use start: "
            "random"
        )
    if not recipe.backbone:
        raise ValueError(f"start: imagenet needs an ImageNet ResNet-50 (backbone:, or --backbone FILE): {GET_BACKBONE}")
    if not Path(recipe.backbone).is_file():
        raise FileNotFoundError(f"{recipe.backbone}: no such backbone; needed is {GET_BACKBONE}")


def _described(recipe: Recipe) -> str:
    pre = recipe.preprocessing
    return f"{recipe.model.family} for {', '.join(recipe.model.classes)}, {pre.height} x {pre.width} {pre.fit}"


def _other_family(recipe: Recipe, started: Recipe) -> tuple[str, ...]:
    asked, family = recipe.model.family, started.model.family
    if family == asked:
        return ()
    return (f"these weights are of the family {family}: that is trained, not the recipe's {asked}",)


def _overruled(recipe: Recipe, started: Recipe) -> tuple[str, ...]:
    """What the recipe asks for, other than by default, and the start's own settings overrule."""
    lost = [
        f"{group}.{name}"
        for group, asked, taken in (
            ("model", recipe.model, started.model),
            ("preprocessing", recipe.preprocessing, started.preprocessing),
        )
        for name, field in type(asked).model_fields.items()
        if getattr(asked, name) not in (field.default, getattr(taken, name, None))
    ]
    return (f"not used, as the start brings its own: {', '.join(lost)}",) if lost else ()
