"""A network that is quick enough for a test, and embryos that are small enough."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from napari_embryo.settings import SegmentSettings


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResA-Net with random weights and an input of 64 x 64 pixels."""
    import torch

    from napari_embryo import models
    from napari_embryo.families import ResANetSettings
    from napari_embryo.models import checkpoint
    from napari_embryo.models.checkpoint import CheckpointInfo
    from napari_embryo.settings import Preprocessing

    torch.manual_seed(0)
    settings = ResANetSettings()
    info = CheckpointInfo(model=settings, preprocessing=Preprocessing(height=64, width=64))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    model = models.build(settings)
    torch.nn.init.constant_(model.head.bias, 1.0)  # so that something is found
    checkpoint.save(path, model, info)
    return path


@pytest.fixture(scope="session")
def tiny_settings(tiny_weights: Path) -> SegmentSettings:
    """One picture at a time, so that a run can be canceled after each."""
    return SegmentSettings(weights=str(tiny_weights), device="cpu", batch_size=1, maps=("SA3", "LA1"))


@pytest.fixture(scope="session")
def pixels() -> npt.NDArray[np.uint8]:
    """(6, 48, 64): pictures that differ."""
    return np.random.default_rng(0).integers(0, 255, (6, 48, 64), np.uint8)
