"""Trained models, bundled ones and the user's own, found by name and without torch.

The user's models are in one folder, one ``NAME.safetensors`` each, so that every list of models shows a newly trained
one without a restart.
"""

import filecmp
import json
import os
import shutil
from collections.abc import Iterator
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import platformdirs
from pydantic import ValidationError

from napari_embryo import settings
from napari_embryo.families import DEFAULT, NetworkSettings, network_settings
from napari_embryo.settings import RESERVED_NAMES, Preprocessing

BUNDLED = settings.BUNDLED
METADATA_KEY = "napari-embryo"
"""Key of the settings in the header of a checkpoint file."""
SUFFIX = ".safetensors"
_LONGEST_HEADER = 10_000_000
"""Largest header in bytes, so that no file fills the memory with its header; real ones have about ten thousand."""


def library() -> Path:
    """Folder of the user's models, or the one named by ``NAPARI_EMBRYO_MODELS``. It may not exist yet."""
    chosen = os.environ.get("NAPARI_EMBRYO_MODELS")
    return Path(chosen) if chosen else platformdirs.user_data_path("napari-embryo", appauthor=False) / "models"


def in_library() -> dict[str, Path]:
    """The user's models by name, in alphabetical order, without reading them."""
    found = (path for path in library().glob(f"*{SUFFIX}") if not path.name.startswith(".") and _is_whole(path))
    named = {path.name.removesuffix(SUFFIX): path for path in found}
    return dict(sorted(named.items(), key=lambda item: item[0].casefold()))


def _is_whole(path: Path) -> bool:
    """Whether a file is a model; an empty one is a name reserved by :func:`add_to_library`."""
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:  # removed since the folder was listed
        return False


def add_to_library(path: Path, name: str) -> Path:
    """Copy a checkpoint into the library as ``name``, or as ``name-2``, ``name-3``... if that is taken.

    Parameters
    ----------
    path
        A checkpoint.
    name
        Name of the model; ``bundled``, ``imagenet`` and ``random`` are reserved and become ``bundled-2``...

    Returns
    -------
    Path
        Path of the copy; no other model is ever overwritten.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If ``name`` is not a valid file name.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint to add to the library; choose an existing file")
    if not name or name.startswith(".") or Path(name).name != name or "\\" in name:
        raise ValueError(
            f"{name!r} was given as the name of a model, which must be a file name without a folder or a leading dot"
        )
    folder = library()
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{name}.{uuid4().hex[:8]}.part"
    try:
        shutil.copyfile(path, draft)
        with draft.open("r+b") as file:
            os.fsync(file.fileno())
        home = _claim(folder, name)
        draft.replace(home)
    finally:
        draft.unlink(missing_ok=True)
    return home


def copy_of(path: Path) -> Path | None:
    """The model in the library that is this file, if any."""
    size = path.stat().st_size
    same = (own for own in in_library().values() if own.stat().st_size == size)
    return next((own for own in same if filecmp.cmp(own, path, shallow=False)), None)


def _claim(folder: Path, name: str) -> Path:
    """Reserve the first free name with an empty file, so that concurrent trainings get different names."""
    for candidate in _candidates(folder, name):
        try:
            candidate.touch(exist_ok=False)
        except FileExistsError:
            continue
        return candidate
    raise FileExistsError(f"{folder}: no name is free for {name!r}")  # never: numbers do not end


def _candidates(folder: Path, name: str) -> Iterator[Path]:
    if name.casefold() not in RESERVED_NAMES:
        yield folder / f"{name}{SUFFIX}"
    yield from (folder / f"{name}-{number}{SUFFIX}" for number in count(2))


def find(weights: str | Path, family: str = DEFAULT) -> Path:
    """Find the file meant by ``weights``.

    Parameters
    ----------
    weights
        ``"bundled"``, the name of a model in the library, or a path, tried in this order.
    family
        Family of the bundled weights.

    Raises
    ------
    FileNotFoundError
        If there is none; the message lists the available models.
    """
    if str(weights) == BUNDLED:
        return bundled(family)
    own = in_library()
    path = own.get(str(weights), Path(weights))
    if not path.is_file():
        known = "".join(f", {name!r}" for name in own)
        raise FileNotFoundError(
            f"{weights}: no such checkpoint; choose an existing .safetensors file, 'bundled'{known or ''}"
            + ("" if own else " (you have not trained any models yet)")
        )
    return path


def bundled(family: str) -> Path:
    """Path of the bundled weights."""
    path = Path(str(resources.files("napari_embryo") / "weights" / f"{family}{SUFFIX}"))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: this version has no bundled weights of {family!r}; name a checkpoint file")
    return path


def header(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint's description without torch; None if it is incomplete or invalid.

    :func:`napari_embryo.models.checkpoint.read_info` says what is wrong with such a file.
    """
    try:
        size = check_header(path)
        with path.open("rb") as file:
            said = json.loads(file.read(8 + size)[8:])
        return dict(json.loads(said["__metadata__"][METADATA_KEY]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def check_header(path: Path) -> int:
    """Length of a safetensors file's header in bytes, before anything of it is read.

    Raises
    ------
    ValueError
        If the header is longer than that of any checkpoint, or than the file.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > min(_LONGEST_HEADER, max(0, path.stat().st_size - 8)):
        raise ValueError(f"its header would have {size} bytes, the file has {path.stat().st_size}")
    return size


def family_of(path: Path) -> str:
    """Read the name of a checkpoint's family without torch; empty if unknown."""
    said = (header(path) or {}).get("model")
    return str(said.get("family", "")) if isinstance(said, dict) else ""


def described(path: Path) -> tuple[NetworkSettings, Preprocessing] | None:
    """Read the settings of a checkpoint's network and preprocessing without torch; None if unknown."""
    said = header(path) or {}
    try:
        network: NetworkSettings = network_settings(said["model"])
        return network, Preprocessing.model_validate(said["preprocessing"])
    except (KeyError, ValidationError):
        return None
