"""The user's models: listed without torch, found by name, never overwritten."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import platformdirs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_embryo import library, models
from napari_embryo.families import UNetSettings
from napari_embryo.models import checkpoint
from napari_embryo.settings import Preprocessing

TINY = UNetSettings(base_channels=4)
PRE = Preprocessing(height=48, width=64)


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of its own, not made yet."""
    monkeypatch.setenv("NAPARI_EMBRYO_MODELS", str(tmp_path / "shelf"))
    return tmp_path / "shelf"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    info = checkpoint.CheckpointInfo(model=TINY, preprocessing=PRE, provenance={"program": "test"})
    checkpoint.save(path, models.build(TINY), info)
    return path


def test_an_empty_or_missing_library_lists_nothing(shelf: Path) -> None:
    assert library.in_library() == {}
    shelf.mkdir()
    assert library.in_library() == {}


def test_where_it_lies_when_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAPARI_EMBRYO_MODELS")
    assert library.library().is_relative_to(platformdirs.user_data_path())
    assert library.library().name == "models"


def test_a_name_that_is_taken_gets_a_number_and_nothing_is_overwritten(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"other")
    paths = [library.add_to_library(path, "clinic") for path in (trained, other, trained)]
    assert [path.name for path in paths] == [f"clinic{end}.safetensors" for end in ("", "-2", "-3")]
    assert [path.read_bytes() for path in paths] == [p.read_bytes() for p in (trained, other, trained)]
    assert library.in_library() == dict(zip(("clinic", "clinic-2", "clinic-3"), paths, strict=True))


def test_trainings_that_finish_together_get_a_name_each(trained: Path, shelf: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: library.add_to_library(trained, "same"), range(16)))
    assert len(set(paths)) == 16
    assert all(path.stat().st_size == trained.stat().st_size for path in paths)
    assert sorted(shelf.iterdir()) == sorted(paths)


@pytest.mark.parametrize("name", ["bundled", "Random", "imagenet"])
def test_other_starts_keep_their_name(trained: Path, name: str) -> None:
    assert library.add_to_library(trained, name).name == f"{name}-2.safetensors"


def test_a_copy_is_known_by_its_content(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    content = trained.read_bytes()
    other.write_bytes(content[:-1] + bytes((content[-1] ^ 1,)))
    assert library.copy_of(trained) is None
    library.add_to_library(other, "other")
    assert library.copy_of(trained) is None
    home = library.add_to_library(trained, "mine")
    assert library.copy_of(trained) == home


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\\b", "/a/b"])
def test_a_name_that_is_no_files_name_is_refused(trained: Path, shelf: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        library.add_to_library(trained, name)
    assert not shelf.exists()


def test_what_is_no_whole_model_is_not_listed(trained: Path, shelf: Path) -> None:
    library.add_to_library(trained, "good")
    (shelf / "taken.safetensors").touch()
    (shelf / ".draft.safetensors").write_bytes(b"half")
    (shelf / "notes.txt").write_text("mine")
    (shelf / "folder.safetensors").mkdir()
    assert list(library.in_library()) == ["good"]


def test_a_model_is_loaded_by_its_name(trained: Path) -> None:
    home = library.add_to_library(trained, "v1.2-clinic")
    loaded = checkpoint.load("v1.2-clinic")
    assert (loaded.info.model, loaded.sha256) == (TINY, checkpoint.file_sha256(home))
    assert checkpoint.load(home).sha256 == loaded.sha256


def test_an_unknown_name_is_answered_with_the_known_ones(trained: Path) -> None:
    library.add_to_library(trained, "mine")
    with pytest.raises(FileNotFoundError, match=r"yours: no such checkpoint.*'bundled', 'mine'"):
        checkpoint.load("yours")


def test_the_header_says_what_the_checkpoint_says(trained: Path) -> None:
    said = library.header(trained)
    assert said is not None
    assert checkpoint.CheckpointInfo.model_validate(said) == checkpoint.read_info(trained)


@given(st.binary(max_size=60))
def test_a_file_of_anything_has_no_header(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "anything"
    path.write_bytes(content)
    assert library.header(path) is None


def test_lists_of_models_and_recipes_need_no_torch() -> None:
    code = (
        "import json, sys, napari_embryo.library as l, napari_embryo.recipes as r, napari_embryo.stream\n"
        "l.in_library(); r.with_start(r.read('blastocyst-finetune'))\n"
        "print(json.dumps(sorted({'torch', 'napari', 'skimage'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
