"""Read and write recipes as YAML, bundled ones and the user's; explain what is wrong with an invalid one."""

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
    """Names of the bundled recipes."""
    return tuple(sorted(path.name.removesuffix(".yaml") for path in _shipped().iterdir() if path.suffix == ".yaml"))


def _shipped() -> Path:
    return Path(str(resources.files("napari_embryo") / "recipe_files"))


def text(name: str) -> str:
    """The YAML of a bundled recipe, to be copied and changed."""
    if name not in names():
        raise FileNotFoundError(f"{name!r}: no bundled recipe has this name; choose one of {', '.join(names())}")
    return (_shipped() / f"{name}.yaml").read_text(encoding="utf-8")


def read(path_or_name: str | Path) -> Recipe:
    """Read a recipe from a YAML file, or a bundled one by its name.

    Relative paths in a file are relative to that file.

    Raises
    ------
    FileNotFoundError
        If there is no such file and no bundled recipe of this name.
    ValueError
        If it is not a valid recipe; the message lists every setting that is wrong.
    """
    if str(path_or_name) in names():
        return parse(text(str(path_or_name)), str(path_or_name))
    path = Path(path_or_name)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such recipe; name a .yaml file or a bundled recipe: {', '.join(names())}")
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file in UTF-8 ({error}); a recipe is YAML") from error
    return _beside(parse(content, str(path)), path.absolute().parent)


def parse(content: str, where: str) -> Recipe:
    """Parse the recipe in a YAML text; every error message starts with ``where``."""
    try:
        given = yaml_text.load(content)
    except ValueError as error:
        raise ValueError(f"{where}: not YAML that can be read ({error}); {_SEE_ONE}") from error
    if not isinstance(given, dict):
        message = f"{where}: a recipe is a mapping of settings, not {problems.short(given)}; {_SEE_ONE}"
        raise ValueError(message)  # noqa: TRY004 - the file is wrong, not the program
    return _validated(given, where)


_SEE_ONE = "for an example, run: napari-embryo recipes --show blastocyst-finetune"


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
    """Suggest the setting most similar to an unknown one, or list all."""
    fields = list(_class_at(loc[:-1], said).model_fields)
    near = get_close_matches(str(loc[-1]), fields, 1)
    return f"did you mean {near[0]}?" if near else f"available are {', '.join(fields)}"


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
    """The recipe with absolute paths instead of paths relative to ``folder``."""
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
    """Whether it is a path, rather than a keyword or the name of a model in the library."""
    return start.endswith(library.SUFFIX) or "/" in start or "\\" in start


def write(path: Path, recipe: Recipe) -> Path:
    """Write every setting, including defaults, so that a later version with other defaults runs the same training."""
    said = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    with io.replacing(path, lasting=True) as draft:
        draft.write_text(f"# Written by napari-embryo {__version__}.\n{said}", encoding="utf-8")
    return path


def changed(recipe: Recipe, settings: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """The recipe with changed settings, given by dotted names such as ``training.epochs``; checked like a file."""
    said = recipe.model_dump()
    for name, value in settings.items():
        *groups, last = name.split(".")
        place = said
        for group in groups:
            place = place[group]
        place[last] = value
    return _validated(said, where)
