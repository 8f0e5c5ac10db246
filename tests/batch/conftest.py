"""Folders of quick files, and a run over them."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)  # workers get the same search path

import fakes  # noqa: E402
from fakes import Run  # noqa: E402

from napari_embryo import batch  # noqa: E402
from napari_embryo.batch import Outcome, ProcessPool, Summary  # noqa: E402


@pytest.fixture
def run() -> Run:
    """Run a batch with the quick stand-in for a network; its outcomes and its summary."""

    def run(folder: Path, out: Path, workers: object = None, again: str = "changed") -> tuple[list[Outcome], Summary]:
        workers = workers or batch.Inline()
        steps = batch.run(batch.plan([folder], out), workers, again, fakes.do, fakes.ready)  # type: ignore[arg-type]
        outcomes: list[Outcome] = []
        try:
            while True:
                progress = next(steps)
                outcomes += [progress.item] if isinstance(progress.item, Outcome) else []
        except StopIteration as finished:
            return outcomes, finished.value
        finally:
            steps.close()

    return run


@pytest.fixture
def pool() -> Iterator[Callable[..., ProcessPool]]:
    pools: list[ProcessPool] = []

    def start(count: int = 2, **limits: float) -> ProcessPool:
        pools.append(ProcessPool([{}] * count, **limits))
        return pools[-1]

    yield start
    for each in pools:
        each.shutdown(cancel_futures=True)
