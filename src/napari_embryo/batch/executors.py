"""Executors of a batch: in this process, in processes of this computer, or on a Dask cluster."""

import faulthandler
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any, Protocol

import psutil

from napari_embryo.batch.pool import ProcessPool, with_what_came

TIME_LIMIT = 600.0
"""Time limit in seconds for one plane."""

_MEMORY_OF_A_PROCESS = 2.5 * 2**30
"""Memory in bytes that the network needs at most for one plane; limits the number of processes."""


class Workers(Protocol):
    """Interface of an executor: ``concurrent.futures.Executor`` for generator functions.

    ``submit(call, *args)`` returns a future of the list of values that ``call(*args)`` yields.
    """

    @property
    def size(self) -> int:
        """Number of tasks that run at the same time."""

    def submit(self, call: Callable[..., Iterable[Any]], /, *args: Any) -> "Future[Any]":
        """Run a call as soon as a worker is free."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop the workers."""


class Inline(Executor):
    """Computes in this process at once; for a few images, which separate processes would only delay."""

    size = 1

    def submit(self, call: Callable[..., Iterable[Any]], /, *args: Any) -> "Future[Any]":  # type: ignore[override]
        future: Future[Any] = Future()
        came: list[Any] = []
        try:
            came.extend(call(*args))
            future.set_result(came)
        except Exception as error:  # noqa: BLE001 - any error belongs to the future
            future.set_exception(with_what_came(error, came))
        return future


def local(
    device: str = "auto", jobs: int | None = None, processes: int | None = None, time_limit: float = TIME_LIMIT
) -> ProcessPool:
    """Processes on this computer that use all cores, or one process per graphics card.

    Parameters
    ----------
    device
        As in the settings.
    jobs
        Number of images; no more processes than that are started.
    processes
        Number of processes; by default as many as cores and memory allow.
    time_limit
        Time limit in seconds for one plane, after which its process is ended.
    """
    cards = [] if device == "cpu" else _cards()
    total = psutil.virtual_memory()
    cores = _cores()
    fitting = max(1, int(total.available / _MEMORY_OF_A_PROCESS))
    count = processes or len(cards) or min(cores, fitting)
    count = max(1, min(count, jobs or count))
    threads = max(1, cores // count)
    environments = [_environment(threads, cards[i % len(cards)] if cards else None) for i in range(count)]
    return ProcessPool(environments, time_limit, memory_limit=0.9 * total.total / count)


def _cores() -> int:
    """Number of cores that this process may use, which may be limited in a container or a job."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _cards() -> list[str]:
    """The graphics cards, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not torch.cuda.is_available():
        return []
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]


def _environment(threads: int, card: str | None) -> Mapping[str, str]:
    count = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return count if card is None else {**count, "CUDA_VISIBLE_DEVICES": card}


@contextmanager
def on_dask(address: str, time_limit: float = TIME_LIMIT) -> Iterator[Workers]:
    """A Dask cluster.

    Parameters
    ----------
    address
        Address of the scheduler, such as ``tcp://10.0.0.1:8786``; the path of the file that it writes with
        ``--scheduler-file``; or ``local`` for worker processes of this computer, with Dask's dashboard.
    time_limit
        Time limit in seconds for one plane, after which its process is ended.

    Raises
    ------
    ModuleNotFoundError
        If the extra ``cluster`` is not installed.
    OSError
        If there is no scheduler at the address.
    """
    try:
        from distributed import Client, LocalCluster
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"--dask {address}: the package distributed is not installed; pip install 'napari-embryo[cluster]'"
        ) from error
    if address == "local":
        cluster = LocalCluster(n_workers=_cores(), threads_per_worker=1, dashboard_address=None)
        with cluster, Client(cluster) as client:
            yield _Dask(client, time_limit)
    else:
        where = {"scheduler_file": address} if os.path.isfile(address) else {"address": address}  # noqa: PTH113
        with Client(**where, timeout="20s") as client:
            yield _Dask(client, time_limit)


class _Dask(Executor):
    """Runs tasks on a cluster; a worker's nanny replaces a process that was ended."""

    def __init__(self, client: Any, time_limit: float) -> None:
        self._client, self._time_limit = client, time_limit
        self._executor = client.get_executor(pure=False)

    @property
    def size(self) -> int:
        return max(1, len(self._client.ncores()))

    def submit(self, call: Callable[..., Iterable[Any]], /, *args: Any) -> "Future[Any]":  # type: ignore[override]
        future: Future[Any] = self._executor.submit(gathered, self._time_limit, call, *args)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._executor.shutdown(wait=wait and not cancel_futures)


def gathered(time_limit: float, call: Callable[..., Iterable[Any]], *args: Any) -> list[Any]:
    """List what ``call(*args)`` yields; end the process if it yields nothing for too long, even within a library."""
    came: list[Any] = []
    try:
        faulthandler.dump_traceback_later(time_limit, exit=True)
        for item in call(*args):
            came.append(item)
            faulthandler.dump_traceback_later(time_limit, exit=True)
    except Exception as error:  # noqa: BLE001 - whatever it was, it goes on
        raise with_what_came(error, came)  # noqa: B904 - it is the same error
    finally:
        faulthandler.cancel_dump_traceback_later()
    return came
