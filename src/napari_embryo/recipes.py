"""Recipes: whole training runs as YAML, read, checked against the data and run."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from napari_embryo import __version__, io, library
from napari_embryo.image import Progress
from napari_embryo.settings import MODEL_SETTINGS, ModelSettings, Preprocessing, Recipe

if TYPE_CHECKING:
    from torch import nn

    from napari_embryo.data import Found, Report, Split
    from napari_embryo.train import Outcome

SUFFIXES = (".yaml", ".yml")
IMAGENET = "imagenet"
RANDOM = "random"
_TRAINED = ("history.csv", "last.safetensors", "best.safetensors", "state.safetensors")
_FAMILIES: dict[str, type[BaseModel]] = {
    family.model_fields["family"].default: family for family in get_args(get_args(ModelSettings)[0])
}

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
        What a user should know of the start.
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


# --- files ----------------------------------------------------------------------------------------------------------


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
        said = yaml.safe_load(content)
    # PyYAML's constructors let the errors of int(), datetime() and a dict through.
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"{where}: not YAML ({' '.join(str(error).split())}); {_SEE_ONE}") from error
    if not isinstance(said, dict):
        message = f"{where}: {_short(said)} came; a recipe is a mapping of settings; {_SEE_ONE}"
        raise ValueError(message)  # noqa: TRY004 - the file is wrong, not the program
    return _validated(said, where)


_SEE_ONE = "see one with: napari-embryo recipes --show blastocyst-finetune"


def _validated(said: Mapping[Any, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(said)
    except ValidationError as error:
        raise ValueError("\n".join(f"{where}: {_in_words(problem)}" for problem in error.errors())) from error


def _in_words(problem: Mapping[str, Any]) -> str:
    """``training.epochs: 0 came; input should be greater than or equal to 1``."""
    loc = [part for part in problem["loc"] if part not in _FAMILIES]
    place = ".".join(map(str, loc))
    message = (problem["msg"][:1].lower() + problem["msg"][1:]).replace("valid tuple", "list")
    match problem["type"]:
        case "extra_forbidden":
            return f"{place}: there is no such setting; {_known(problem['loc'])}"
        case "value_error":
            return f"{place + ': ' if place else ''}{problem['ctx']['error']}"
        case "union_tag_not_found":
            return f"{place}.family: nothing came; needed is {' or '.join(_FAMILIES)}"
        case "union_tag_invalid":
            return f"{place}.family: {problem['ctx']['tag']!r} came; needed is {' or '.join(_FAMILIES)}"
    return f"{place}: {_short(problem['input'])} came; {message}"


def _known(loc: Sequence[Any]) -> str:
    """The settings beside an unknown one; the nearest first where one looks like it."""
    fields = list(_class_at(loc[:-1]).model_fields)
    near = get_close_matches(str(loc[-1]), fields, 1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(fields)}"


def _class_at(loc: Sequence[Any]) -> type[BaseModel]:
    found: type[BaseModel] = Recipe
    for part in loc:
        annotation = _FAMILIES.get(part) or found.model_fields[part].annotation
        found = annotation if isinstance(annotation, type) else found
    return found


def _short(value: Any, longest: int = 60) -> str:
    said = repr(value)
    return said if len(said) <= longest else f"{said[:longest]}..."


def _beside(recipe: Recipe, folder: Path) -> Recipe:
    """With its relative paths made absolute."""
    data = recipe.data.model_copy(
        update={
            "folders": tuple(_absolute(name, folder) for name in recipe.data.folders),
            "embryo_table": _absolute(recipe.data.embryo_table, folder),
        }
    )
    start = _absolute(recipe.start, folder) if _is_path(recipe.start) else recipe.start
    return recipe.model_copy(update={"data": data, "start": start, "backbone": _absolute(recipe.backbone, folder)})


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


# --- before training ------------------------------------------------------------------------------------------------


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

    started, notes = with_start(recipe)
    if not started.data.folders:
        raise ValueError(
            "the recipe names no folder of annotated pictures; name one with --data, or under data.folders"
        )
    found = data.find_samples(started.data, started.model.classes)
    _check_something_is_drawn(found, started)
    kept = kept_by_start(started)
    split = data.split(found.samples, started.data, kept)
    report = data.report(found, split, started.model.classes)
    return Prepared(started, split, found, report, (*notes, *_flattered(split, kept)))


def _check_something_is_drawn(found: "Found", recipe: Recipe) -> None:
    """Both families learn from masks only; one that learns from cells or grades stays out of this."""
    if not any(any(contents.known) for contents in found.contents.values()):
        raise ValueError(
            f"{', '.join(recipe.data.folders)}: none of {', '.join(recipe.model.classes)} is drawn on any picture "
            f"there; {recipe.model.family} learns from drawn masks, not from cells or grades alone"
        )


def kept_by_start(recipe: Recipe) -> dict[str, str]:
    """Digest of an embryo -> the part it had when the start was trained; empty where that is not told."""
    from napari_embryo import data

    if recipe.start in (RANDOM, IMAGENET):
        return {}
    said = library.header(library.find(recipe.start, recipe.model.family)) or {}
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
    flatter = f"; {learned} were learned from by it: their scores flatter" if learned else ""
    return (f"{aside} of {len(judging)} {what} embryos were kept aside by the start too{flatter}",)


def with_start(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with the network and the preprocessing that its start brings, and what is to be said of it."""
    if recipe.start == RANDOM:
        return recipe, (f"starts from random weights: {_described(recipe)}",)
    if recipe.start == IMAGENET:
        _check_backbone(recipe)
        return recipe, (f"the encoder starts from {recipe.backbone}: {_described(recipe)}",)
    path = library.find(recipe.start, recipe.model.family)
    model, preprocessing = _settings_of(path)
    started = recipe.model_copy(update={"model": model, "preprocessing": preprocessing})
    return started, (f"starts from {recipe.start}: {_described(started)}", *_overruled(recipe, started))


