"""Fixtures for every test: where real embryos and the ImageNet backbone lie, if they do."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

REPOSITORY = Path(__file__).parents[1]

os.environ["NAPARI_CONFIG"] = ""  # neither read nor write the settings of whoever runs the tests
if "PYTEST_XDIST_WORKER" in os.environ:
    for threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(threads, "1")  # the workers share the cores; before torch is imported


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout, where README, manifest and tox.ini are."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real embryos: the folder named by NAPARI_EMBRYO_DATA, else shared/data beside the checkout."""
    folder = Path(os.environ.get("NAPARI_EMBRYO_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real embryos in {folder}; set NAPARI_EMBRYO_DATA to a folder of them")
    return folder


@pytest.fixture(scope="session")
def imagenet_backbone(data_dir: Path) -> Path:
    """A ResNet-50 trained on ImageNet."""
    file = data_dir.parent / "weights" / "resnet50_imagenet.safetensors"
    if not file.is_file():
        pytest.skip(f"no ImageNet backbone at {file}")
    return file


@pytest.fixture(autouse=True)
def own_library(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees, or adds to, the models of whoever runs it."""
    # mktemp would look through the folders of all tests before.
    monkeypatch.setenv("NAPARI_EMBRYO_MODELS", str(tmp_path_factory.getbasetemp() / "libraries" / uuid4().hex))


@pytest.fixture(autouse=True)
def _as_many_threads_as_before() -> Iterator[None]:
    """A window, or a reader's test, can leave torch more threads than it had: trainings after it became slow."""
    threads = int(os.environ.get("OMP_NUM_THREADS", 0)) or _threads_of_torch()
    yield
    if threads and _threads_of_torch() not in (0, threads):
        sys.modules["torch"].set_num_threads(threads)


def _threads_of_torch() -> int:
    """0 where nobody has imported torch."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if hasattr(torch, "get_num_threads") else 0


@pytest.fixture(scope="module")
def shallow() -> Iterator[None]:
    """ResNet-50's strides and channels with one block in each stage, a third of the work; for what is built upon it."""
    from torchvision.models import ResNet
    from torchvision.models.resnet import Bottleneck

    from napari_embryo.models import encoder

    def of_single_blocks(weights: None, replace_stride_with_dilation: list[bool]) -> ResNet:
        return ResNet(Bottleneck, [1, 1, 1, 1], replace_stride_with_dilation=replace_stride_with_dilation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "resnet50", of_single_blocks)
        yield


@pytest.fixture
def deep(monkeypatch: pytest.MonkeyPatch) -> None:
    """ResNet-50 as it is, in a module of tests that use `shallow`."""
    from torchvision.models import resnet50

    from napari_embryo.models import encoder

    monkeypatch.setattr(encoder, "resnet50", resnet50)
