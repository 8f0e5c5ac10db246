"""Forms for settings: the definition of each field determines its editor."""

from collections.abc import Iterable, Mapping, Sequence
from math import floor, log10
from typing import Any, Generic, Protocol, TypeVar, cast

from magicgui.widgets import create_widget
from pydantic import BaseModel, ValidationError
from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFormLayout,
    QFrame,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_embryo import problems

S = TypeVar("S", bound=BaseModel)


class Editor(Protocol):
    """Interface of a form field, as in magicgui's widgets."""

    @property
    def native(self) -> Any:
        """The Qt widget."""

    @property
    def value(self) -> Any:
        """The current value."""

    @value.setter
    def value(self, value: Any) -> None: ...


class CheckList:
    """Names with a check box each; the value is the checked ones in the order of the list.

    Parameters
    ----------
    names
        Name -> description, shown as a tooltip.
    rows
        Number of names visible without scrolling.
    """

    def __init__(self, names: Mapping[str, str], rows: int = 5) -> None:
        self.native = QListWidget()
        self.native.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.offer(names)
        self.native.setFixedHeight(rows * max(18, self.native.sizeHintForRow(0)) + 2 * self.native.frameWidth())

    def offer(self, names: Mapping[str, str]) -> None:
        """Replace the names, with none checked."""
        self.native.clear()
        for name, meaning in names.items():
            item = QListWidgetItem(name, self.native)
            item.setToolTip(tooltip(meaning))
            item.setFlags(Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEnabled)
        self.native.setEnabled(bool(names))
        self.value = ()

    @property
    def value(self) -> tuple[str, ...]:
        return tuple(item.text() for item in self._items() if item.checkState() == Qt.CheckState.Checked)

    @value.setter
    def value(self, names: Sequence[str]) -> None:
        items = self._items()
        unknown = set(names) - {item.text() for item in items}
        if unknown:
            known = ", ".join(item.text() for item in items)
            raise ValueError(f"{', '.join(sorted(unknown))} was given, but the list has {known}")
        for item in items:
            item.setCheckState(Qt.CheckState.Checked if item.text() in names else Qt.CheckState.Unchecked)

    def _items(self) -> list[QListWidgetItem]:
        found = (self.native.item(row) for row in range(self.native.count()))
        return [item for item in found if item is not None]


class SettingsForm(QWidget, Generic[S]):
    """A form for one settings class.

    Parameters
    ----------
    model
        The class; every field needs a default.
    advanced
        Fields in a collapsed section.
    editors
        Editors for fields whose annotation is not sufficient.
    labels
        Labels for fields whose name is not clear enough.

    Attributes
    ----------
    rows
        The fields that are always visible; a widget may put its own above them.
    """

    def __init__(
        self,
        model: type[S],
        advanced: Sequence[str] = (),
        editors: Mapping[str, Editor] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._model, self._labels = model, labels or {}
        self.editors: dict[str, Editor] = {**_make_editors(model, editors or {})}
        self._lay_out(advanced)
        self.set_value(model())

    def value(self) -> S:
        """The settings in the form.

        Raises
        ------
        ValueError
            If a field is invalid; the message names it, its value and what is needed.
        """
        try:
            return self._model(**{name: editor.value for name, editor in self.editors.items()})
        except ValidationError as error:
            raise ValueError("; ".join(_problems(error))) from error

    def set_value(self, settings: S) -> None:
        """Show settings in the form."""
        for name, editor in self.editors.items():
            editor.value = getattr(settings, name)

    def _lay_out(self, advanced: Sequence[str]) -> None:
        basic = [name for name in self.editors if name not in advanced]
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        fields = QWidget()
        self.rows = self._fill(fields, basic)
        layout.addWidget(fields)
        if advanced:
            self.advanced = QCollapsible("Advanced", expandedIcon="▾", collapsedIcon="▸")
            folded = QWidget()
            self._fill(folded, advanced)
            self.advanced.setContent(folded)
            self.advanced.collapse(animate=False)
            layout.addWidget(self.advanced)

    def _fill(self, parent: QWidget, names: Sequence[str]) -> QFormLayout:
        rows = form_layout(parent)
        for name in names:
            self._add_row(rows, name)
        return rows

    def _add_row(self, rows: QFormLayout, name: str) -> None:
        widget = self.editors[name].native
        label = QLabel(self._labels.get(name, name.replace("_", " ").capitalize()))
        for part in (label, widget):
            part.setToolTip(tooltip(self._model.model_fields[name].description or ""))
        guard_wheel(widget)
        rows.addRow(label, widget)


def _make_editors(model: type[BaseModel], given: Mapping[str, Editor]) -> dict[str, Editor]:
    schema = model.model_json_schema()["properties"]
    return {name: given.get(name) or make_editor(model, name, schema[name]) for name in model.model_fields}


def make_editor(model: type[BaseModel], name: str, schema: Mapping[str, Any]) -> Editor:
    """The editor for a field's annotation and bounds.

    Raises
    ------
    ValueError
        If magicgui has no widget for the annotation.
    """
    annotation = model.model_fields[name].annotation
    options = _number_options(schema) if annotation in (int, float) else {}
    try:
        editor: Any = create_widget(annotation=annotation, name=name, options=options)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{model.__name__}.{name}: no form field for {annotation}; give the form an editor for it"
        ) from error
    return cast("Editor", editor)


