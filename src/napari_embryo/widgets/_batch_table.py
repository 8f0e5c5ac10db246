"""The images of a batch as a table that remains fast with many thousand rows."""

from collections.abc import Mapping
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QObject, Qt
from qtpy.QtGui import QColor

from napari_embryo.batch import Job, Outcome, Plan, Status

COLUMNS = ("State", "Image", "Remark")
TO_DO, BEFORE = "to do", "before"
_COLORS = {"failed": "#e5484d", "partly done": "#f5a524", "done": "#46a758", "left out": "#8b8d98"}


class BatchTable(QAbstractTableModel):
    """One row per image of a plan, then the images that are left out.

    Parameters
    ----------
    parent
        Parent object.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._jobs: tuple[Job, ...] = ()
        self._states: list[str] = []
        self._remarks: list[str] = []
        self._others: list[tuple[str, str, str]] = []
        self._places: dict[str, int] = {}
        self._outcomes: dict[str, Outcome] = {}

    def show_plan(self, plan: Plan, before: Mapping[str, Status]) -> None:
        """Show every image of a plan; ``before`` has the results of an earlier run."""
        self.beginResetModel()
        self._jobs = plan.jobs
        self._states = [before.get(job.name, TO_DO) for job in plan.jobs]
        self._remarks = [_about(job, job.name in before) for job in plan.jobs]
        self._others = [("failed", problem.file, problem.text()) for problem in plan.problems]
        self._others += [("left out", left.path, left.reason) for left in plan.left_out]
        self._places = {job.name: place for place, job in enumerate(plan.jobs)}
        self._outcomes = {}
        self.endResetModel()

    def take(self, outcome: Outcome) -> None:
        """Show the result of an image."""
        place = self._places[outcome.job]
        self._outcomes[outcome.job] = outcome
        self._states[place] = outcome.status
        self._remarks[place] = _remark(self._jobs[place], outcome)
        self.dataChanged.emit(self.index(place, 0), self.index(place, len(COLUMNS) - 1))

    def job(self, row: int) -> Job | None:
        """The job of a row; None for an image that is left out."""
        return self._jobs[row] if 0 <= row < len(self._jobs) else None

    def count(self, *states: str) -> int:
        """Number of images in a state."""
        return sum(state in states for state in self._states)

    # --- what Qt asks for

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._jobs) + len(self._others)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(COLUMNS)

    def headerData(self, section: int, orientation: Any, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        is_column = orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole
        return COLUMNS[section] if is_column else None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        cells = self._cells(index.row())
        if role == Qt.ItemDataRole.DisplayRole:
            return cells[index.column()]
        if role == Qt.ItemDataRole.ToolTipRole:
            return f"{cells[1]}: {cells[2] or cells[0]}"
        if role == Qt.ItemDataRole.ForegroundRole and index.column() == 0 and cells[0] in _COLORS:
            return QColor(_COLORS[cells[0]])
        return None

    def _cells(self, row: int) -> tuple[str, str, str]:
        if row < len(self._jobs):
            return self._states[row], self._jobs[row].name, self._remarks[row]
        return self._others[row - len(self._jobs)]


def _about(job: Job, is_known: bool) -> str:
    said = ["in an earlier run"] if is_known else []
    said += [job.why] if job.why else []
    return "; ".join(said)


def _remark(job: Job, outcome: Outcome) -> str:
    if outcome.failures:
        return outcome.failures[0].text()
    doubt = "" if outcome.doubt is None else f"doubt {outcome.doubt:.2f}"
    return "; ".join(filter(None, (doubt, f"{outcome.seconds:.1f} s", job.why)))
