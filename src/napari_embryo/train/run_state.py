"""The files of a run, written atomically, and the state from which it resumes exactly."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from napari_embryo import io
from napari_embryo.data import Sample, Truth
from napari_embryo.models import Network
from napari_embryo.notes import Note
from napari_embryo.settings import Augmentation, Recipe
from napari_embryo.stream import Epoch

STATE_KEY = "napari-embryo-training"
CONTENTS = "contents"
FORMAT = 3
_MAY_CHANGE = ("device", "devices", "workers", "patience", "epochs")
"""Training settings that may differ on another computer, or that only decide when to end."""
_NAMED = 3
"""How many changed images are named in a message."""


@dataclass
class Journal:
    """What a run remembers besides its tensors.

    Finished epochs, the part of a batch that fits in memory, notes, the float16 loss scale, the epochs requested.
    """

    history: list[Epoch] = field(default_factory=list)
    micro: int = 0
    notes: list[Note] = field(default_factory=list)
    scaler: dict[str, float] = field(default_factory=dict)
    planned: int = 0

    @property
    def epoch(self) -> int:
        """The last finished epoch; 0 at the start."""
        return self.history[-1].epoch if self.history else 0

    @property
    def best(self) -> Epoch | None:
        return next((epoch for epoch in reversed(self.history) if epoch.best), None)


@dataclass(frozen=True)
class Files:
    """Paths of a run's files."""

    folder: Path

    @property
    def best(self) -> Path:
        return self.folder / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.folder / "last.safetensors"

    @property
    def state(self) -> Path:
        return self.folder / "state.safetensors"

    @property
    def history(self) -> Path:
        return self.folder / "history.csv"


def tidy(files: Files) -> None:
    """Remove files that a killed run left half-written."""
    for path in (files.best, files.last, files.state, files.history):
        for draft in files.folder.glob(f".{path.name}.*.part"):
            draft.unlink(missing_ok=True)


@contextmanager
def writing(files: Files, epoch: int) -> Iterator[None]:
    """Explain which files remain if the disk is full or not writable."""
    try:
        files.folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{files.folder}: the weights of epoch {epoch} could not be saved ({error.strerror or error}); "
            "the files of the previous epoch are intact. Free some space or choose another folder, then resume",
        ) from error


def identity(model: Network, recipe: Recipe, training: Sequence[Sample], validation: Sequence[Sample]) -> Any:
    """What must be unchanged for a run to be resumed: network, samples and every setting that affects learning.

    Every image is read for it: its name does not show whether its annotation has changed.
    """
    described: Any = model.settings
    settings = recipe.training.model_dump(mode="json", exclude=set(_MAY_CHANGE))
    return {
        "model": described.model_dump(mode="json"),
        "preprocessing": recipe.preprocessing.model_dump(mode="json"),
        "augmentation": recipe.augmentation.model_dump(mode="json"),
        "training": settings,
        "training images": [f"{s.source}/{s.name}" for s in training],
        "validation images": [f"{s.source}/{s.name}" for s in validation],
        CONTENTS: _contents([*training, *validation]),
    }


def _contents(samples: Sequence[Sample]) -> dict[str, list[str]]:
    """Digests by name; several if folders of the same name hold samples of the same name."""
    digests: dict[str, list[str]] = {}
    for sample in dict.fromkeys(samples):
        digests.setdefault(f"{sample.source}/{sample.name}", []).append(digest(sample.read()))
    return {name: sorted(each) for name, each in digests.items()}


def digest(truth: Truth) -> str:
    """Digest of pixels and annotation, regardless of the file format."""
    whole = sha256()
    for array in (truth.image, truth.masks, truth.known, truth.cells, truth.visible):
        if array is not None:
            packed = np.packbits(array) if array.dtype == bool else np.ascontiguousarray(array)
            whole.update(f"{array.shape} {array.dtype}".encode())
            whole.update(packed.tobytes())
    whole.update(f"{truth.ratio} {truth.grade}".encode())
    return whole.hexdigest()[:16]


def sizes(files: Files, model: Network) -> dict[Path, int]:
    """Size in bytes of every large file of a run; Adam keeps two numbers per trained parameter."""
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    momentum = 2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)
    return {files.best: weights, files.last: weights, files.state: weights + momentum}


def save_history(files: Files, history: Sequence[Epoch]) -> None:
    """The history as a table, one row per epoch."""
    io.write_csv_atomic(files.history, [_row(epoch) for epoch in history])


