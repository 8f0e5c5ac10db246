"""The Batch widget: a folder is planned, run, canceled and resumed; the table stays quick with many rows."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import Qt

from napari_embryo import batch
from napari_embryo.batch import Job, Outcome, Plan, Problem
from napari_embryo.settings import BatchSettings
from napari_embryo.widgets._batch_table import BatchTable
from napari_embryo.widgets.batch import RESULTS, BatchWidget, rate_said


def folder_of(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (48, 64), np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def widget(make_viewer: Callable[..., Any]) -> BatchWidget:
    viewer = make_viewer()
    made = BatchWidget(viewer)
    viewer.window.add_dock_widget(made, name="Batch")
    return made


@pytest.fixture
def ready(widget: BatchWidget, tmp_path: Path, tiny_weights: Path, qtbot: Any, monkeypatch: Any) -> BatchWidget:
    """Four pictures and one that is broken are listed; they will be computed in this process."""
    monkeypatch.setattr(batch, "local", lambda *_: batch.Inline())
    folder = folder_of(tmp_path / "in", 4)
    (folder / "broken.png").write_text("no picture")
    widget.weights.value, widget.device.value = str(tiny_weights), "cpu"
    widget.source.value = str(folder)
    widget.look()
    qtbot.waitUntil(lambda: widget.table.rowCount() == 5)
    return widget


def cells(widget: BatchWidget, column: int) -> list[str]:
    return [widget.table.data(widget.table.index(row, column)) for row in range(widget.table.rowCount())]


def ended(widget: BatchWidget, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: not widget.panel.running, timeout=30000)
    qtbot.waitUntil(lambda: not widget._jobs)


def test_the_plan_is_shown_before_anything_is_done(ready: BatchWidget, tmp_path: Path) -> None:
    assert ready.out.value == str(tmp_path / "in" / RESULTS)
    assert cells(ready, 0) == ["to do"] * 5
    assert cells(ready, 1) == ["0", "1", "2", "3", "broken"]
    assert "5 images" in ready.said.text()
    assert ready.panel.run_button.text() == "Start"
    assert not (tmp_path / "in" / RESULTS).exists()


def test_a_run_its_failures_and_the_next_visit(ready: BatchWidget, tmp_path: Path, qtbot: Any) -> None:
    ready.start()
    ended(ready, qtbot)
    assert cells(ready, 0) == ["done"] * 4 + ["failed"]
    assert "damaged" in cells(ready, 2)[4]
    assert "4 done, 1 failed" in ready.panel.status.text()
    assert ready.retry_button.isEnabled()
    assert ready.sheet_button.isEnabled()
    (tmp_path / "in" / "broken.png").write_bytes((tmp_path / "in" / "1.png").read_bytes())
    ready.start("failed")
    ended(ready, qtbot)
    assert cells(ready, 0) == ["done"] * 5
    ready.look()
    qtbot.waitUntil(lambda: "in an earlier run" in cells(ready, 2)[0])


def test_canceled_and_resumed(ready: BatchWidget, qtbot: Any) -> None:
    ready.start()
    qtbot.waitUntil(lambda: ready.table.count("done") > 0, timeout=30000)
    ready.cancel()
    ended(ready, qtbot)
    if ready.table.count("to do"):  # it may have been too quick
        assert "Resume continues with them" in ready.panel.status.text()
        assert ready.panel.run_button.text() == "Resume"
    ready.start()
    ended(ready, qtbot)
    assert ready.table.count("done") == 4


def test_original_and_result_side_by_side(ready: BatchWidget, qtbot: Any) -> None:
    ready.start()
    ended(ready, qtbot)
    for row in (0, 1):
        ready.compare(ready.table.index(row, 1))
        qtbot.waitUntil(lambda row=row: [layer.name for layer in ready._viewer.layers][1:] == [f"{row} (result)"])
    original, result = ready._viewer.layers
    assert original.data.shape == (48, 64)
    assert result.translate[-1] > 64


def test_a_folder_without_images_is_said(widget: BatchWidget, tmp_path: Path, qtbot: Any) -> None:
    widget.source.value = str(tmp_path)
    widget.look()
    qtbot.waitUntil(lambda: "no image in this folder" in widget.said.text())
    assert not widget.panel.run_button.isEnabled()


def test_ten_thousand_rows(tmp_path: Path) -> None:
    """Outcomes are taken in far faster than images can be done."""
    jobs = tuple(Job(str(tmp_path), (f"{i}.png",), str(i)) for i in range(10_000))
    table = BatchTable()
    table.show_plan(Plan(jobs, (), (), (), tmp_path, BatchSettings(), (tmp_path,)), {})
    start = time.perf_counter()
    for job in jobs:
        table.take(Outcome(job.name, doubt=0.5))
    assert time.perf_counter() - start < 5
    table.take(Outcome("7", failures=(Problem("7.png", "reading", "cut short"),)))
    index = table.index(7, 0)
    assert (table.data(index), table.rowCount()) == ("failed", 10_000)
    assert "cut short" in table.data(index, Qt.ItemDataRole.ToolTipRole)


@pytest.mark.parametrize(
    ("done", "total", "seconds", "said"),
    [
        (0, 9, 5, "loading the network …"),
        (30, 120, 60, "0.5 images/s, 3 min left"),
        (10, 20, 10, "1 images/s, 10 s left"),
        (1, 10_000, 2, "0.5 images/s, 5.6 h left"),
    ],
)
def test_rate_and_time_left(done: int, total: int, seconds: float, said: str) -> None:
    assert rate_said(done, total, seconds) == said
