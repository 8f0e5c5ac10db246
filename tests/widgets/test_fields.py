"""Fields give back what they show."""

import pytest

from napari_embryo.settings import TrainSettings
from napari_embryo.widgets._editors import FolderList, NamesEditor, NumberEditor, TableEditor, number_editors


@pytest.mark.parametrize("number", [0, 1, 0.1, 1 / 3, 3e-5, 1e-8, 123456.789])
def test_a_number_is_not_rounded(qtbot, number: float) -> None:
    editor = NumberEditor()
    qtbot.addWidget(editor.native)
    editor.value = number
    assert float(editor.value) == number


def test_a_decimal_comma_is_understood(qtbot) -> None:
    editor = NumberEditor()
    qtbot.addWidget(editor.native)
    editor.native.setText(" 0,25 ")
    assert TrainSettings(learning_rate=editor.value).learning_rate == 0.25


def test_every_real_number_of_the_settings_has_an_editor() -> None:
    assert {"learning_rate", "weight_decay", "clip_norm"} <= number_editors(TrainSettings).keys()
    assert not {"epochs", "device", "frozen_batch_norm"} & number_editors(TrainSettings).keys()


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", {}),
        ("dice 1, edge 0.5", {"dice": "1", "edge": "0.5"}),
        ("dice: 1,edge = 0.5 ,", {"dice": "1", "edge": "0.5"}),
        ("clinic A 3", {"clinic A": "3"}),
    ],
)
def test_a_table_in_a_line(qtbot, text: str, numbers: dict[str, str]) -> None:
    editor = TableEditor()
    qtbot.addWidget(editor.native)
    editor.native.setText(text)
    assert editor.value == numbers
    editor.value = {name: float(number) for name, number in numbers.items()}
    assert {name: float(number) for name, number in editor.value.items()} == {
        name: float(number) for name, number in numbers.items()
    }


def test_folders_come_once_and_go(qtbot) -> None:
    folders = FolderList()
    qtbot.addWidget(folders.native)
    for folder in ("/a", "/b", "/a"):
        folders.add(folder)
    assert folders.value == ("/a", "/b")
    folders.list.item(0).setSelected(True)
    folders.remove_button.click()
    assert folders.value == ("/b",)


@pytest.mark.parametrize(
    ("typed", "names"), [("", ()), ("drawn", ("drawn",)), ("a b, c", ("a b", "c")), (" a ,, b,", ("a", "b"))]
)
def test_names_between_commas(qtbot, typed: str, names: tuple[str, ...]) -> None:
    editor = NamesEditor()
    qtbot.addWidget(editor.native)
    editor.native.setText(typed)
    assert editor.value == names
    editor.value = names
    assert editor.value == names
