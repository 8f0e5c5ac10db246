"""What workers of a test do instead of segmenting: quick, and as bad as the name of a file asks for.

Imported by name, because workers are processes of their own.
"""

import csv
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from napari_embryo.batch import Job, Outcome, Output, Problem, Started, Summary, Work
from napari_embryo.batch.job import stamp_of
from napari_embryo.batch.resume import digest_of_files

HERE = Path(__file__).parent
Run = Callable[..., tuple[list[Outcome], Summary]]


def make(folder: Path, names: Sequence[str]) -> Path:
    """Files of different sizes that nobody opens."""
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (i + 1))
    return folder


def table(out: Path) -> list[dict[str, str]]:
    with (out / "measurements.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def ready(work: Work) -> Iterator[Started]:
    yield Started("cpu", "fake", "none")


def do(work: Work, jobs: Sequence[Job]) -> Iterator[Outcome | None]:
    """Writes the size of each file as its result."""
    for job in jobs:
        yield one(work, job)


def one(work: Work, job: Job) -> Outcome:
    path = job.paths[0]
    behave(path.name, Path(work.out))
    try:
        size = path.stat().st_size
    except OSError as error:
        return Outcome(job.name, failures=(Problem(job.source, "reading", str(error)),))
    result = Path(work.out, f"{job.name}_size.txt")
    result.parent.mkdir(parents=True, exist_ok=True)
    draft = result.with_name(f".{result.name}.{os.getpid():08x}.part")
    draft.write_text(str(size))
    time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
    draft.replace(result)
    log = Path(work.out, "calls.log")
    with log.open("a") as file:
        file.write(f"{job.name}\n")
    rows = ({"image": job.name, "size": size, "file": job.source},)
    output = (Output(f"{job.name}_size.txt", ""),)
    return Outcome(job.name, stamp_of(job), digest_of_files(job), rows, output, doubt=size % 10 / 10)


def behave(name: str, out: Path) -> None:
    """As the file's name asks for."""
    kind = name.partition("_")[0]
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif kind == "hang":
        time.sleep(600)
    elif kind == "once":  # killed the first time by somebody
        mark = out / f"{name}.seen"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "eat":
        hoard = []
        while True:
            hoard.append(bytearray(os.urandom(1 << 20) * 16))
    elif kind == "raise":
        raise RuntimeError("a mistake")
    elif kind == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