def _row(epoch: Epoch) -> dict[str, Any]:
    return {
        "epoch": epoch.epoch,
        "learning_rate": epoch.learning_rate,
        **{f"train {name}": value for name, value in epoch.train.items()},
        **{f"validation {name}": value for name, value in epoch.validation.items()},
        **epoch.scores,
        "score": epoch.score,
        "best": int(epoch.best),
        "seconds": epoch.seconds,
    }


def save_state(
    files: Files, model: Network, optimizer: torch.optim.Optimizer, journal: Journal, same: Mapping[str, Any]
) -> None:
    """Save network, optimizer and journal in one file."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in values.items()}
    header = {"format": FORMAT, "identity": same, "journal": _plain(journal)}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with io.replacing(files.state, lasting=True) as draft:
        draft.write_bytes(to_bytes(plain, metadata={STATE_KEY: json.dumps(header)}))


def load_state(files: Files, model: Network, optimizer: torch.optim.Optimizer, same: Mapping[str, Any]) -> Journal:
    """Restore network and optimizer to where a run stopped, and return its journal.

    Raises
    ------
    FileNotFoundError
        If nothing was saved.
    ValueError
        If the file is incomplete, or belongs to a run with a different recipe or other samples; the message names the
        differences.
    """
    header = _header(files.state)
    _check_same(files, header["identity"], same)
    tensors = _tensors(files.state)
    model.load_state_dict({n.removeprefix("model/"): t for n, t in tensors.items() if n.startswith("model/")})
    _fill_optimizer(optimizer, {n: t for n, t in tensors.items() if n.startswith("optimizer/")})
    return _journal(header)


def read_journal(files: Files) -> Journal:
    """The journal of the run in a folder, without its tensors."""
    return _journal(_header(files.state))


def _journal(header: Mapping[str, Any]) -> Journal:
    kept = header["journal"]
    history = [Epoch.model_validate(epoch) for epoch in kept["history"]]
    return Journal(**{**kept, "history": history, "notes": [Note(**note) for note in kept["notes"]]})


def _plain(journal: Journal) -> dict[str, Any]:
    """What JSON can hold."""
    return {**asdict(journal), "history": [epoch.model_dump() for epoch in journal.history]}


def _header(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no training to resume; start one without --resume")
    with _whole(path) as file:
        header = (file.metadata() or {}).get(STATE_KEY)
    if header is None:
        raise ValueError(f"{path}: not a training state of napari-embryo; start again from last.safetensors")
    said: dict[str, Any] = json.loads(header)
    if said["format"] != FORMAT:
        raise ValueError(f"{path}: written by another version (format {said['format']}, needed {FORMAT}); start again")
    return said


def _tensors(path: Path) -> dict[str, Tensor]:
    with _whole(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no mapping


@contextmanager
def _whole(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path}: incomplete file ({error}); start again from last.safetensors") from error


def _fill_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Match the memory layout of the parameters, for which sums are bit-identical."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        _, index, key = name.split("/")
        like = parameters[int(index)]
        state.setdefault(int(index), {})[key] = (
            torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
        ).detach()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _check_same(files: Files, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Fill in augmentations that a later version added; an older run did not use them."""
    told = {**before, "augmentation": {**Augmentation().model_dump(mode="json"), **before["augmentation"]}}
    differences = [line for part in now for line in _differences(part, told.get(part), now[part])]
    if differences:
        raise ValueError(
            f"{files.state}: this is a different training ({'; '.join(differences)}); "
            "resume with its own recipe and images, or start a new one in another folder"
        )


def _differences(name: str, before: Any, now: Any) -> list[str]:
    if before == now:
        return []
    if name == CONTENTS:
        return _changed(before, now)
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            f"{name}.{key}: {before.get(key)!r} then, {now.get(key)!r} now"
            for key in {**before, **now}
            if before.get(key) != now.get(key)
        ]
    if isinstance(before, list) and isinstance(now, list):
        return [f"{name}: {_pictures(before, now)}"]
    return [f"{name}: {before!r} then, {now!r} now"]


def _changed(before: Mapping[str, list[str]], now: Mapping[str, list[str]]) -> list[str]:
    """Describe which images changed; added and removed ones show in their names."""
    names = [name for name in before if name in now and before[name] != now[name]]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [f"image or annotation changed since: {', '.join(names[:_NAMED])}{more}"] if names else []


def _pictures(before: Sequence[str], now: Sequence[str]) -> str:
    gone, new = sorted(set(before) - set(now)), sorted(set(now) - set(before))
    said = [f"{len(names)} {what}, such as {names[0]}" for names, what in ((gone, "gone"), (new, "new")) if names]
    return ", ".join(said) or f"{len(before)} visits then, {len(now)} now, or in a different order"
