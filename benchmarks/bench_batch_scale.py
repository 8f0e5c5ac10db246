"""How planning and resuming a batch grow with the number of files: one table. No file is made; names are invented."""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from napari_embryo import batch
from napari_embryo.batch import resume
from napari_embryo.batch.job import Outcome, Output
from napari_embryo.batch.journal import Journal


@dataclass(frozen=True)
class Entry:
    """What `os.scandir` tells of a file or folder."""

    name: str
    is_folder: bool = False

    def is_dir(self) -> bool:
        return self.is_folder


@contextmanager
def invented(folders: int, each: int) -> Iterator[None]:
    """A tree of so many folders with so many pictures each."""

    def scandir(path: str) -> object:
        if str(path).rstrip("/").endswith("invented"):
            entries = [Entry(f"clinic_{i:05d}", True) for i in range(folders)]
        else:
            entries = [Entry(f"patient{i:06d}_day5.png") for i in range(each)]
        return mock.MagicMock(__enter__=lambda _: iter(entries), __exit__=lambda *_: None)

    numbers = iter(range(10**9))
    stat = os.stat

    def told(path: str, **named: object) -> object:
        return SimpleNamespace(st_dev=1, st_ino=next(numbers)) if "invented" in str(path) else stat(path, **named)

    with (
        mock.patch("napari_embryo.batch.plan.os.scandir", scandir),
        mock.patch("napari_embryo.batch.plan.os.stat", told),
        mock.patch.object(Path, "is_dir", lambda path: "invented" in str(path)),
    ):
        yield


def peak_mb() -> float:
    """Of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folders", type=int, default=1000, help="1: all of them in one folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(options.files, options.folders, Path(scratch))


def measure(files: int, folders: int, out: Path) -> None:
    """Plan, then resume where everything is done."""
    before, start = peak_mb(), time.process_time()
    with invented(folders, files // folders):
        plan = batch.plan(["/invented"], out)
    print(
        f"planning {len(plan.jobs):,} images in {folders:,} folders: {time.process_time() - start:.1f} s of CPU, "
        f"{peak_mb() - before:,.0f} MB"
    )
    with Journal(out / "journal.sqlite") as journal:
        start = time.process_time()
        for job in plan.jobs:
            output = (Output(f"{job.name}_labels.ome.tif", ""), Output(f"{job.name}_overlay.png", ""))
            journal.record(Outcome(job.name, "1000:1", "", ({"image": job.name, "area_px": 1},), output), "recipe")
        journal.commit()
        print(f"recording them: {time.process_time() - start:.1f} s of CPU")
    size = (out / "journal.sqlite").stat().st_size / 2**20
    stat = SimpleNamespace(st_size=1000, st_mtime_ns=1)
    with Journal(out / "journal.sqlite") as journal:
        start = time.process_time()
        with (
            mock.patch("napari_embryo.batch.job.os.stat", return_value=stat),
            mock.patch.object(resume._Files, "have", return_value=True),
        ):
            todo = resume.left_to_do(plan, journal, journal.known(), "recipe")
        print(
            f"deciding what is left ({len(todo)}): {time.process_time() - start:.1f} s of CPU without the file system; "
            f"journal {size:,.0f} MB, peak {peak_mb():,.0f} MB"
        )


if __name__ == "__main__":
    main()
