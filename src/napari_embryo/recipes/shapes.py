"""The shape code of a detector of silhouettes, trained beforehand with a separate recipe."""

from pathlib import Path
from typing import TYPE_CHECKING

from napari_embryo import library
from napari_embryo.families import FAMILIES, NetworkSettings
from napari_embryo.notes import Note
from napari_embryo.recipes.files import IMAGENET, RANDOM
from napari_embryo.settings import Preprocessing, Recipe

if TYPE_CHECKING:
    from napari_embryo.models import Network

_RECIPE = next(recipe for family in FAMILIES.values() if family.is_shape_code for recipe in family.recipes.values())
TRAIN_ONE = (
    f"train one with: napari-embryo train {_RECIPE} --data FOLDER --name my-shapes, and name it with --shape-code "
    "my-shapes (shape_code: in the recipe)"
)


def needs_shape_code(recipe: Recipe) -> bool:
    """Whether the network uses a shape code."""
    return recipe.model.shape_code is not None


def shape_code_path(recipe: Recipe) -> Path | None:
    """File of the shape code; None if there is none, or the starting weights contain it.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or none is named and none is bundled; the message says how to train one.
    """
    if not needs_shape_code(recipe) or (not recipe.shape_code and recipe.start not in (RANDOM, IMAGENET)):
        return None
    try:
        return library.find(recipe.shape_code or library.BUNDLED, recipe.model.family)
    except FileNotFoundError as error:
        lacking = str(error) if recipe.shape_code else "no shape code is named, and this version has no bundled one"
        raise FileNotFoundError(f"shape_code: {lacking}; {TRAIN_ONE}") from error


def with_shape_code(recipe: Recipe, path: Path) -> tuple[Recipe, Note]:
    """The recipe with the settings of the shape code in a file, and a note about it.

    Raises
    ------
    ValueError
        If the file is not a shape code, or its sizes differ from those of the starting weights, whose head could not
        use it.
    """
    shape, asked = _settings_of(path), recipe.model.shape_code
    if shape != asked and recipe.start not in (RANDOM, IMAGENET):
        raise ValueError(
            f"shape_code: {path.name} has {shape}, but the starting weights need {asked}; leave shape_code empty, or "
            "start from imagenet"
        )
    model = recipe.model.with_shape_code(shape)
    return recipe.model_copy(update={"model": model}), Note("info", f"uses the shape code of {path.name}: {shape}")


def _settings_of(path: Path) -> NetworkSettings:
    """Settings of a shape code, or of the one within a network."""
    model, _ = network_of(path)
    shape = model if FAMILIES[model.family].is_shape_code else model.shape_code
    if shape is None:
        raise ValueError(f"shape_code: {path.name} is of the family {model.family} and has no shape code; {TRAIN_ONE}")
    return shape


def network_of(path: Path) -> tuple[NetworkSettings, Preprocessing]:
    """Settings of a checkpoint's network and preprocessing, without torch if the file is valid.

    Raises
    ------
    CheckpointError
        If it is not; the message says what is wrong.
    """
    if (said := library.described(path)) is not None:
        return said
    from napari_embryo.models import checkpoint

    info = checkpoint.read_info(path)
    return info.model, info.preprocessing


def load_shape_code(model: "Network", path: Path) -> dict[str, str]:
    """Load the weights of a shape code into the network and return their provenance: ``shape_code`` and its ``sha256``.

    Raises
    ------
    CheckpointError
        If the file is incomplete.
    """
    from napari_embryo.models import checkpoint

    loaded = checkpoint.load(path)
    own, learned = model.shape_code(), loaded.model.shape_code()
    if own is not None and learned is not None:
        own.load_state_dict(learned.state_dict())
    return {"shape_code": path.name, "shape_code_sha256": loaded.sha256}