def _check_backbone(recipe: Recipe) -> None:
    if recipe.model.family != "resanet":
        raise ValueError(
            f"start: imagenet came with the family {recipe.model.family}, which has no such encoder; random"
        )
    if not recipe.backbone:
        raise ValueError(f"start: imagenet needs an ImageNet ResNet-50 (backbone:, or --backbone FILE): {GET_BACKBONE}")
    if not Path(recipe.backbone).is_file():
        raise FileNotFoundError(f"{recipe.backbone}: no such backbone; needed is {GET_BACKBONE}")


def _settings_of(path: Path) -> tuple[Any, Preprocessing]:
    """Of a checkpoint; without torch where the file is as it should be."""
    said = library.header(path) or {}
    try:
        return MODEL_SETTINGS.validate_python(said["model"]), Preprocessing.model_validate(said["preprocessing"])
    except (KeyError, ValidationError):
        from napari_embryo.models import checkpoint

        info = checkpoint.read_info(path)  # says what is wrong
        return info.model, info.preprocessing


def _described(recipe: Recipe) -> str:
    pre = recipe.preprocessing
    return f"{recipe.model.family} for {', '.join(recipe.model.classes)}, {pre.height} x {pre.width} {pre.fit}"


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


# --- training -------------------------------------------------------------------------------------------------------


def run(prepared: Prepared, out: Path, resume: bool = False) -> "Generator[Progress, None, Outcome]":
    """Train; yields what :func:`napari_embryo.train.train` yields and returns its outcome.

    ``out`` gets ``recipe.yaml``, ``split.csv`` and ``report.csv`` beside the checkpoints and the history.

    Parameters
    ----------
    prepared
        From :func:`prepare`.
    out
        Folder of this training; made if it is not there.
    resume
        Go on with the training in ``out``; begins anew where it was cut off before it had saved anything.

    Raises
    ------
    ValueError
        When ``out`` holds a training and ``resume`` is not asked for, or holds one of another recipe or other pictures.
    FileNotFoundError
        When there is no training to go on with.
    """
    from napari_embryo import train

    going_on = resume and not _is_hardly_begun(out)
    if not resume:
        _check_is_new(out)
    model, start = first_model(prepared.recipe)
    if not going_on:
        _write_papers(prepared, out)
    if resume and not going_on:
        yield Progress(0, 0, _NOTHING_TO_RESUME, _NOTHING_TO_RESUME)
    about, split = provenance(prepared, start), prepared.split
    return (yield from train.train(model, split.train, split.validation, prepared.recipe, out, going_on, about))


