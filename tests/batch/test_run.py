"""A run from its plan to its tables: resumed, interrupted, and with files that end the process that works on them."""

import json
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import fakes
import pytest
from fakes import Run, make, table

from napari_embryo import batch
from napari_embryo.batch import BusyError, Outcome, ProcessPool, StoppedError
from napari_embryo.batch.folder import claimed

GOOD = [f"{letter}x.png" for letter in "abcdefgh"]


def calls(out: Path) -> list[str]:
    return (out / "calls.log").read_text().splitlines()


def reasons(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.job: failure.text() for outcome in outcomes for failure in outcome.failures}


# --- what comes out -------------------------------------------------------------------------------------------------


def test_table_record_and_sheet(run: Run, tmp_path: Path) -> None:
    folder, out = make(tmp_path / "in", ["a.png", "b/c.png"]), tmp_path / "out"
    _, summary = run(folder, out)
    assert (summary.done, summary.failed, summary.skipped) == (2, 0, 0)
    assert [(row["image"], row["size"], row["file"]) for row in table(out)] == [
        ("a", "1", "a.png"),
        ("b/c", "2", "b/c.png"),
    ]
    record = json.loads((out / "run.json").read_text())
    assert [each["files"] for each in record["inputs"]] == [["a.png"], ["b/c.png"]]
    assert record["settings"]["segment"]["family"] == "resanet"
    assert len(record["weights_sha256"]) == 64
    sheet = (out / "contact_sheet.html").read_text()
    assert sheet.index("b/c") < sheet.index(">a<")  # the more doubtful one first
    assert "http" not in sheet


@pytest.mark.parametrize("kind", ["inline", "processes", "dask"])
def test_every_executor_gives_the_same(run: Run, pool: Callable[..., ProcessPool], tmp_path: Path, kind: str) -> None:
    folder, out = make(tmp_path / "in", [*GOOD, "raise_x.png"]), tmp_path / "out"
    if kind == "dask":
        distributed = pytest.importorskip("distributed")
        cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
        with cluster, batch.on_dask(cluster.scheduler_address) as workers:
            outcomes, summary = run(folder, out, workers)
    else:
        outcomes, summary = run(folder, out, pool() if kind == "processes" else batch.Inline())
    assert sorted(outcome.job for outcome in outcomes) == sorted([*(name[:-4] for name in GOOD), "raise_x"])
    assert reasons(outcomes)["raise_x"].startswith("raise_x.png: RuntimeError: a mistake")
    assert (summary.done, summary.failed) == (8, 1)
    assert [row["image"] for row in table(out)] == [name[:-4] for name in GOOD]


# --- resuming -------------------------------------------------------------------------------------------------------


def test_what_is_done_and_unchanged_is_not_done_again(run: Run, tmp_path: Path) -> None:
    folder, out = make(tmp_path / "in", ["a.png", "b.png", "c.png", "d.png"]), tmp_path / "out"
    run(folder, out)
    (out / "calls.log").unlink()
    os.utime(folder / "a.png", (1, 1))  # another date, the same content
    (folder / "b.png").write_bytes(b"longer than before")
    (out / "c_size.txt").unlink()  # the result is gone
    _, summary = run(folder, out)
    assert sorted(calls(out)) == ["b", "c"]
    assert summary.skipped == 2
    assert [row["size"] for row in table(out)] == ["1", "18", "3", "4"]


def test_same_size_and_other_content_is_noticed(run: Run, tmp_path: Path) -> None:
    folder, out = make(tmp_path / "in", ["a.png"]), tmp_path / "out"
    run(folder, out)
    (folder / "a.png").write_bytes(b"y")
    os.utime(folder / "a.png", (1, 1))
    _, summary = run(folder, out)
    assert (summary.skipped, calls(out)) == (0, ["a", "a"])


def test_other_settings_do_it_again(run: Run, tmp_path: Path) -> None:
    folder, out = make(tmp_path / "in", ["a.png"]), tmp_path / "out"
    run(folder, out)
    for changes, count in (({"device": "cpu"}, 1), ({"batch_size": 4}, 1), ({"threshold": 0.4}, 2)):
        settings = {"segment": {"maps": (), **changes}}
        plan = batch.plan([folder], out, batch.plan([folder], out).settings.model_validate(settings))
        list(batch.run(plan, batch.Inline(), "changed", fakes.do, fakes.ready))
        assert len(calls(out)) == count, changes


@pytest.mark.parametrize(("again", "expected"), [("changed", []), ("failed", ["r"]), ("all", ["a", "r"])])
def test_what_is_done_once_more(run: Run, tmp_path: Path, again: str, expected: list[str]) -> None:
    folder, out = make(tmp_path / "in", ["a.png", "r.png"]), tmp_path / "out"
    (folder / "r.png").rename(folder / "raise_r.png")
    run(folder, out)
    (out / "calls.log").write_text("")
    outcomes, summary = run(folder, out, again=again)
    assert [outcome.job.removeprefix("raise_") for outcome in outcomes] == expected
    assert (summary.done, summary.failed) == (1, 1)


