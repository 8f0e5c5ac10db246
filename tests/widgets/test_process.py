"""A process that trains is listened to, told what to do, and never left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from napari_embryo import stream
from napari_embryo.image import Progress
from napari_embryo.notes import Note
from napari_embryo.widgets._train_process import Child, Clock, command, lasting, said
from napari_embryo.widgets._worker import Steps

STEP = stream.Step(done=1, total=10, epoch=1, losses={"dice": 0.5, "edge": 0.25}, learning_rate=1e-3, seconds=0.1)
EPOCH = stream.Epoch(
    done=5, total=10, epoch=1, train={"dice": 0.5}, validation={"dice": 0.6}, scores={"IoU ICM": 0.7},
    learning_rate=1e-3, seconds=1.0, best=True,
)  # fmt: skip
FINISHED = stream.Finished(epochs=1, best_epoch=1, best=Path("b"), last=Path("l"), reason="finished", added=Path("a"))

OBEDIENT = """
import sys, threading, time
from napari_embryo import stream
stopped, paused = threading.Event(), threading.Event()

def listen():
    for line in sys.stdin:
        print(line.strip(), file=sys.stderr, flush=True)
        {"pause": paused.set, "resume": paused.clear, "stop": stopped.set}[line.strip()]()
    stopped.set()

def tell(event):
    print(stream.encode(event), flush=True)

threading.Thread(target=listen, daemon=True).start()
done = 0
while not stopped.wait(0.02):
    if paused.is_set():
        tell(stream.Paused())
        while paused.is_set() and not stopped.wait(0.01):
            pass
        tell(stream.Resumed())
    done += 1
    tell(stream.Step(done=done, total=10_000, epoch=1, losses={"dice": 1.0}, learning_rate=1.0, seconds=0.0))
