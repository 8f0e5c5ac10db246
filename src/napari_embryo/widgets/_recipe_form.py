"""The form for a whole recipe in the Train widget."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QLineEdit, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_embryo import problems, recipes
from napari_embryo.families import DEFAULT, FAMILIES, NetworkSettings, shape_code_families
from napari_embryo.settings import RESERVED_NAMES, Augmentation, DataSettings, Preprocessing, Recipe, TrainSettings
from napari_embryo.widgets._editors import (
    DeviceEditor,
    FolderList,
    NamesEditor,
    PathEditor,
    TableEditor,
    WeightsEditor,
    number_editors,
)
from napari_embryo.widgets._form import Editor, NoteLabel, SettingsForm, form_layout, guard_wheel, tooltip

_ANEW = {"random": "random weights"}
_FROM_IMAGENET = {"imagenet": "ImageNet encoder", **_ANEW}
_BUNDLED = {"bundled": "bundled weights"}

USUAL = next(iter(FAMILIES[DEFAULT].recipes.values()))
"""Initial recipe of the form, suitable for a few images and the bundled weights."""


def starts_of(family: str) -> dict[str, str]:
    """Starting weights of a family besides models of the library and files; the usual one comes first."""
    others = _FROM_IMAGENET if FAMILIES[family].has_imagenet_encoder else _ANEW
    return {**_BUNDLED, **others} if FAMILIES[family].ships else dict(others)


LABELS = {"parts": "What learns", "folds": "Cross-validation folds", "fold": "Fold to validate on"}

OWN_SHAPE_CODE = {"": "that of the starting weights, or the bundled one"}

BRINGS_ITS_OWN = "Network and input size are those of these weights."


class RecipeForm:
    """The fields of a recipe.

    Parameters
    ----------
    look_for_devices
        Starts loading the descriptions of devices.

    Attributes
    ----------
    data
        The form of the data settings, placed by the widget next to the images.
    network
        All the other fields.
    shown_with_augmentation
        The collapsed section with the augmentation; the widget may add to it.
    """

    def __init__(self, look_for_devices: Callable[[], None]) -> None:
        self._recipe = recipes.read(USUAL)
        self.name, self.family, self.start = QLineEdit(), QComboBox(), WeightsEditor(starts_of(DEFAULT), (DEFAULT,))
        self.backbone = PathEditor("ImageNet weights of a ResNet-50", "Weights (*.safetensors)")
        self.shape_code = WeightsEditor(OWN_SHAPE_CODE, shape_code_families())
        self.folders, self.device = FolderList(), DeviceEditor(look_for_devices)
        table = {"embryo_table": PathEditor("Table with the columns image and embryo", "Tables (*.csv)")}
        sides = {name: NamesEditor() for name in ("only_train", "only_validation")}
        named: dict[str, Editor] = {"folders": self.folders, "repeats": TableEditor()}
        self.data = _form(DataSettings, ("folders",), {**named, **sides, **table})
        self.training = _form(
            TrainSettings, ("epochs", "parts", "device"), {"device": self.device, "loss_weights": TableEditor()}
        )
        self.augmentation, self.preprocessing = _form(Augmentation), _form(Preprocessing)
        self.network = QWidget()
        self._lay_out()
        self.family.currentIndexChanged.connect(lambda _: self._follow_family())
        self.start.box.currentIndexChanged.connect(lambda _: self._follow_start())
        self.set_value(self._recipe)

    def value(self) -> Recipe:
        """The recipe in the fields.

        Raises
        ------
        ValueError
            If a field is invalid; the message names it, its value and what is needed.
        """
        parts: dict[str, Any] = {
            name: getattr(self, name).value() for name in ("data", "training", "augmentation", "preprocessing")
        }
        model = self._model()
        parts |= {"name": self.name.text().strip(), "start": self.start.value, "backbone": self.backbone.value}
        parts |= {"shape_code": self.shape_code.value if model.shape_code else ""}
        try:
            return Recipe(model=model, **parts)
        except ValidationError as error:
            raise ValueError("; ".join(_problem_said(dict(problem)) for problem in error.errors())) from error

    def set_value(self, recipe: Recipe) -> None:
        """Show a recipe in the fields."""
        self._recipe = recipe
        self.name.setText(recipe.name)
        self.family.setCurrentIndex(self.family.findData(recipe.model.family))
        self.start.value, self.backbone.value = recipe.start, recipe.backbone
        self.shape_code.value = recipe.shape_code
        for name in ("data", "training", "augmentation", "preprocessing"):
            getattr(self, name).set_value(getattr(recipe, name))
        self._follow_start()
        self._offer_shape_codes()

    def _model(self) -> NetworkSettings:
        """All settings of a loaded recipe's network, as long as the family is unchanged."""
        if self._recipe.model.family == self.family.currentData():
            return self._recipe.model
        return FAMILIES[self.family.currentData()].settings.model_validate({})

    # --- the window

    def _lay_out(self) -> None:
        column = QVBoxLayout(self.network)
        column.setContentsMargins(0, 0, 0, 0)
        basics = QWidget()
        self._fill(form_layout(basics))
        below_device, _ = self.training.rows.getWidgetPosition(self.device.native)
        self.training.rows.insertRow(below_device + 1, "", self.device.line)
        self.shown_with_augmentation = _folded("Augmentation", self.augmentation)
        for part in (basics, self.training, self.shown_with_augmentation, _folded("Input size", self.preprocessing)):
            column.addWidget(part)

    def _fill(self, rows: QFormLayout) -> None:
        for name, family in FAMILIES.items():
            self.family.addItem(family.title, name)
        guard_wheel(self.family)
        self.backbone_label, self.about_start = QLabel("ImageNet file"), NoteLabel()
        self.shape_code_label = QLabel("Shape code")
        meanings = {name: field.description or "" for name, field in Recipe.model_fields.items()}
        for label, widget, meaning in (
            (QLabel("Name"), self.name, meanings["name"]),
            (QLabel("Network"), self.family, "The family of networks."),
            (QLabel("Start from"), self.start.native, meanings["start"]),
            (self.backbone_label, self.backbone.native, meanings["backbone"]),
            (self.shape_code_label, self.shape_code.native, meanings["shape_code"]),
            (QLabel(""), self.about_start, ""),
        ):
            label.setToolTip(tooltip(meaning))
            widget.setToolTip(tooltip(meaning))
            rows.addRow(label, widget)

    def _follow_family(self) -> None:
        family = self.family.currentData()
        self.start.box.offer(starts_of(family), (family,))
        self.start.box.setCurrentIndex(0)
        self._train_as(recipes.read(FAMILIES[family].recipes[self.start.value]))
        self._offer_shape_codes()

    def _offer_shape_codes(self) -> None:
        for part in (self.shape_code_label, self.shape_code.native):
            part.setVisible(self._model().shape_code is not None)

    def _train_as(self, usual: Recipe) -> None:
        """Reset losses and rates, which differ between families."""
        self.training.set_value(usual.training.model_copy(update={"device": self.device.value}))
        self.augmentation.set_value(usual.augmentation)
        self.preprocessing.set_value(usual.preprocessing)

    def _follow_start(self) -> None:
        imagenet, anew = self.start.value == "imagenet", self.start.value in ("imagenet", "random")
        for part in (self.backbone_label, self.backbone.native):
            part.setVisible(imagenet)
        self.preprocessing.setEnabled(anew)
        self.about_start.setText("" if anew else BRINGS_ITS_OWN)
        self.about_start.setVisible(not anew)


def _problem_said(problem: dict[str, Any]) -> str:
    """What is wrong with a recipe whose parts are valid."""
    if problem["loc"] != ("name",):
        return problems.said(problem)
    return (
        f"Name of the model: {problem['input']!r} was given; use letters, digits, '.', '_' and '-', starting with a "
        f"letter or digit, but not {', '.join(RESERVED_NAMES)}"
    )


def _form(model: type[BaseModel], basic: tuple[str, ...] = (), editors: dict[str, Editor] | None = None) -> Any:
    """A form with the advanced fields collapsed; without basic fields, none are."""
    advanced = [name for name in model.model_fields if name not in basic] if basic else []
    return SettingsForm(model, advanced, {**number_editors(model), **(editors or {})}, LABELS)


def _folded(title: str, content: QWidget) -> QCollapsible:
    folded = QCollapsible(title, expandedIcon="▾", collapsedIcon="▸")
    folded.addWidget(content)
    folded.collapse(animate=False)
    return folded
