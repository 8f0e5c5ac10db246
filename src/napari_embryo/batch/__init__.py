"""Process many images: plan, distribute over processes, record and resume; used by window and command line."""

from napari_embryo.batch.executors import Inline, Workers, local, on_dask
from napari_embryo.batch.folder import BusyError
from napari_embryo.batch.job import Job, LeftOut, Outcome, Output, Plan, Problem, Status
from napari_embryo.batch.plan import plan
from napari_embryo.batch.pool import ProcessPool, WorkerError
from napari_embryo.batch.resume import Again, states
from napari_embryo.batch.run import StoppedError, Summary, run
from napari_embryo.batch.sheet import contact_sheet
from napari_embryo.batch.work import Started, Work

__all__ = [
    "Again",
    "BusyError",
    "Inline",
    "Job",
    "LeftOut",
    "Outcome",
    "Output",
    "Plan",
    "Problem",
    "ProcessPool",
    "Started",
    "Status",
    "StoppedError",
    "Summary",
    "Work",
    "WorkerError",
    "Workers",
    "contact_sheet",
    "local",
    "on_dask",
    "plan",
    "run",
    "states",
]
