"""Recipes as YAML: those that ship, those of the user; what is wrong with one in words."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from napari_embryo import __version__, io, library, problems
from napari_embryo.families import FAMILIES, NetworkSettings
from napari_embryo.recipes import yaml_text
from napari_embryo.settings import Recipe

SUFFIXES = (".yaml", ".yml")
IMAGENET = "imagenet"
RANDOM = "random"


def names() -> tuple[str, ...]:
    """The recipes that ship."""
    return tuple(sorted(path.name.removesuffix(".yaml") for path in _shipped().iterdir() if path.suffix == ".yaml"))


def _shipped() -> Path:
    return Path(str(resources.files("napari_embryo") / "recipe_files"))


def text(name: str) -> str:
    """The YAML of a recipe that ships, to be copied and changed."""
    if name not in names():
        raise FileNotFoundError(f"{name!r}: no recipe of this name ships; there are {', '.join(names())}")
    return (_shipped() / f"{name}.yaml").read_text(encoding="utf-8")


def read(path_or_name: str | Path) -> Recipe:
    """A recipe from a YAML file, or one that ships by its name.

    Relative paths in a file are relative to the file.

    Raises
    ------
    FileNotFoundError
        When there is no such file and no recipe of this name ships.
    ValueError
        When it is no recipe; names every setting that is wrong.
    """
    if str(path_or_name) in names():
        return parse(text(str(path_or_name)), str(path_or_name))
    path = Path(path_or_name)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such recipe; name a .yaml file, or one that ships: {', '.join(names())}")
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file in UTF-8 ({error}); a recipe is YAML") from error
    return _beside(parse(content, str(path)), path.absolute().parent)


def parse(content: str, where: str) -> Recipe:
    """The recipe in a YAML text; ``where`` begins every message."""
    try:
        given = yaml_text.load(content)
    except ValueError as error:
        raise ValueError(f"{where}: not YAML that can be read ({error}); {_SEE_ONE}") from error
    if not isinstance(given, dict):
        message = f"{where}: a recipe is a mapping of settings, not {problems.short(given)}; {_SEE_ONE}"
        raise ValueError(message)  # noqa: TRY004 - the file is wrong, not the program
    return _validated(given, where)


_SEE_ONE = "see one with: napari-embryo recipes --show blastocyst-finetune"


def _validated(given: Mapping[Any, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(given)
    except ValidationError as error:
        raise ValueError("\n".join(f"{where}: {_in_words(problem, given)}" for problem in error.errors())) from error


def _in_words(problem: Mapping[str, Any], given: Mapping[Any, Any]) -> str:
    """``training.epochs: 0 was given; a number of at least 1 is needed``."""
    place = ".".join(map(str, problem["loc"]))
    if problem["type"] in ("extra_forbidden", "invalid_key"):
        return f"{place}: {problems.said(problem)}; {_known(problem['loc'], given)}"
    return f"{place}: {problems.said(problem)}" if place else problems.said(problem)


def _known(loc: Sequence[Any], said: Mapping[Any, Any]) -> str:
    """The settings beside an unknown one; the most similar one alone if there is one."""
    fields = list(_class_at(loc[:-1], said).model_fields)
    near = get_close_matches(str(loc[-1]), fields, 1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(fields)}"


def _class_at(loc: Sequence[Any], said: Any) -> type[BaseModel]:
    found: type[BaseModel] = Recipe
    for part in loc:
        annotation: Any = found.model_fields[part].annotation
        said = said[part]
        if annotation is NetworkSettings:
            annotation = FAMILIES[said["family"]].settings
        found = annotation if isinstance(annotation, type) else found
    return found


def _beside(recipe: Recipe, folder: Path) -> Recipe:
    """With its relative paths made absolute."""
    data = recipe.data.model_copy(
        update={
            "folders": tuple(_absolute(name, folder) for name in recipe.data.folders),
            "embryo_table": _absolute(recipe.data.embryo_table, folder),
        }
    )
    weights = {
        name: _absolute(told, folder) if _is_path(told) else told
        for name, told in (("start", recipe.start), ("shape_code", recipe.shape_code))
    }
    return recipe.model_copy(update={"data": data, **weights, "backbone": _absolute(recipe.backbone, folder)})


def _absolute(name: str, folder: Path) -> str:
    return str(folder / Path(name).expanduser()) if name else ""


def _is_path(start: str) -> bool:
    """Other than a word or the name of a model in the library."""
    return start.endswith(library.SUFFIX) or "/" in start or "\\" in start


def write(path: Path, recipe: Recipe) -> Path:
    """Write every setting, also those left as they are, so that a later version with other defaults runs the same."""
    said = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    with io.replacing(path, lasting=True) as draft:
        draft.write_text(f"# Written by napari-embryo {__version__}.\n{said}", encoding="utf-8")
    return path


def changed(recipe: Recipe, settings: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """The recipe with other settings, by their dotted names, such as ``training.epochs``; checked like a file."""
    said = recipe.model_dump()
    for name, value in settings.items():
        *groups, last = name.split(".")
        place = said
        for group in groups:
            place = place[group]
        place[last] = value
    return _validated(said, where)