def test_results_that_no_run_makes_any_more_go(run: Run, tmp_path: Path) -> None:
    folder, out = make(tmp_path / "in", ["a.png"]), tmp_path / "out"
    run(folder, out)
    db = sqlite3.connect(out / ".napari-embryo" / "journal.sqlite")
    db.execute("UPDATE job SET outputs = ?", (f"{'':66}a_size.txt\n{'':66}a_old.txt\n",))
    db.commit()
    (out / "a_old.txt").touch()
    run(folder, out, again="all")
    assert not (out / "a_old.txt").exists()


def test_a_foreign_table_is_kept(run: Run, tmp_path: Path) -> None:
    folder, out = make(tmp_path / "in", ["a.png"]), make(tmp_path / "out", ["measurements.csv"])
    _, summary = run(folder, out)
    assert (out / "measurements_before.csv").read_text() == "x"
    assert "measurements_before.csv" in summary.notes[0].text


def test_the_second_run_is_told_who_has_the_folder(run: Run, tmp_path: Path) -> None:
    folder, out = make(tmp_path / "in", ["a.png"]), tmp_path / "out"
    with claimed(out), pytest.raises(BusyError, match=rf"process {os.getpid()} on .* is writing to this folder"):
        run(folder, out)
    assert run(folder, out)[1].done == 1


# --- stopping -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_in_processes", [False, True])
def test_stopped_in_the_middle(
    run: Run, pool: Callable[..., ProcessPool], tmp_path: Path, is_in_processes: bool
) -> None:
    """The table has what is done, nothing is left lying about, and the next run does the rest."""
    folder, out = make(tmp_path / "in", GOOD), tmp_path / "out"
    workers = pool() if is_in_processes else batch.Inline()
    steps = batch.run(batch.plan([folder], out), workers, "changed", fakes.do, fakes.ready)
    done = 0
    while done < 3:
        done += isinstance(next(steps).item, Outcome)
    steps.close()
    assert len(table(out)) >= 3
    assert not list(out.rglob("*.part"))
    before = len(table(out))
    _, summary = run(folder, out)
    assert (summary.skipped, len(table(out))) == (before, len(GOOD))


def test_leftovers_of_a_killed_run_go(run: Run, tmp_path: Path) -> None:
    folder = make(tmp_path / "in", ["a.png", "b/c.png"])
    out = make(tmp_path / "out", [".a_size.txt.0123abcd.part", "b/.c_overlay.png.00000000.part", "mine.part"])
    run(folder, out)
    assert [path.name for path in out.rglob("*.part")] == ["mine.part"]


def test_disk_full_stops_the_run_instead_of_failing_the_rest(run: Run, tmp_path: Path) -> None:
    folder, out = make(tmp_path / "in", [*GOOD, "full_x.png"]), tmp_path / "out"
    with pytest.raises(StoppedError, match="disk full"):
        run(folder, out)
    assert [row["image"] for row in table(out)] == ["ax", "bx", "cx", "dx", "ex"]
    (folder / "full_x.png").unlink()
    assert run(folder, out)[1].failed == 0


def test_a_folder_that_vanishes_stops_the_run(run: Run, tmp_path: Path) -> None:
    folder, out = make(tmp_path / "in", GOOD), tmp_path / "out"
    steps = batch.run(batch.plan([folder], out), batch.Inline(), "changed", fakes.do, fakes.ready)
    while not isinstance(next(steps).item, Outcome):
        pass
    folder.rename(tmp_path / "gone")
    with pytest.raises(StoppedError, match=r"in is gone; was a drive unplugged\?"):
        list(steps)
    (tmp_path / "gone").rename(folder)
    assert run(folder, out)[1].failed == 0


# --- files that end the process -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "said"),
    [("crash_x.png", "signal 11"), ("hang_x.png", "longer than 1 s"), ("eat_x.png", "GiB of memory")],
)
def test_the_process_ends_and_the_others_are_done(
    run: Run, pool: Callable[..., ProcessPool], tmp_path: Path, bad: str, said: str
) -> None:
    folder, out = make(tmp_path / "in", [*GOOD, bad]), tmp_path / "out"
    workers = pool(time_limit=1.0) if "hang" in bad else pool(memory_limit=0.4 * 2**30)
    outcomes, summary = run(folder, out, workers)
    assert said in reasons(outcomes)[bad[:-4]]
    assert (summary.done, summary.failed) == (len(GOOD), 1)
    assert len(table(out)) == len(GOOD)


def test_killed_by_somebody_else_is_tried_again(run: Run, pool: Callable[..., ProcessPool], tmp_path: Path) -> None:
    _, summary = run(make(tmp_path / "in", [*GOOD, "once_x.png"]), tmp_path / "out", pool())
    assert (summary.done, summary.failed) == (len(GOOD) + 1, 0)


def test_a_cluster_loses_a_worker_in_the_middle(run: Run, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, batch.on_dask(cluster.scheduler_address) as workers:
        _, summary = run(make(tmp_path / "in", [*GOOD, "once_x.png"]), tmp_path / "out", workers)
    assert (summary.done, summary.failed) == (len(GOOD) + 1, 0)


def test_the_pool_ends_at_once_when_it_is_told_to(pool: Callable[..., ProcessPool]) -> None:
    workers = pool(1)
    future = workers.submit(time.sleep, 600)
    while not future.running():
        time.sleep(0.01)
    start = time.monotonic()
    workers.shutdown(cancel_futures=True)
    assert time.monotonic() - start < 5
    assert isinstance(future.exception(), batch.WorkerError)
