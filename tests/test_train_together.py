"""Training beside others: cards that share a batch, a folder that only one training writes, a disk that has room."""

import csv
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from napari_embryo import cli, models, recipes, reproduce
from napari_embryo.data import Sample
from napari_embryo.families import BLASTOCYST_CLASSES, UNetSettings
from napari_embryo.settings import Preprocessing, Recipe, TrainSettings
from napari_embryo.synthetic import draw_blastocyst
from napari_embryo.train import launch, stopped, train
from napari_embryo.train.ddp import Team
from napari_embryo.train.run_folder import claimed

SECONDS = 240
"""That a slow computer may take for anything."""
TINY = UNetSettings(base_channels=4)


def drawn(seeds: Sequence[int]) -> list[Sample]:
    pictures = [(seed, draw_blastocyst(seed, (64, 64))) for seed in seeds]
    return [Sample.of(f"e{seed}", d.image, d.stack(BLASTOCYST_CLASSES)) for seed, d in pictures]


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return drawn(range(4))


def recipe(**training: Any) -> Recipe:
    chosen = {"epochs": 2, "batch_size": 2, "precision": "float32", "device": "cpu", **training}
    return Recipe(
        start="random",
        model=TINY,
        preprocessing=Preprocessing(height=32, width=32),
        training=TrainSettings.model_validate(chosen),
    )


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return models.build(TINY)


