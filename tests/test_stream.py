"""Every event survives the way through a line of JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_embryo import stream
from napari_embryo.notes import Note

NAMES = st.text(max_size=12)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
LOSSES = st.dictionaries(NAMES, NUMBERS, max_size=3)
COUNT = st.integers(0, 10**9)
NOTE = st.builds(Note, level=st.sampled_from(("info", "warning")), text=st.text())
PATH = st.none() | st.builds(Path, st.from_regex(r"\A[a-zé ]{1,9}\Z"))
CELLS = (
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | NAMES
)
STEP = {"done": COUNT, "total": COUNT, "epoch": COUNT, "learning_rate": NUMBERS, "seconds": NUMBERS}
EVENTS = st.one_of(
    st.builds(
        stream.Report, text=st.text(), rows=st.lists(st.dictionaries(NAMES, CELLS, max_size=3), max_size=3).map(tuple)
    ),
    st.builds(stream.Step, losses=LOSSES, **STEP),
    st.builds(
        stream.Epoch,
        train=LOSSES,
        validation=LOSSES,
        scores=LOSSES,
        worst=st.lists(st.tuples(NAMES, NUMBERS), max_size=3).map(tuple),
        best=st.booleans(),
        **STEP,
    ),
    st.builds(stream.Noted, note=NOTE),
    st.just(stream.Paused()),
    st.just(stream.Resumed()),
    st.builds(
        stream.Finished,
        epochs=COUNT,
        best_epoch=COUNT,
        best=PATH,
        last=PATH,
        reason=st.sampled_from(("finished", "early", "stopped")),
        notes=st.lists(NOTE, max_size=3).map(tuple),
        added=PATH,
    ),
    st.builds(stream.Error, message=st.text()),
)


def refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is not JSON")


@given(EVENTS)
def test_an_event_comes_back_as_it_was(event: stream.Event) -> None:
    line = stream.encode(event)
    back = stream.decode(line)
    assert type(back) is type(event)
    assert repr(back) == repr(event)  # NaN is not equal to itself


@given(EVENTS)
def test_a_line_is_one_line_of_plain_json(event: stream.Event) -> None:
    """For readers in any language and encoding."""
    line = stream.encode(event)
    assert line.isascii()
    assert len(line.splitlines()) == 1
    said = json.loads(line, parse_constant=refuse)
    assert said["event"] == event.event


def test_a_newer_program_may_say_more() -> None:
    newer = '{"event": "note", "note": {"level": "info", "text": "m", "color": "red"}, "sound": "bell"}'
    assert stream.decode(newer) == stream.Noted(note=Note("info", "m"))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "Expecting value"),
        ("Epoch 1/10", "Epoch 1/10"),
        ('{"event": "note"', "delimiter"),
        ("[1, 2]", "a group of settings"),
        ('{"message": "m"}', "event"),
        ('{"event": "party"}', "party"),
        ('{"event": "note"}', "note: nothing was given"),
        ('{"event": "step", "done": "some"}', "done"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_line_that_is_none_of_ours_is_shown(line: str, says: str) -> None:
    with pytest.raises(ValueError, match="the training process wrote") as caught:
        stream.decode(line)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 700