tell(stream.Finished(epochs=1, best_epoch=1, reason="stopped"))
"""


def saying(*lines: str, code: int = 0, errors: str = "") -> tuple[str, ...]:
    """A process that says these lines and ends."""
    script = f"import sys; print({chr(10).join(lines)!r}); sys.stderr.write({errors!r}); sys.exit({code})"
    return (sys.executable, "-c", script)


def drained(child: Child, words: tuple[str, ...]) -> tuple[list[Progress], stream.Finished]:
    return rest_of(child.events(words))


def rest_of(steps: Steps[stream.Finished]) -> tuple[list[Progress], stream.Finished]:
    came = []
    while True:
        try:
            came.append(next(steps))
        except StopIteration as end:
            return came, end.value


def test_events_come_as_progress_and_the_last_one_is_returned() -> None:
    told = (STEP, stream.Noted(note=Note("warning", "smaller batches")), EPOCH, FINISHED)
    came, finished = drained(Child(), saying(*map(stream.encode, told)))
    assert [(step.done, step.total, step.item) for step in came] == [(1, 10, STEP), (1, 10, told[1]), (5, 10, EPOCH)]
    assert finished == FINISHED


def test_a_library_s_own_words_are_passed_over() -> None:
    came, finished = drained(Child(), saying("Downloading …", stream.encode(STEP), "", stream.encode(FINISHED)))
    assert [step.item for step in came] == [STEP]
    assert finished == FINISHED


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (STEP, "epoch 1, loss 0.75"),
        (EPOCH, "epoch 1, validation loss 0.6"),
        (stream.Noted(note=Note("warning", "out of memory")), "out of memory"),
        (stream.Paused(), "paused"),
    ],
)
def test_an_event_in_words(event: stream.Event, words: str) -> None:
    assert words in said(event)


@pytest.mark.parametrize(("seconds", "words"), [(40.2, "40 s"), (700, "12 min"), (5399, "90 min"), (12600, "3.5 h")])
def test_a_time_in_words(seconds: float, words: str) -> None:
    assert lasting(seconds) == words


def test_the_time_that_is_left_comes_from_the_steps_of_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 102.0, 104.0])
    monkeypatch.setattr("napari_embryo.widgets._train_process.time.monotonic", lambda: next(now))
    clock = Clock()
    assert [clock.tick(done, 12) for done in (1, 2, 3)] == ["", ", about 20 s left", ", about 18 s left"]


def test_the_reason_it_gives_is_the_error() -> None:
    with pytest.raises(ValueError, match=r"^no folder of pictures$"):
        drained(Child(), saying(stream.encode(stream.Error(message="no folder of pictures")), code=1))


@pytest.mark.parametrize("code", [0, 1, 139])
def test_a_process_that_dies_is_told_with_its_last_words(code: int) -> None:
    errors = "\n".join(f"line {n}" for n in range(100)) + "\nRuntimeError: CUDA went away\n"
    with pytest.raises(ChildProcessError, match=rf"code {code}.*\n[\s\S]*CUDA went away") as caught:
        drained(Child(), saying(stream.encode(STEP), code=code, errors=errors))
    assert "line 99" in str(caught.value)
    assert "line 50" not in str(caught.value)


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        drained(Child(), ("/no-such-program",))


@pytest.fixture
def obedient() -> tuple[str, ...]:
    return (sys.executable, "-c", OBEDIENT)


def test_pause_resume_stop(obedient: tuple[str, ...]) -> None:
    child = Child()
    steps = child.events(obedient)
    next(steps)
    child.pause()
    while not isinstance(next(steps).item, stream.Paused):
        pass
    child.resume()
    assert isinstance(next(steps).item, stream.Resumed)
    assert isinstance(next(steps).item, stream.Step)
    child.stop()
    assert rest_of(steps)[1].reason == "stopped"


def test_stop_before_it_has_started_is_not_lost(obedient: tuple[str, ...]) -> None:
    child = Child()
    child.stop()
    came, finished = drained(child, obedient)
    assert finished.reason == "stopped"
    assert len(came) < 100


@pytest.mark.parametrize("how", ["closed", "generator closed"])
def test_it_ends_when_nobody_listens_any_more(obedient: tuple[str, ...], how: str) -> None:
    child = Child()
    steps = child.events(obedient)
    next(steps)
    process = child._process
    assert process is not None
    child.close() if how == "closed" else steps.close()
    assert process.wait(10) == 0


def test_it_ends_at_once_when_nobody_listened_from_the_start(obedient: tuple[str, ...]) -> None:
    child = Child()
    child.close()
    came, finished = drained(child, obedient)
    assert finished.reason == "stopped"
    assert len(came) < 100


def test_one_that_does_not_listen_is_ended_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_embryo.widgets._train_process.GRACE", 0.1)
    child = Child()
    deaf = f"import time; print({stream.encode(STEP)!r}, flush=True); time.sleep(60)"
    steps = child.events((sys.executable, "-c", deaf))
    next(steps)
    child.close()
    assert child._process is not None
    assert child._process.wait(10) != 0


def test_it_ends_when_the_program_is_killed(tmp_path: Path) -> None:
    """The system closes its input then."""
    script = tmp_path / "obedient.py"
    script.write_text(OBEDIENT)
    parent = (
        "import sys, time\nfrom napari_embryo.widgets._train_process import Child\nchild = Child()\n"
        "steps = child.events((sys.executable, sys.argv[1]))\nnext(steps)\n"
        "print(child._process.pid, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent, str(script)], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        program.kill()
    limit = time.monotonic() + 10
    while _lives(pid) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/status")
    return not (status.exists() and "State:\tZ" in status.read_text())


def test_closing_does_not_wait(obedient: tuple[str, ...]) -> None:
    """It is called on the main thread."""
    child = Child()
    steps = child.events(obedient)
    next(steps)
    start = time.monotonic()
    child.close()
    assert time.monotonic() - start < 0.5
    assert child._process is not None
    child._process.wait(10)


def test_the_command_is_the_program_s_own() -> None:
    words = command(Path("r.yaml"), Path("out"), resume=True)
    assert words[0] == sys.executable
    assert words[words.index("napari_embryo") :] == (
        "napari_embryo", "train", "r.yaml", "--out", "out", "--stream", "--resume",
    )  # fmt: skip