# --- cards that share a batch ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(8, 2), (3, 2), (7, 3), (4, 4), (1, 1)])
def test_a_batch_is_dealt_out_in_order_and_evenly(monkeypatch: pytest.MonkeyPatch, count: int, size: int) -> None:
    monkeypatch.setattr("torch.distributed.new_group", lambda **_: None)
    parts = [Team(rank, size).part(range(count)) for rank in range(size)]
    assert [i for part in parts for i in part] == list(range(count))
    assert {len(part) for part in parts} <= {count // size, -(-count // size)}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    data = reproduce.draw_embryos(folder / "drawn", 7, (64, 64))
    (folder / "tiny.yaml").write_text(
        "name: tiny\nstart: random\nmodel: {family: unet, base_channels: 4}\n"
        f"preprocessing: {{height: 32, width: 32}}\ndata: {{folders: ['{data}']}}\n"
        "training: {epochs: 2, batch_size: 3, device: cpu, precision: float32, learning_rate: 0.01,\n"
        "           frozen_batch_norm: true, schedule: constant}\n"
    )
    return folder / "tiny.yaml"


@pytest.mark.slow
def test_two_devices_learn_what_one_learns(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An uneven batch (two pictures and one), told once and written once."""
    monkeypatch.setenv("NAPARI_EMBRYO_MODELS", str(tmp_path / "shelf"))
    alone = CliRunner().invoke(cli.app, ["train", str(written), "--out", str(tmp_path / "1")])
    assert alone.exit_code == 0, alone.output
    words = [
        sys.executable,
        "-m",
        "napari_embryo",
        "train",
        str(written),
        "--out",
        str(tmp_path / "2"),
        "--devices",
        "2",
    ]
    done = subprocess.run(words, check=False, timeout=SECONDS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line[:7] for line in done.stdout.splitlines() if line.startswith("epoch")] == ["epoch 1", "epoch 2"]
    one, two = history(tmp_path / "1"), history(tmp_path / "2")
    assert len(one) == len(two) == 2
    for expected, found in zip(one, two, strict=True):
        assert found == pytest.approx(expected, abs=1e-4)
    # Far more was learned than is let pass.
    assert abs(one[1]["validation bce"] - one[0]["validation bce"]) > 1e-3
    assert names(tmp_path / "1") == names(tmp_path / "2")


def history(folder: Path) -> list[dict[str, float]]:
    with (folder / "history.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def broken(model: nn.Module, samples: list[Sample]) -> list[Sample]:
    """A picture that only one device has."""
    truth = samples[0].read()
    return [*samples[:2], Sample.of("dark", np.full(truth.image.shape, np.nan, np.float32), truth.masks)]


def diverged(model: nn.Module, samples: list[Sample]) -> list[Sample]:
    """A network that says no number of any picture."""
    nn.init.constant_(next(model.parameters()), float("nan"))
    return samples[:3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (broken, ValueError, "NaN or infinite pixels"),
        (diverged, FloatingPointError, r"that of e\d, e\d, e\d\. .*lower the learning rate"),
    ],
)
def test_what_fails_on_one_device_ends_the_training_on_all(
    samples: list[Sample], tmp_path: Path, spoil: Any, error: type[Exception], said: str
) -> None:
    model = tiny()
    asked = recipe(devices=2, frozen_batch_norm=True, batch_size=3)
    with pytest.raises(error, match=said):
        list(train(model, spoil(model, samples), [], asked, tmp_path))
    assert stopped(tmp_path).epochs == 0
    assert not torch.distributed.is_initialized()


CUDA = SimpleNamespace(type="cuda")


@pytest.mark.parametrize(
    ("settings", "cards", "said"),
    [
        ({"devices": 3, "batch_size": 2, "frozen_batch_norm": True}, None, "3 was given, but a batch has 2 images"),
        ({"devices": 2}, None, "cannot be shared.*frozen_batch_norm: true"),
        ({"devices": 2}, 1, "devices: 2 was given, but this computer has 1 of type 'cuda'; use 1 or fewer"),
    ],
)
def test_devices_that_cannot_share_are_refused(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any], cards: int | None, said: str,
) -> None:  # fmt: skip
    if cards is not None:
        monkeypatch.setattr(launch, "choose_device", lambda _: CUDA)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    with pytest.raises(ValueError, match=said):
        next(train(tiny(), samples, [], recipe(**settings), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_more_cards_than_there_are_are_refused_before_a_picture_is_read(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "choose_device", lambda _: CUDA)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(recipes, "prepare", lambda _: pytest.fail("pictures were read"))
    done = CliRunner().invoke(cli.app, ["train", str(written), "--out", str(tmp_path / "out"), "--devices", "4"])
    assert done.exit_code == 2
    assert "devices: 4 was given, but this computer has 2 of type 'cuda'" in done.output
    assert not (tmp_path / "out").exists()


# --- a folder that only one training writes -------------------------------------------------------------------------


def test_two_trainings_in_one_folder(samples: list[Sample], tmp_path: Path) -> None:
    """The second is refused while the first one runs; afterwards it is not, and nothing of the claim is left."""
    first = train(tiny(), samples, [], recipe(), tmp_path)
    next(first)
    for resume in (False, True):
        with pytest.raises(ValueError, match=f"a training is in progress there \\(process {os.getpid()} on "):
            next(train(tiny(), samples, [], recipe(), tmp_path, resume=resume))
    first.close()
    assert names(tmp_path) == ["best.safetensors", "last.safetensors", "state.safetensors"]
    assert len(list(train(tiny(), samples, [], recipe(), tmp_path, resume=True))) == 6


def hold(folder: Path, held: Connection) -> None:
    with claimed(folder):
        held.send(True)
        time.sleep(600)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[BaseProcess]:
    """A process that trains in the folder; forked where that can be, which spares it the import of torch."""
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    told, tells = context.Pipe(duplex=False)
    process = context.Process(target=hold, args=(tmp_path, tells), daemon=True)
    process.start()
    assert told.poll(SECONDS)
    yield process
    process.kill()
    process.join()


def test_a_training_that_was_killed_holds_nothing(samples: list[Sample], tmp_path: Path, holder: BaseProcess) -> None:
    with pytest.raises(ValueError, match=f"process {holder.pid} on "):
        next(train(tiny(), samples, [], recipe(), tmp_path))
    holder.kill()
    holder.join(SECONDS)
    assert len(list(train(tiny(), samples, [], recipe(), tmp_path))) == 6


# --- a disk that has room -------------------------------------------------------------------------------------------


def test_too_small_a_disk_is_refused_with_numbers(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as are needed suffice: what is written fits into what was asked for."""
    free = 1_000_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(OSError, match=r"1 MB are free, but the checkpoints need [2-9] MB; free") as caught:
        next(train(tiny(), samples, [], recipe(), tmp_path / "new" / "out"))
    assert not (tmp_path / "new").exists()
    needed = int(re.search(r"need (\d+) MB", str(caught.value))[1]) * 1_000_000  # type: ignore[index]
    free = needed + 1_000_000
    list(train(tiny(), samples, [], recipe(), tmp_path / "out"))
    whole = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert needed / 2 < whole < needed


def in_a_file(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file" / "out"


def unwritable(folder: Path) -> Path:
    folder.joinpath("out").mkdir(mode=0o500)
    return folder / "out"


@pytest.mark.parametrize(
    "place",
    [
        in_a_file,
        pytest.param(
            unwritable,
            marks=pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write anywhere"),
        ),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused_before_a_picture_is_read(
    samples: list[Sample], tmp_path: Path, place: Callable[[Path], Path]
) -> None:
    unread = Sample("e0", "e0", "memory", lambda: pytest.fail("it was read"))
    with pytest.raises(OSError, match=r"out: cannot write there \(.+\); name another folder"):
        next(train(tiny(), [unread], [], recipe(), place(tmp_path)))
