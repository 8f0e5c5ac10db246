"""Open embryo: inspect a file or folder, correct how it is interpreted, then read it."""

import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import napari
from magicgui.widgets import ComboBox, Container, Label, LineEdit, PushButton, TextEdit
from napari.utils.notifications import show_error, show_warning
from qtpy.QtWidgets import QFileDialog

from napari_embryo.image import Progress
from napari_embryo.io import (
    Focus,
    Gaps,
    Grouping,
    ImageError,
    OpenChoices,
    OpenPlan,
    open_layers,
    plan_path,
)
from napari_embryo.widgets._worker import Job, Steps, add_layer, tell

# --- decided without a window ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FormText:
    """The text in the form; empty fields keep what the files say."""

    axes: str = ""
    pixel_size_um: str = ""
    hours_per_frame: str = ""
    first_hour: str = ""
    spacing_um: str = ""
    focus: Focus = "all"
    gaps: Gaps = "leave out"


def choices_of(text: FormText) -> OpenChoices:
    """Read the form.

    Raises
    ------
    ValueError
        If a field is invalid; the message names it, its value and what is needed.
    """
    return OpenChoices(
        axes=text.axes or None,
        pixel_size_um=_pixel_size(text.pixel_size_um),
        hours_per_frame=_positive(text.hours_per_frame, "Hours between frames"),
        first_hour=_number(text.first_hour, "Hours at the first frame"),
        focus=text.focus,
        gaps=text.gaps,
        spacing_um=_positive(text.spacing_um, "µm between planes"),
    )


def text_of(choices: OpenChoices) -> FormText:
    """Show choices in the form."""
    size = choices.pixel_size_um
    return FormText(
        axes=choices.axes or "",
        pixel_size_um=""
        if size is None
        else " x ".join(f"{side:g}" for side in (size[:1] if size[0] == size[1] else size)),
        hours_per_frame=_shown(choices.hours_per_frame),
        first_hour=_shown(choices.first_hour),
        spacing_um=_shown(choices.spacing_um),
        focus=choices.focus,
        gaps=choices.gaps,
    )


def _shown(value: float | None) -> str:
    return "" if value is None else repr(value)


def _pixel_size(text: str) -> tuple[float, float] | None:
    sides = [_positive(part, "µm per pixel") for part in re.split(r"[x×]", text)]
    if len(sides) > 2 or (len(sides) == 2 and None in sides):
        raise ValueError(f"µm per pixel: {text!r} was given; enter one number, or height x width such as 0.5 x 0.6")
    return None if sides[0] is None else (sides[0], sides[-1] or sides[0])


def _positive(text: str, field: str) -> float | None:
    number = _number(text, field)
    if number is not None and number <= 0:
        raise ValueError(f"{field}: {text!r} was given; enter a number above 0, or leave the field empty if unknown")
    return number


def _number(text: str, field: str) -> float | None:
    """A number with a decimal point or, as in much of Europe, a comma."""
    plain = text.strip().replace(",", ".")
    if not plain:
        return None
    if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", plain, flags=re.IGNORECASE):
        raise ValueError(f"{field}: {text!r} was given; enter a number, or leave the field empty if unknown")
    return float(plain)


def known_text(plan: OpenPlan) -> FormText:
    """Values from the files of a plan, shown in gray in empty fields."""
    sizes = {image.pixel_size_um for image in plan.images}
    size = sizes.pop() if len(sizes) == 1 else None
    shown = text_of(OpenChoices(pixel_size_um=size))
    hours = {image.hours[0] for image in plan.images if image.hours}
    return FormText(
        pixel_size_um=shown.pixel_size_um or ("differs" if sizes else "unknown"),
        hours_per_frame="as in the files" if hours else "unknown",
        first_hour=f"{hours.pop():g}" if len(hours) == 1 else "unknown",
    )


def look_at(path: Path, grouping: Grouping) -> OpenPlan:
    """The plan of a file or folder."""
    return plan_path(path, grouping)


def looking(path: Path, grouping: Grouping) -> Steps[OpenPlan | str]:
    """Plan a file or folder, or report why that is impossible."""
    yield Progress(0, 1, "Inspecting …")
    try:
        return look_at(path, grouping)
    except ImageError as error:
        return str(error)


