"""A form shows settings and gives them back."""

import pytest
from pydantic import BaseModel, Field, ValidationError
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication

from napari_embryo.settings import Augmentation, Preprocessing, SegmentSettings
from napari_embryo.widgets._form import CheckList, SettingsForm, step_of

CHANGED = [
    pytest.param(Preprocessing(height=64, fit="stretch", low_percentile=1.5), id="preprocessing"),
    pytest.param(Augmentation(rotation=15, flips=False, shift=0.05), id="augmentation"),
]


@pytest.mark.parametrize("settings", CHANGED)
def test_a_form_gives_back_what_it_shows(qtbot, settings: BaseModel) -> None:
    form = SettingsForm(type(settings))
    qtbot.addWidget(form)
    assert form.value() == type(settings)()
    form.set_value(settings)
    assert form.value() == settings


def test_fields_keep_to_the_bounds_and_tell_what_they_mean(qtbot) -> None:
    form = SettingsForm(Preprocessing)
    qtbot.addWidget(form)
    height, high = form.editors["height"], form.editors["high_percentile"]
    assert (height.min, height.max) == (32, 4096)
    assert 50 < high.min < high.max == 100
    assert "percentile" in high.native.toolTip()


def test_advanced_fields_are_folded_away(qtbot) -> None:
    form = SettingsForm(Preprocessing, advanced=("low_percentile",))
    qtbot.addWidget(form)
    assert not form.advanced.isExpanded()
    assert form.value() == Preprocessing()


def test_a_check_list_keeps_its_order(qtbot) -> None:
    names = CheckList({"a": "first", "b": "second", "c": "third"})
    qtbot.addWidget(names.native)
    names.value = ("c", "a")
    assert names.value == ("a", "c")
    with pytest.raises(ValueError, match="d was given, but the list has a, b, c"):
        names.value = ("d",)


def test_settings_that_do_not_go_together_are_explained(qtbot) -> None:
    class Pair(BaseModel):
        names: tuple[str, ...] = Field(("a",), min_length=1)

    form = SettingsForm(Pair, editors={"names": CheckList({"a": "", "b": ""})})
    qtbot.addWidget(form)
    form.editors["names"].value = ()
    with pytest.raises(ValueError, match=r"names: \(\) was given; a list with at least 1") as caught:
        form.value()
    assert not isinstance(caught.value, ValidationError)


def test_an_annotation_without_a_field_is_named(qtbot) -> None:
    class Odd(BaseModel):
        thing: complex = 1j

    with pytest.raises(ValueError, match=r"Odd\.thing: no form field"):
        SettingsForm(Odd)


@pytest.mark.parametrize(("default", "step"), [(0.5, 0.01), (1e-3, 1e-4), (5.0, 0.1), (0.0, 0.01)])
def test_steps_fit_the_default(default: float, step: float) -> None:
    assert step_of(default) == pytest.approx(step)


def test_scrolling_past_a_field_leaves_it_alone(qtbot) -> None:
    form = SettingsForm(Preprocessing)
    qtbot.addWidget(form)
    field = form.editors["height"].native
    down = QWheelEvent(
        QPointF(2, 2), QPointF(2, 2), QPoint(0, -120), QPoint(0, -120), Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(field, down)
    assert form.value() == Preprocessing()


def test_segment_settings_need_an_editor_for_their_maps(qtbot) -> None:
    form = SettingsForm(SegmentSettings, editors={"maps": CheckList(dict.fromkeys(SegmentSettings().maps, ""))})
    qtbot.addWidget(form)
    assert form.value() == SegmentSettings()
