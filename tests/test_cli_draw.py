"""``napari-embryo draw``: folders that training reads."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from napari_embryo import data
from napari_embryo.cli import app
from napari_embryo.families import BLASTOCYST_CLASSES, FRAGMENT_CLASSES
from napari_embryo.settings import DataSettings

KINDS = {"cleavage": FRAGMENT_CLASSES, "blastocyst": BLASTOCYST_CLASSES}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn_can_be_learned_from(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    told = ["draw", kind, "--out", str(out), "--count", "3", "--size", "96", "--seed", "5"]
    result = CliRunner().invoke(app, told)
    assert result.exit_code == 0, result.output
    found = data.find_samples(DataSettings(folders=(str(out),)), KINDS[kind])
    assert len(found.samples) == 3
    assert not found.skipped
    truths = [sample.read() for sample in found.samples]
    assert all(truth.image.shape == (96, 96) and truth.known.all() for truth in truths)
    assert all(len(truth.cells) >= 2 for truth in truths) == (kind == "cleavage")


def test_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    result = CliRunner().invoke(app, ["draw", "cleavage", "--out", str(tmp_path), "--count", "1", "--size", "64"])
    assert result.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("wrong", [["--count", "0"], ["--size", "10"], ["--seed", "-1"]], ids=" ".join)
def test_what_cannot_be_drawn_is_refused(wrong: list[str], tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    assert CliRunner().invoke(app, ["draw", "cleavage", "--out", str(out), *wrong]).exit_code == 2
    assert not out.exists()
