"""The shape code that a detector of silhouettes draws with: learned before, by a recipe of its own."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_embryo import library
from napari_embryo.recipes.files import IMAGENET, RANDOM
from napari_embryo.settings import MODEL_SETTINGS, Recipe, ShapeCodeSettings, VQAmodalSettings

if TYPE_CHECKING:
    from torch import nn

DETECTOR = "vqamodal"
"""Whose bundled weights hold the bundled shape code."""
TRAIN_ONE = (
    "train one with: napari-embryo train shapecode --data FOLDER --name my-shapes, and name it with --shape-code "
    "my-shapes (shape_code: in the recipe)"
)


def needs_shape_code(recipe: Recipe) -> bool:
    """Whether the network draws with a shape code."""
    return isinstance(recipe.model, VQAmodalSettings) and recipe.model.head == "vq"


def shape_code_path(recipe: Recipe) -> Path | None:
    """The file that the shape code comes from; None where there is none, or the start brings it.

    Raises
    ------
    FileNotFoundError
        When there is no such file, or none is named and none ships; says how to train one.
    """
    if not needs_shape_code(recipe) or (not recipe.shape_code and recipe.start not in (RANDOM, IMAGENET)):
        return None
    try:
        return library.find(recipe.shape_code or library.BUNDLED, DETECTOR)
    except FileNotFoundError as error:
        lacking = str(error) if recipe.shape_code else "no shape code is named, and none ships with this version"
        raise FileNotFoundError(f"shape_code: {lacking}; {TRAIN_ONE}") from error


def with_shape_code(recipe: Recipe, notes: tuple[str, ...]) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with the settings that its shape code brings, and what is to be said of it.

    Raises
    ------
    ValueError
        When the file is no shape code, or one of other sizes than the start's, whose head could not use it.
    FileNotFoundError
        As for :func:`shape_code_path`.
    """
    path = shape_code_path(recipe)
    if path is None or not isinstance(recipe.model, VQAmodalSettings):
        return recipe, notes
    shape, asked = _settings_of(path), recipe.model.shape
    if shape != asked and recipe.start not in (RANDOM, IMAGENET):
        raise ValueError(
            f"shape_code: {path.name} has {_described(shape)}, the start {_described(asked)}; leave shape_code empty, "
            "or start from imagenet"
        )
    model = recipe.model.model_copy(update={"shape": shape})
    said = f"draws with the shape code of {path.name}: {_described(shape)}"
    return recipe.model_copy(update={"model": model}), (*notes, said)


def _settings_of(path: Path) -> ShapeCodeSettings:
    """Of a shape code, or of a detector that has one."""
    try:
        settings = MODEL_SETTINGS.validate_python((library.header(path) or {})["model"])
    except (KeyError, ValidationError):
        from napari_embryo.models import checkpoint

        settings = checkpoint.read_info(path).model  # says what is wrong
    if isinstance(settings, ShapeCodeSettings):
        return settings
    if isinstance(settings, VQAmodalSettings) and settings.head == "vq":
        return settings.shape
    raise ValueError(f"shape_code: {path.name} is of the family {settings.family} and has no shape code; {TRAIN_ONE}")


def _described(shape: ShapeCodeSettings) -> str:
    return f"{shape.grid} x {shape.grid} of {shape.codes} codes on {shape.side} x {shape.side}"


def load_shape_code(model: "nn.Module", recipe: Recipe) -> dict[str, str]:
    """Put the weights into the network; what they are is told like the start: ``shape_code`` and its ``sha256``.

    Raises
    ------
    CheckpointError
        When the file is not whole.
    """
    path = shape_code_path(recipe)
    if path is None:
        return {}
    from napari_embryo.models import checkpoint

    loaded = checkpoint.load(path)
    source: Any = getattr(loaded.model, "shape", loaded.model)
    model.get_submodule("shape").load_state_dict(source.state_dict())
    return {"shape_code": path.name, "shape_code_sha256": loaded.sha256}
