"""Completing a mask by the shape code in a checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_embryo import completion, models
from napari_embryo.families import NetworkSettings, ShapeCodeSettings, UNetSettings, VQAmodalSettings
from napari_embryo.models import checkpoint, shapecode
from napari_embryo.models.checkpoint import Checkpoint, CheckpointError, CheckpointInfo
from napari_embryo.settings import Preprocessing

MASK = np.hypot(*(np.mgrid[:40, :50] - np.array([20, 25])[:, None, None])) <= 11


def saved(path: Path, settings: NetworkSettings, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    info = CheckpointInfo(model=settings, preprocessing=Preprocessing(height=64, width=64))
    checkpoint.save(path, models.build(settings), info)
    return path


def loaded(settings: NetworkSettings) -> Checkpoint:
    """As from a file; a hundred million numbers need not be written for that."""
    info = CheckpointInfo(model=settings, preprocessing=Preprocessing(height=64, width=64))
    return Checkpoint(models.build(settings), info, "")


def test_completes_by_the_shape_code_of_the_weights(tmp_path: Path) -> None:
    path = saved(tmp_path / "own.safetensors", ShapeCodeSettings())
    code = checkpoint.load(path).model
    assert isinstance(code, shapecode.ShapeCode)
    found = completion.complete(MASK, str(path))
    np.testing.assert_array_equal(found, shapecode.complete(code, MASK))
    assert (found.shape, found.dtype) == (MASK.shape, np.float32)
    assert np.ptp(found) > 0


def test_other_weights_under_the_same_name_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    first = completion.complete(MASK, str(saved(path, ShapeCodeSettings(), seed=0)))
    second = completion.complete(MASK, str(saved(path, ShapeCodeSettings(), seed=1)))
    assert not np.array_equal(first, second)


def test_a_network_that_draws_with_a_shape_code_has_one() -> None:
    whole = loaded(VQAmodalSettings())
    assert completion.shape_code_of(whole, Path("own.safetensors")) is whole.model.get_submodule("shape")


@pytest.mark.parametrize("settings", [UNetSettings(base_channels=4), VQAmodalSettings(head="fcn")], ids=["unet", "fcn"])
def test_weights_without_a_shape_code_are_refused(settings: NetworkSettings) -> None:
    with pytest.raises(CheckpointError, match=r"other\.safetensors.*have no shape code"):
        completion.shape_code_of(loaded(settings), Path("other.safetensors"))


@pytest.mark.parametrize("mask", [np.zeros((8, 8), bool), np.ones((2, 8, 8), bool)], ids=["empty", "a film"])
def test_what_is_no_mask_of_a_cell_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="the mask of one cell is needed"):
        completion.complete(mask, "bundled")


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        completion.complete(MASK, str(tmp_path / "none.safetensors"))