def _number_options(schema: Mapping[str, Any]) -> dict[str, float]:
    """Bounds and step of a number; an open bound is moved by one step."""
    step = 1 if schema["type"] == "integer" else step_of(float(schema["default"]))
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1e9 - step) + step)
    high = schema.get("maximum", schema.get("exclusiveMaximum", 1e9 + step) - step)
    kind = type(step)
    return {"min": kind(low), "max": kind(high), "step": step}


def step_of(default: float) -> float:
    """A tenth of the decimal place of the default: 0.01 for 0.5, 0.0001 for 0.001."""
    return float(10.0 ** (floor(log10(abs(default))) - 1)) if default else 0.01


def _problems(error: ValidationError) -> Iterable[str]:
    for problem in error.errors():
        where = ".".join(map(str, problem["loc"]))
        yield f"{where or 'settings'}: {problems.said(problem)}"


# --- what forms are made of -----------------------------------------------------------------------------------------


def form_layout(parent: QWidget) -> QFormLayout:
    """Rows of label and field; fields expand to the width of the panel."""
    rows = QFormLayout(parent)
    rows.setContentsMargins(0, 0, 0, 0)
    rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return rows


class Scrolled(QScrollArea):
    """``content`` in an area that scrolls vertically on low screens and is never narrower than its content."""

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self.setWidget(content)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def minimumSizeHint(self) -> QSize:
        content, bar = self.widget(), self.verticalScrollBar()
        width = sum(part.sizeHint().width() for part in (bar,) if part is not None)
        return QSize(width + (content.minimumSizeHint().width() if content else 0), 100)


class NoteLabel(QLabel):
    """A text wrapped to the width of the panel; Qt's form rows would cut off its last line."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self.setWordWrap(True)

    def setText(self, text: str | None) -> None:
        super().setText(text)
        self._make_room()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        super().resizeEvent(event)
        self._make_room()

    def _make_room(self) -> None:
        self.setMinimumHeight(max(0, self.heightForWidth(self.width())))


def tooltip(text: str) -> str:
    """Convert to rich text, since Qt wraps only that."""
    return f"<qt>{text}</qt>" if text else ""


class _WheelGuard(QObject):
    """Keep scrolling through a form from changing the fields under the mouse."""

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        if event is None or event.type() != QEvent.Type.Wheel or not isinstance(watched, QWidget) or watched.hasFocus():
            return False
        event.ignore()
        return True


def guard_wheel(widget: QWidget) -> None:
    """Let the mouse wheel change ``widget`` only after it was clicked."""
    if isinstance(widget, QListWidget):
        return
    widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    widget.installEventFilter(_WheelGuard(widget))