def layers_of(plan: OpenPlan) -> Steps[None]:
    """Open a plan image by image; the item of a step is its layers, or the error of an unreadable image."""
    for done, planned in enumerate(plan.images, start=1):
        item: Any
        try:
            item = open_layers(planned)
        except ImageError as error:
            item = error
        yield Progress(done, len(plan.images), planned.name, item)


CHOOSE_AXES = "The file does not say what its axes are. Choose them: T for frames in time, F for focal planes."

# --- the window -----------------------------------------------------------------------------------------------------


class OpenEmbryo(Container[Any]):
    """Choose a file or folder, see how it will be read, correct that, and open it.

    Parameters
    ----------
    napari_viewer
        Viewer to add the layers to.
    """

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        self._viewer = napari_viewer
        self._plan: OpenPlan | None = None
        self._looking: Job[OpenPlan | str] | None = None
        self._opening: Job[None] | None = None
        self._failed: list[str] = []
        self._make_fields()
        super().__init__(
            widgets=[
                self.path, self._row(self.choose_file, self.choose_folder), self.grouping, self.plan_text, self.axes,
                self.pixel_size_um, self.hours_per_frame, self.first_hour, self.spacing_um, self.focus, self.gaps,
                self.status, self._row(self.open_button, self.cancel_button),
            ],
        )  # fmt: skip
        self._connect()
        self.native.setMinimumWidth(320)

    def _make_fields(self) -> None:
        self.path = LineEdit(label="File or folder")
        self.choose_file = PushButton(text="Choose file…")
        self.choose_folder = PushButton(text="Choose folder…")
        self.grouping = ComboBox(
            label="Files", choices=get_args(Grouping), tooltip="auto: by file names; one stack; or each file separately"
        )
        self.plan_text = TextEdit(label="Plan", value="Choose a file or folder.")
        # A function, since napari resets the choices with every new layer.
        self.axes = ComboBox(
            label="Axes", choices=self._axes_choices, tooltip="As stored: T time, F focal plane, C channel, Y, X"
        )
        self.pixel_size_um = LineEdit(label="µm per pixel", tooltip="One number, or height x width")
        self.hours_per_frame = LineEdit(
            label="Hours between frames", tooltip="Time between two runs, counting missing ones"
        )
        self.first_hour = LineEdit(label="Hours at first frame", tooltip="Hours after insemination, if known")
        self.spacing_um = LineEdit(label="µm between planes", tooltip="Distance between focal planes")
        self.focus = ComboBox(
            label="Focal planes",
            choices=get_args(Focus),
            tooltip="all; best: the sharpest; edf: extended depth of field",
        )
        self.gaps = ComboBox(
            label="Missing runs",
            choices=get_args(Gaps),
            tooltip="leave out: the hours keep the gap; empty: a black frame",
        )
        self.status = Label(value="")
        self.open_button = PushButton(text="Open", enabled=False)
        self.cancel_button = PushButton(text="Cancel", enabled=False)
        self.plan_text.read_only = True
        self.plan_text.native.setFixedHeight(150)
        self.status.native.setWordWrap(True)

    @staticmethod
    def _row(*widgets: Any) -> Container[Any]:
        return Container(widgets=list(widgets), layout="horizontal", labels=False)

    def _connect(self) -> None:
        self.path.changed.connect(self.look)
        self.grouping.changed.connect(self.look)
        self.choose_file.changed.connect(self._choose_file)
        self.choose_folder.changed.connect(self._choose_folder)
        self.open_button.changed.connect(self.open)
        self.cancel_button.changed.connect(self.cancel)
        for field in self._fields().values():
            field.changed.connect(self._refresh)

    def _axes_choices(self, _: object = None) -> tuple[str, ...]:
        """Whether the user has to choose axes that a file does not state."""
        if self._plan is None:
            return ("",)
        return ("",) * self._plan.are_axes_assumed + self._plan.axes_choices

    def _fields(self) -> dict[str, Any]:
        return {
            "axes": self.axes,
            "pixel_size_um": self.pixel_size_um,
            "hours_per_frame": self.hours_per_frame,
            "first_hour": self.first_hour,
            "spacing_um": self.spacing_um,
            "focus": self.focus,
            "gaps": self.gaps,
        }

    # --- what the form says

    def value(self) -> OpenChoices:
        """The choices in the form."""
        texts: dict[str, Any] = {name: field.value or "" for name, field in self._fields().items()}
        return choices_of(FormText(**texts))

    def set_value(self, choices: OpenChoices) -> None:
        """Show choices in the form."""
        text = text_of(choices)
        for name, field in self._fields().items():
            field.value = getattr(text, name)

    @property
    def plan(self) -> OpenPlan | None:
        """What will be opened, with the choices in the form."""
        if self._plan is None:
            return None
        choices = self.value()
        return self._plan.edited(choices if choices.axes in self._plan.axes_choices else replace(choices, axes=None))

    # --- looking

    def _choose_file(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(self.native, "Choose an embryo image")
        self.path.value = chosen or self.path.value

    def _choose_folder(self) -> None:
        self.path.value = QFileDialog.getExistingDirectory(self.native, "Choose a folder") or self.path.value

    def look(self) -> None:
        """Inspect the file or folder in a worker and show the plan."""
        self._plan = None
        self.open_button.enabled = False
        path = self.path.value.strip()
        if not path:
            self.plan_text.value = "Choose a file or folder."
            return
        self.plan_text.value = "Looking…"
        asked = (path, self.grouping.value)
        self._looking = Job(
            partial(looking, Path(path), self.grouping.value),
            on_step=lambda _: None,
            on_result=lambda plan: self._show(plan, asked),
            on_error=lambda error: self._show_failure(error, asked),
            on_end=lambda: None,
        )
        self._looking.start()

    def _is_current(self, asked: tuple[str, str]) -> bool:
        return asked == (self.path.value.strip(), self.grouping.value)

    def _show(self, plan: OpenPlan | str, asked: tuple[str, str]) -> None:
        if not self._is_current(asked):
            return
        if isinstance(plan, str):
            self.plan_text.value = plan
            show_error(plan)
        else:
            self._show_plan(plan)

    def _show_failure(self, error: Exception, asked: tuple[str, str]) -> None:
        said = tell(error, "Looking")
        if self._is_current(asked):
            self.plan_text.value = said

    def _show_plan(self, plan: OpenPlan) -> None:
        self._plan = plan
        self.axes.reset_choices()
        self.axes.value = "" if plan.are_axes_assumed else plan.images[0].file_axes
        known = known_text(plan)
        for name in ("pixel_size_um", "hours_per_frame", "first_hour"):
            self._fields()[name].native.setPlaceholderText(getattr(known, name))
        self._refresh()

    def _refresh(self) -> None:
        try:
            plan = self.plan
        except ValueError as error:
            self.status.value = str(error)
            self.open_button.enabled = False
            return
        self.status.value = CHOOSE_AXES if plan is not None and plan.are_axes_assumed else ""
        if plan is not None:
            self.plan_text.value = plan.text()
            self.open_button.enabled = self._may_open()

    def _may_open(self) -> bool:
        plan = self.plan
        return plan is not None and self._opening is None and not plan.are_axes_assumed

    # --- opening

    def open(self) -> None:
        """Open the plan in a worker; layers are added one by one."""
        plan = self.plan
        if plan is None:
            return
        self._failed = []
        self.open_button.enabled = False
        self.cancel_button.enabled = True
        self._opening = Job(
            partial(layers_of, plan),
            on_step=self._add,
            on_result=lambda _: None,
            on_error=self._stopped,
            on_end=self._finish,
        )
        self._opening.start()

    def cancel(self) -> None:
        """Stop after the image being opened; opened ones are kept."""
        if self._opening is not None:
            self._opening.cancel()

    def _add(self, progress: Progress) -> None:
        self.status.value = f"{progress.done} of {progress.total}: {progress.message}"
        if isinstance(progress.item, ImageError):
            self._failed.append(str(progress.item))
        else:
            for layer in progress.item:
                add_layer(self._viewer, layer)

    def _stopped(self, error: Exception) -> None:
        self.status.value = tell(error, "Opening")

    def _finish(self) -> None:
        self._opening = None
        self.cancel_button.enabled = False
        self.open_button.enabled = self._may_open()
        if self._failed:
            show_warning("\n".join(self._failed))
