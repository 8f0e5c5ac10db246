"""Run a prepared recipe: build its network, write its files, and record its provenance."""

from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_embryo import __version__, io
from napari_embryo.families import NetworkSettings
from napari_embryo.image import Progress
from napari_embryo.notes import Note
from napari_embryo.recipes.files import IMAGENET, RANDOM, write
from napari_embryo.recipes.preparing import GET_BACKBONE, Prepared, Started
from napari_embryo.recipes.shapes import load_shape_code
from napari_embryo.settings import Recipe

if TYPE_CHECKING:
    from torch import nn

    from napari_embryo.models import Network
    from napari_embryo.models.checkpoint import Checkpoint
    from napari_embryo.stream import Finished

_TRAINED = ("history.csv", "last.safetensors", "best.safetensors", "state.safetensors")


def run(prepared: Prepared, out: Path, resume: bool = False) -> "Generator[Progress, None, Finished]":
    """Train; yield what :func:`napari_embryo.train.train` yields and return its outcome.

    ``out`` gets ``recipe.yaml``, ``split.csv`` and ``report.csv`` in addition to the checkpoints and the history.

    Parameters
    ----------
    prepared
        Result of :func:`prepare`.
    out
        Folder of this training run; created if needed.
    resume
        Resume the run in ``out``; starts over if it was interrupted before it had saved anything.

    Raises
    ------
    ValueError
        If ``out`` holds a run and ``resume`` is false, or a run with another recipe or other samples.
    FileNotFoundError
        If there is no run to resume.
    """
    from napari_embryo import train

    going_on = resume and not _is_hardly_begun(out)
    if not resume:
        check_is_new(out)
    model, start = first_model(prepared.started, prepared.usual_ratio)
    if not going_on:
        _write_papers(prepared, out)
    if resume and not going_on:
        yield Progress(0, 0, _NOTHING_TO_RESUME.text, _NOTHING_TO_RESUME)
    about, split = provenance(prepared, start), prepared.split
    steps = train.train(model, split.train, split.validation, prepared.recipe, out, going_on, about)
    return (yield from (_kept_up(steps, prepared.recipe, out) if going_on else steps))


def _kept_up(
    steps: "Generator[Progress, None, Finished]", recipe: Recipe, out: Path
) -> "Generator[Progress, None, Finished]":
    """Resume, and rewrite the recipe, some settings of which may change, once it is known to belong to this run."""
    with closing(steps):
        try:
            first = next(steps)
        except StopIteration as end:
            outcome: Finished = end.value
            return outcome
        write(out / "recipe.yaml", recipe)
        yield first
        return (yield from steps)


_NOTHING_TO_RESUME = Note("warning", "nothing was saved to resume from: this training starts from the beginning")


def _is_hardly_begun(out: Path) -> bool:
    """Whether a run was interrupted before it could save anything."""
    return (out / "recipe.yaml").is_file() and not any((out / name).exists() for name in _TRAINED)


def check_is_new(out: Path) -> None:
    """Check that a run can start in a folder.

    Raises
    ------
    ValueError
        If it already holds a run, or is not a folder.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: a file of that name exists; name a folder")
    held = [name for name in _TRAINED if (out / name).exists()]
    if held:
        raise ValueError(
            f"{out}: already holds a training run ({', '.join(held)}); resume it with --resume, or name another folder"
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


def first_model(started: Started, ratio: float | None = None) -> "tuple[Network, dict[str, str]]":
    """The initial network and its provenance: ``weights`` and, for a file, its ``sha256``.

    For a network with a named shape code also ``shape_code`` and ``shape_code_sha256``.

    Parameters
    ----------
    started
        Result of :func:`with_start`.
    ratio
        Initial answer of a new regression head (docs/decisions.md, "Start of the regression head").
    """
    import torch

    torch.manual_seed(started.recipe.training.seed)
    model, start = _with_weights(started, ratio)
    shape = {} if started.shape_code is None else load_shape_code(model, started.shape_code)
    return model, start | shape


def _with_weights(started: Started, ratio: float | None) -> "tuple[Network, dict[str, str]]":
    from napari_embryo import models
    from napari_embryo.models import checkpoint

    recipe = started.recipe
    if started.weights is not None:
        loaded = checkpoint.load(started.weights)
        model = loaded.model if recipe.model == loaded.info.model else _grown(loaded, recipe.model, ratio)
        return model, {"weights": _name_only(recipe.start), "sha256": loaded.sha256}
    model = models.build(recipe.model)
    _start_at(model, ratio)
    if recipe.start == RANDOM:
        return model, {"weights": RANDOM}
    path = Path(recipe.backbone)
    _load_backbone(model, path)
    return model, {"weights": f"{IMAGENET}: {path.name}", "sha256": checkpoint.file_sha256(path)}


def _grown(start: "Checkpoint", wanted: NetworkSettings, ratio: float | None) -> "Network":
    """A larger network with the starting weights, or the starting network itself if its family cannot grow."""
    from napari_embryo import models

    adopt = models.NETWORKS[wanted.family].adopt
    if adopt is None or wanted.family != start.info.model.family:
        return start.model
    model = models.build(wanted)
    if not start.info.model.tells_a_ratio:
        _start_at(model, ratio)
    adopt(model, start.model.state_dict())
    return model


def _start_at(model: "nn.Module", ratio: float | None) -> None:
    from napari_embryo.models.blocks import RegressionHead

    head = dict(model.named_children()).get("regression")
    if ratio is not None and isinstance(head, RegressionHead):
        head.start_at(ratio)


def _load_backbone(model: "nn.Module", path: Path) -> None:
    from safetensors import SafetensorError

    from napari_embryo.models.encoder import Encoder

    encoder = dict(model.named_children()).get("encoder")
    if not isinstance(encoder, Encoder):
        raise TypeError(f"{type(model).__name__} has no ImageNet encoder")
    try:
        encoder.load(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: incomplete or invalid safetensors file ({error}); use {GET_BACKBONE}") from error


def provenance(prepared: Prepared, start: Mapping[str, str]) -> dict[str, Any]:
    """Provenance for the checkpoint. Folders by name only and embryos by digest, since both may identify people."""
    from napari_embryo.data import digests

    recipe = prepared.recipe
    data = recipe.data.model_copy(
        update={
            "folders": tuple(Path(folder).name for folder in recipe.data.folders),
            "embryo_table": _name_only(recipe.data.embryo_table),
        }
    )
    named = {name: _name_only(getattr(recipe, name)) for name in ("start", "backbone", "shape_code")}
    told = recipe.model_copy(update={"data": data, **named})
    return {
        "program": f"napari-embryo {__version__}",
        "recipe": told.model_dump(mode="json"),
        "data": [dict(row) for row in prepared.report.rows],
        "start": dict(start),
        **({} if prepared.usual_ratio is None else {"usual_ratio": prepared.usual_ratio}),
        "embryos": _inherited(digests(prepared.split), prepared.parts_at_start),
    }


def _inherited(embryos: Mapping[str, list[str]], kept: Mapping[str, str]) -> dict[str, list[str]]:
    """Add the embryos known only to the starting weights: these weights have learned from them, too."""
    own = {each for side in embryos.values() for each in side}
    lacking = {each: part for each, part in kept.items() if each not in own}
    return {part: sorted([*side, *(e for e, p in lacking.items() if p == part)]) for part, side in embryos.items()}


def _name_only(path: str) -> str:
    return Path(path).name if path else ""