_NOTHING_TO_RESUME = "nothing was saved to go on from: this training begins anew"


def _is_hardly_begun(out: Path) -> bool:
    """Whether a training was cut off before it could save anything."""
    return (out / "recipe.yaml").is_file() and not any((out / name).exists() for name in _TRAINED)


def _check_is_new(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: a file stands there; name a folder")
    held = [name for name in _TRAINED if (out / name).exists()]
    if held:
        raise ValueError(
            f"{out}: holds a training already ({', '.join(held)}); go on with it by --resume, or name another folder"
        )


def _write_papers(prepared: Prepared, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    parts = [(part, getattr(prepared.split, part)) for part in ("train", "validation", "test")]
    rows = [
        {"part": part, "source": s.source, "embryo": s.embryo, "image": s.name} for part, side in parts for s in side
    ]
    io.write_csv_atomic(out / "split.csv", rows)
    io.write_csv_atomic(out / "report.csv", prepared.report.rows)
    write(out / "recipe.yaml", prepared.recipe)


def first_model(recipe: Recipe) -> "tuple[nn.Module, dict[str, str]]":
    """The network that training begins with, and where it comes from: ``weights`` and, of a file, its ``sha256``."""
    import torch

    from napari_embryo import models
    from napari_embryo.models import checkpoint

    if recipe.start not in (RANDOM, IMAGENET):
        loaded = checkpoint.load(recipe.start, recipe.model.family)
        return loaded.model, {"weights": _name_only(recipe.start), "sha256": loaded.sha256}
    torch.manual_seed(recipe.training.seed)
    model = models.build(recipe.model)
    if recipe.start == RANDOM:
        return model, {"weights": RANDOM}
    path = Path(recipe.backbone)
    _load_backbone(model, path)
    return model, {"weights": f"{IMAGENET}: {path.name}", "sha256": checkpoint.file_sha256(path)}


def _load_backbone(model: "nn.Module", path: Path) -> None:
    from safetensors import SafetensorError

    from napari_embryo.models.resanet import ResANet

    if not isinstance(model, ResANet):
        raise TypeError(f"{type(model).__name__} has no ImageNet encoder")
    try:
        model.encoder.load(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error}); needed is {GET_BACKBONE}") from error


def provenance(prepared: Prepared, start: Mapping[str, str]) -> dict[str, Any]:
    """What the checkpoint says of its training. Folders by name only, embryos by digest: both may name people."""
    from napari_embryo.data import digests

    recipe = prepared.recipe
    data = recipe.data.model_copy(
        update={
            "folders": tuple(Path(folder).name for folder in recipe.data.folders),
            "embryo_table": _name_only(recipe.data.embryo_table),
        }
    )
    told = recipe.model_copy(
        update={"data": data, "start": _name_only(recipe.start), "backbone": _name_only(recipe.backbone)}
    )
    return {
        "program": f"napari-embryo {__version__}",
        "recipe": told.model_dump(mode="json"),
        "data": [dict(row) for row in prepared.report.rows],
        "start": dict(start),
        "embryos": _inherited(digests(prepared.split), kept_by_start(recipe)),
    }


def _inherited(embryos: Mapping[str, list[str]], kept: Mapping[str, str]) -> dict[str, list[str]]:
    """With the embryos that only the start knows: what it learned from was learned from by these weights, too."""
    own = {each for side in embryos.values() for each in side}
    lacking = {each: part for each, part in kept.items() if each not in own}
    return {part: sorted([*side, *(e for e, p in lacking.items() if p == part)]) for part, side in embryos.items()}


def _name_only(path: str) -> str:
    return Path(path).name if path else ""
