"""Long work does not stop the window, can be canceled, and says how it ended."""

import threading
import time
from itertools import pairwise

import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QTimer

from napari_embryo.image import Progress
from napari_embryo.widgets._worker import RunPanel, Steps


def steps(total: int, pause: float = 0.0) -> Steps[str]:
    for done in range(total):
        time.sleep(pause)
        yield Progress(done + 1, total, f"step {done}", threading.get_ident())
    return "ready"


def failing(error: Exception) -> Steps[str]:
    yield Progress(0, 1, "soon")
    raise error


def shown() -> list[str]:
    return [str(notification.message) for notification in notification_manager.records]


@pytest.fixture
def panel(qtbot) -> RunPanel:
    notification_manager.records.clear()
    made = RunPanel("Counting", lambda: None)
    qtbot.addWidget(made)
    return made


def run(panel: RunPanel, work, **kwargs) -> list[Progress]:
    """Start; the list fills with the steps."""
    came: list[Progress] = []
    panel.start(work, lambda progress: came.append((progress, threading.get_ident())), lambda result: f"All {result}.")
    return came


def test_steps_are_made_in_a_worker_and_shown_in_the_main_thread(qtbot, panel: RunPanel) -> None:
    came = run(panel, lambda: steps(3))
    assert panel.running
    assert not panel.run_button.isEnabled()
    qtbot.waitUntil(lambda: not panel.running)
    assert [progress.done for progress, _ in came] == [1, 2, 3]
    here = threading.get_ident()
    assert all(thread == here and progress.item != here for progress, thread in came)
    assert panel.status.text() == "All ready."
    assert panel.run_button.isEnabled()
    assert not panel.cancel_button.isEnabled()


def test_the_window_stays_alive(qtbot, panel: RunPanel) -> None:
    ticks: list[float] = []
    timer = QTimer(panel)
    timer.timeout.connect(lambda: ticks.append(time.monotonic()))
    timer.start(10)
    run(panel, lambda: steps(2, pause=0.5))
    qtbot.waitUntil(lambda: not panel.running)
    timer.stop()
    assert len(ticks) > 10
    assert max(b - a for a, b in pairwise(ticks)) < 0.4  # as little as the machine's other work allows


def test_canceling_ends_after_the_step_under_way(qtbot, panel: RunPanel) -> None:
    closed = threading.Event()

    def endless() -> Steps[str]:
        try:
            yield from steps(10_000, pause=0.01)
        finally:
            closed.set()
        return "never"

    came = run(panel, endless)
    qtbot.waitUntil(lambda: len(came) >= 2)
    panel.cancel_button.click()
    qtbot.waitUntil(lambda: not panel.running)
    assert closed.is_set()
    assert len(came) < 1000
    assert panel.status.text() == f"Canceled: {len(came)} of 10000 done and kept."


@pytest.mark.parametrize(
    "error",
    [
        ValueError("an odd picture came; an even one is needed"),
        FileNotFoundError("/no/weights: choose another file"),
        MemoryError("out of memory; close other programs"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_told_in_its_own_words(qtbot, panel: RunPanel, error: Exception) -> None:
    run(panel, lambda: failing(error))
    qtbot.waitUntil(lambda: not panel.running)
    assert panel.status.text() == f"Counting stopped: {error}"
    assert shown() == [f"Counting stopped: {error}"]


@pytest.mark.parametrize("error", [RuntimeError("expected 4 channels"), KeyError("logits")], ids=repr)
def test_a_mistake_of_the_program_is_told_once_with_its_name(qtbot, panel: RunPanel, error: Exception) -> None:
    """A RuntimeError too, at which superqt's worker falls silent for ever."""
    run(panel, lambda: failing(error))
    qtbot.waitUntil(lambda: not panel.running)
    assert len(shown()) == 1
    assert f"unexpected {type(error).__name__}" in shown()[0]
    assert "traceback" in panel.status.text()


def test_a_result_that_is_refused_is_an_error(qtbot, panel: RunPanel) -> None:
    def refuse(result: str) -> str:
        raise ValueError(f"{result} is no answer")

    panel.start(lambda: steps(1), lambda progress: None, refuse)
    qtbot.waitUntil(lambda: not panel.running)
    assert panel.status.text() == "Counting stopped: ready is no answer"


def test_a_step_that_cannot_be_shown_ends_the_work(qtbot, panel: RunPanel) -> None:
    def refuse(progress: Progress) -> None:
        raise ValueError("no room")

    panel.start(lambda: steps(10_000, pause=0.01), refuse, str)
    qtbot.waitUntil(lambda: not panel.running)
    assert panel.status.text() == "Counting stopped: no room"


def test_one_at_a_time(qtbot, panel: RunPanel) -> None:
    run(panel, lambda: steps(3, pause=0.05))
    with pytest.raises(ValueError, match="already running"):
        run(panel, lambda: steps(3))
    qtbot.waitUntil(lambda: not panel.running)
    assert panel.status.text() == "All ready."


def test_it_can_run_again(qtbot, panel: RunPanel) -> None:
    for error in (ValueError("no"), None):
        run(panel, (lambda: failing(ValueError("no"))) if error else (lambda: steps(2)))
        qtbot.waitUntil(lambda: not panel.running)
    assert panel.status.text() == "All ready."


def test_a_closed_panel_stops_its_work(qtbot) -> None:
    panel = RunPanel("Counting", lambda: None)
    ended = threading.Event()

    def endless() -> Steps[str]:
        try:
            yield from steps(10_000, pause=0.01)
        finally:
            ended.set()
        return "never"

    came = run(panel, endless)
    qtbot.waitUntil(lambda: len(came) >= 1)
    panel.deleteLater()
    del panel
    qtbot.waitUntil(ended.is_set)
    count = len(came)
    qtbot.wait(100)
    assert len(came) == count
