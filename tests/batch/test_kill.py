"""Processes that are killed at random moments, and runs that are asked to end."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from fakes import HERE, Run, make, table

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems")

NAMES = [f"{first}{second}.png" for first in "abcdef" for second in "uvwxyz"]
LEAD = [sys.executable, str(HERE / "lead.py")]


def lead(folder: Path, out: Path, seconds: float = 0.01) -> "subprocess.Popen[str]":
    """A run in a process of its own."""
    environment = {**os.environ, "FAKE_SECONDS": str(seconds)}
    return subprocess.Popen(
        [*LEAD, str(folder), str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_for_first(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    assert any('"event": "image"' in line for line in process.stdout)


def undisturbed(run: Run, folder: Path, out: Path) -> list[dict[str, str]]:
    run(folder, out)
    return table(out)


def check_resumed(run: Run, folder: Path, out: Path, expected: list[dict[str, str]]) -> None:
    _, summary = run(folder, out, again="failed")
    assert (summary.done, summary.failed) == (len(NAMES), 0)
    assert table(out) == expected
    assert not list(out.rglob("*.part"))


def kill_lead(run: Run, tmp_path: Path, times: int) -> None:
    folder = make(tmp_path / "in", NAMES)
    expected = undisturbed(run, folder, tmp_path / "quiet")
    moments = random.Random(0)
    for turn in range(times):
        out = tmp_path / f"out{turn}"
        process = lead(folder, out)
        wait_for_first(process)
        time.sleep(moments.uniform(0, 0.4))
        process.kill()
        process.communicate()
        check_resumed(run, folder, out, expected)


def kill_workers(run: Run, tmp_path: Path, times: int) -> None:
    folder = make(tmp_path / "in", NAMES)
    expected = undisturbed(run, folder, tmp_path / "quiet")
    moments = random.Random(1)
    for turn in range(times):
        out = tmp_path / f"out{turn}"
        process = lead(folder, out)
        wait_for_first(process)
        time.sleep(moments.uniform(0, 0.3))
        for worker in psutil.Process(process.pid).children()[:1]:
            worker.kill()
        process.communicate(timeout=60)
        check_resumed(run, folder, out, expected)


def test_the_leading_process_is_killed(run: Run, tmp_path: Path) -> None:
    kill_lead(run, tmp_path, 2)


def test_a_worker_is_killed(run: Run, tmp_path: Path) -> None:
    kill_workers(run, tmp_path, 2)


@pytest.mark.slow
def test_killed_at_twenty_random_moments(run: Run, tmp_path: Path) -> None:
    kill_lead(run, tmp_path / "lead", 20)
    kill_workers(run, tmp_path / "workers", 20)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end(run: Run, tmp_path: Path, sign: signal.Signals) -> None:
    """The table has what is done, and the workers are gone."""
    folder, out = make(tmp_path / "in", NAMES), tmp_path / "out"
    process = lead(folder, out, seconds=0.1)
    wait_for_first(process)
    workers = psutil.Process(process.pid).children()
    process.send_signal(sign)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert not psutil.wait_procs(workers, timeout=5)[1]
    assert 1 <= len(table(out)) < len(NAMES)
    assert not list(out.rglob("*.part"))
    _, summary = run(folder, out)
    assert summary.done == len(NAMES)


def test_workers_end_with_the_process_that_leads_them(tmp_path: Path) -> None:
    process = lead(make(tmp_path / "in", NAMES), tmp_path / "out", seconds=0.2)
    wait_for_first(process)
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(workers, timeout=5)[1]
