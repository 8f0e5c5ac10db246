"""Checkpoints: settings and weights in one safetensors file, sufficient to rebuild the model.

Nothing is ever unpickled.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from napari_embryo import io, library, models, problems
from napari_embryo.families import DEFAULT, ModelSettings, Settings
from napari_embryo.library import BUNDLED, METADATA_KEY, bundled
from napari_embryo.settings import Preprocessing

__all__ = [
    "BUNDLED",
    "METADATA_KEY",
    "Checkpoint",
    "CheckpointError",
    "CheckpointInfo",
    "bundled",
    "file_sha256",
    "load",
    "read_info",
    "save",
]


class CheckpointError(ValueError):
    """A file that cannot be used as a checkpoint; the message says why and what to do."""


FORMAT = 1
"""Of the checkpoints that this version writes; a later one can only be read by a later version."""


class CheckpointInfo(Settings):
    """Description stored in a checkpoint.

    Parameters
    ----------
    model
        Settings that rebuild the network.
    preprocessing
        How images are prepared, the same in training and prediction.
    provenance
        Data, split, metrics and versions: what a model card needs.
    content_sha256
        Digest of all this and of all tensors, so that an altered file is refused.
    """

    format: int = FORMAT
    model: ModelSettings
    preprocessing: Preprocessing
    provenance: dict[str, Any] = Field(default_factory=dict)
    content_sha256: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A network ready for use, its description, and the sha256 of its file."""

    model: models.Network
    info: CheckpointInfo
    sha256: str


def save(path: Path, model: nn.Module, info: CheckpointInfo, half: bool = False) -> None:
    """Write a checkpoint atomically.

    Parameters
    ----------
    path
        Where to write; ends in ``.safetensors``.
    model
        Built from ``info.model``.
    info
        Settings, preprocessing and provenance; the digest is filled in here.
    half
        Store convolution and linear weights in half precision; batch normalization statistics, which would overflow,
        stay in single precision.
    """
    tensors = {name: _stored(tensor, half) for name, tensor in model.state_dict().items()}
    said = info.model_copy(update={"content_sha256": ""}).model_dump_json()
    whole = info.model_copy(update={"content_sha256": _digest(said, tensors)})
    path.parent.mkdir(parents=True, exist_ok=True)
    with io.replacing(path, lasting=True) as draft:
        # Not save_file, whose files only their owner can read.
        draft.write_bytes(to_bytes(tensors, metadata={METADATA_KEY: whole.model_dump_json()}))


def _stored(tensor: Tensor, half: bool) -> Tensor:
    stored = tensor.detach().cpu().contiguous()
    return stored.half() if half and stored.ndim >= 2 else stored


def _digest(said: str, tensors: Mapping[str, Tensor]) -> str:
    """Digest of the settings as written, without the digest itself; new settings of later versions do not matter."""
    digest = hashlib.sha256(said.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load(weights: str | Path = BUNDLED, family: str = DEFAULT) -> Checkpoint:
    """Rebuild the network in a checkpoint, in eval mode, on the CPU and in single precision.

    Parameters
    ----------
    weights
        ``"bundled"`` for the bundled weights, the name of a model in the library, or a path.
    family
        Family of the bundled weights; other weights state their own family.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CheckpointError
        If it is not a checkpoint of this program, or incomplete.
    """
    path = bundled(family) if str(weights) == BUNDLED else library.find(weights)
    info, tensors = _read(path)
    try:
        model = models.build(info.model)
        model.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})
    except RuntimeError as error:
        raise CheckpointError(f"{path}: its weights do not fit the network its settings describe ({error})") from error
    return Checkpoint(model.eval(), info, file_sha256(path))


def read_info(path: Path) -> CheckpointInfo:
    """Read a checkpoint's description without its weights."""
    return _header(path)


def _read(path: Path) -> tuple[CheckpointInfo, dict[str, Tensor]]:
    info = _header(path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no mapping
        said = file.metadata()[METADATA_KEY]
    if _digest(said.replace(info.content_sha256, ""), tensors) != info.content_sha256:
        raise CheckpointError(f"{path}: the file was altered after it was written (sha256 differs); copy it again")
    _check_finite(path, tensors)
    return info, tensors


def _check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise CheckpointError(
            f"{path}: {len(bad)} of its {len(tensors)} tensors hold values that are not finite (NaN or infinite), such "
            f"as {bad[0]}; the training failed. Use the checkpoint of an earlier epoch"
        )


def _header(path: Path) -> CheckpointInfo:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; choose an existing .safetensors file or 'bundled'")
    metadata = _metadata(path)
    if METADATA_KEY not in metadata:
        raise CheckpointError(
            f"{path}: a safetensors file of another program (no {METADATA_KEY!r} settings in its header); a checkpoint "
            "written by napari-embryo is needed"
        )
    said = metadata[METADATA_KEY]
    _refuse_later_versions(path, said)
    try:
        return CheckpointInfo.model_validate_json(said)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {problems.said(each)}" for each in error.errors())
        raise CheckpointError(
            f"{path}: this version does not understand its settings ({wrong}). If a later version wrote it, update "
            "napari-embryo"
        ) from error


def _metadata(path: Path) -> dict[str, str]:
    try:
        library.check_header(path)
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, ValueError) as error:
        _refuse_pickles(path)
        raise CheckpointError(
            f"{path}: incomplete or invalid safetensors file ({error}); copy or download it again"
        ) from error


def _refuse_later_versions(path: Path, said: str) -> None:
    """A later version may keep things elsewhere, so this is looked at before all the rest."""
    try:
        content = json.loads(said)
        written = int(content.get("format", FORMAT))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return  # the checks that follow say what is wrong
    if written > FORMAT:
        program = (content.get("provenance") or {}).get("program", "a later version of napari-embryo")
        raise CheckpointError(
            f"{path}: written by {program} in format {written}, but this version reads format {FORMAT}; update "
            "napari-embryo (pip install --upgrade napari-embryo)"
        )


def _refuse_pickles(path: Path) -> None:
    """For files that are not safetensors, whose header length might start with the same bytes."""
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] == b"PK" or start[:1] == b"\x80":
        raise CheckpointError(
            f"{path}: a PyTorch pickle, which can run arbitrary code when opened and is therefore refused; a "
            ".safetensors checkpoint written by napari-embryo is needed"
        )


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file; cached as long as the file is unchanged."""
    stat = path.stat()
    return _file_sha256(path, stat.st_mtime_ns, stat.st_size)


@cache
def _file_sha256(path: Path, mtime: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
