"""Scores against hand-counted pixels."""

from statistics import mean, pstdev

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, mean_absolute_error

from napari_embryo.data import Sample
from napari_embryo.evaluate import (
    RATIO_COLUMNS,
    bootstrap_interval,
    quadratic_kappa,
    ratio_summary,
    score,
    score_ratios,
    summary,
)
from napari_embryo.families import FRAGMENT_CLASSES
from napari_embryo.image import Parts

CLASSES = ("ICM", "TE", "ZP")


def strip(length: int, start: int = 0) -> np.ndarray:
    """``length`` pixels in a row of 40, from ``start``."""
    mask = np.zeros((4, 40), bool)
    mask[1, start : start + length] = True
    return mask


def sample(
    name: str, embryo: str, source: str = "microscope", known: tuple[bool, bool, bool] = (True, True, True)
) -> Sample:
    masks = np.stack([strip(10), strip(20), strip(8, 30)])
    return Sample.of(name, np.zeros((4, 40), np.uint8), masks, np.array(known), embryo, source)


def predict_shifted(_: np.ndarray) -> np.ndarray:
    """ICM: 5 of 10 pixels and 5 wrong; TE: the left half of it; ZP: nothing."""
    return np.stack([strip(10, 5), strip(10), strip(0)])


def test_scores_are_the_hand_counted_ones() -> None:
    scores = score([sample("a", "e1")], predict_shifted, CLASSES).set_index("class")
    expected = {  # intersection, union, IoU, Dice = 2 I / (found + truth)
        "ICM": (5, 15, 5 / 15, 2 * 5 / 20),
        "TE": (10, 20, 10 / 20, 2 * 10 / 30),
        "ZP": (0, 8, 0.0, 0.0),
    }
    for name, (both, either, iou, dice) in expected.items():
        row = scores.loc[name]
        assert (row["intersection"], row["union"]) == (both, either)
        assert row["found"] + row["truth"] == both + either
        assert (row["iou"], row["dice"]) == pytest.approx((iou, dice))
        assert (row["image"], row["embryo"], row["source"]) == ("a", "e1", "microscope")


def test_a_perfect_prediction_scores_one() -> None:
    one = sample("a", "e1")
    scores = score([one], lambda _: one.read().masks, CLASSES)
    assert (scores["iou"] == 1).all()
    assert (scores["dice"] == 1).all()


def test_a_class_nobody_drew_is_left_out_not_counted_as_empty() -> None:
    scores = score([sample("young", "e1", known=(False, False, True)), sample("b", "e2")], predict_shifted, CLASSES)
    assert scores.groupby("image")["class"].apply(list).to_dict() == {"b": list(CLASSES), "young": ["ZP"]}
    table = summary(scores).set_index("class")
    assert table["images"].to_dict() == {"ICM": 1, "TE": 1, "ZP": 2}


def scored(rows: list[tuple[str, str, float, int, int]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["image", "embryo", "iou", "intersection", "union"])
    return frame.assign(source="microscope", dice=2 * frame["iou"] / (1 + frame["iou"]), **{"class": "ICM"})


def test_macro_counts_images_and_pooled_counts_pixels() -> None:
    rows = [("a", "e1", 0.5, 1, 2), ("b", "e1", 1.0, 6, 6), ("c", "e2", 0.25, 25, 100)]
    (row,) = summary(scored(rows)).to_dict("records")
    assert (row["images"], row["embryos"]) == (3, 2)
    assert row["iou"] == pytest.approx(mean((0.5, 1.0, 0.25)))
    assert row["iou_std"] == pytest.approx(pstdev((0.5, 1.0, 0.25)))
    assert row["iou_pooled"] == pytest.approx((1 + 6 + 25) / (2 + 6 + 100))
    assert row["dice"] == pytest.approx(mean((2 / 3, 1.0, 0.4)))
    assert row["dice_pooled"] == pytest.approx(2 * 32 / (108 + 32))
    assert row["iou_low"] <= row["iou"] <= row["iou_high"]


def test_nothing_drawn_and_nothing_found_is_right() -> None:
    """Macro and micro alike."""
    (row,) = summary(scored([("a", "e1", 1.0, 0, 0)])).to_dict("records")
    assert (row["iou"], row["iou_pooled"], row["dice_pooled"]) == (1, 1, 1)


def test_no_known_class_gives_an_empty_table_not_an_error() -> None:
    scores = score([sample("a", "e1", known=(False, False, False))], predict_shifted, CLASSES)
    assert (len(scores), len(summary(scores))) == (0, 0)


def test_sources_are_told_apart() -> None:
    scores = score([sample("a", "e1"), sample("b", "e2", "incubator")], predict_shifted, CLASSES)
    assert set(zip(summary(scores)["source"], summary(scores)["class"], strict=True)) == {
        (source, name) for source in ("microscope", "incubator") for name in CLASSES
    }
    assert summary(scores, by=("class",))["images"].tolist() == [2, 2, 2]


VALUES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=30)


@given(VALUES, st.integers(0, 99))
def test_the_interval_lies_within_the_embryos_and_repeats(values: list[tuple[float, int]], seed: int) -> None:
    numbers = np.array([v for v, _ in values])
    embryos = np.array([f"e{g}" for _, g in values])
    low, high = bootstrap_interval(numbers, embryos, seed, draws=200)
    means = [numbers[embryos == e].mean() for e in np.unique(embryos)]
    if len(means) > 1:
        assert min(means) - 1e-9 <= low <= high <= max(means) + 1e-9
        assert (low, high) == bootstrap_interval(numbers, embryos, seed, draws=200)


def test_one_embryo_tells_nothing_of_others_however_many_images() -> None:
    assert np.isnan(bootstrap_interval(np.array([0.2, 0.9, 0.5]), np.array(["e"] * 3))).all()
    one = summary(scored([("a", "e", 0.5, 1, 2), ("b", "e", 0.7, 1, 2)]), ["class"]).iloc[0]
    assert (one["iou"], one["embryos"]) == (pytest.approx(0.6), 1)
    assert one[["iou_low", "iou_high"]].isna().all()
    told = ratio_summary(ratios([("e", 0.1, "A", 0.2, 0.2), ("e", 0.2, "B", 0.2, 0.2)]))
    assert told["mae"].notna().all()
    assert told[["mae_low", "mae_high"]].isna().all(axis=None)


def test_the_interval_is_that_of_the_mean() -> None:
    """Independent embryos: mean +- 1.96 sd / sqrt(n), the normal approximation."""
    values = np.random.default_rng(0).normal(0.8, 0.1, 400)
    low, high = bootstrap_interval(values, np.arange(400).astype(str))
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(400), rel=0.1)


def test_images_of_one_embryo_do_not_narrow_the_interval() -> None:
    values, embryos = np.array([0.5, 0.7, 0.9]), np.array(["a", "b", "c"])
    once = bootstrap_interval(values, embryos)
    assert bootstrap_interval(np.repeat(values, 10), np.repeat(embryos, 10)) == pytest.approx(once)


# --- ratios ---------------------------------------------------------------------------------------------------------


def fragmented(known: tuple[bool, bool] = (True, True), **told: object) -> Sample:
    """5 of 20 pixels of the embryo are fragments."""
    return Sample.of("a", np.zeros((4, 40), np.uint8), np.stack([strip(5), strip(20)]), np.array(known), "e", **told)


def found(fragments: int, embryo: int, **numbers: float) -> Parts:
    masks = np.stack([strip(fragments), strip(embryo)])
    return Parts(FRAGMENT_CLASSES, masks, masks.astype(np.float32), numbers)


NOTHING_DRAWN = Parts((), np.zeros((0, 4, 40), bool), np.zeros((0, 4, 40), np.float32), {"ratio_regressed": 0.3})


@pytest.mark.parametrize(
    ("sample", "ratio", "ratio_source", "grade"),
    [
        (fragmented(), 0.25, "mask", "C"),
        (fragmented(ratio=0.6, grade="D"), 0.25, "mask", "C"),  # what is drawn goes before what is told
        (fragmented((True, False), ratio=0.1), 0.1, "ratio", "B"),
        (fragmented((False, False), ratio=0.5, grade="D"), 0.5, "ratio", "C"),
        (fragmented((False, False), grade="D"), None, "grade", "D"),
    ],
)
def test_the_true_ratio_and_where_it_is_from(
    sample: Sample, ratio: float | None, ratio_source: str, grade: str
) -> None:
    (row,) = score_ratios([sample], lambda _: found(2, 10, ratio_regressed=0.12)).to_dict("records")
    assert tuple(row) == RATIO_COLUMNS
    assert (row["image"], row["embryo"], row["ratio_source"], row["grade"]) == ("a", "e", ratio_source, grade)
    assert row["ratio"] == pytest.approx(np.nan if ratio is None else ratio, nan_ok=True)
    assert (row["regressed"], row["grade_regressed"]) == (0.12, "B")
    assert (row["from_mask"], row["grade_from_mask"]) == (0.2, "B")


@pytest.mark.parametrize(
    ("what", "regressed", "from_mask"),
    [
        (found(2, 10), None, 0.2),
        (found(0, 0), None, 0.0),  # no embryo is a wrong answer, not none
        (found(6, 0), None, 1.0),
        (NOTHING_DRAWN, 0.3, None),
    ],
)
def test_what_a_network_does_not_tell_is_empty(what: Parts, regressed: float | None, from_mask: float | None) -> None:
    (row,) = score_ratios([fragmented()], lambda _: what).to_dict("records")
    told = [np.nan if each is None else each for each in (regressed, from_mask)]
    assert [row["regressed"], row["from_mask"]] == pytest.approx(told, nan_ok=True)


def test_a_picture_without_ratio_and_grade_is_left_out() -> None:
    assert score_ratios([fragmented((False, True))], lambda _: found(2, 10)).empty


def ratios(rows: list[tuple[str, float, str, float, float]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["embryo", "ratio", "grade", "regressed", "from_mask"])
    return frame.assign(image=frame.index.astype(str), source="s")


MEASURED = ratios(
    [
        ("e1", 0.0, "A", 0.05, 0.0),
        ("e1", 0.05, "A", 0.15, 0.02),
        ("e2", 0.2, "B", 0.18, 0.3),
        ("e3", 0.4, "C", 0.6, 0.2),
        ("e4", np.nan, "D", 0.4, 0.7),
    ]
)
"""The last one has a grade alone."""


@pytest.mark.parametrize(("way", "column"), [("regressed", "regressed"), ("mask", "from_mask")])
def test_the_ratios_numbers_are_scikit_learns(way: str, column: str) -> None:
    row = ratio_summary(MEASURED).set_index("way").loc[way]
    told = MEASURED[MEASURED["ratio"].notna()]
    assert (row["pictures"], row["embryos"], row["graded"]) == (4, 3, 5)
    assert row["mae"] == pytest.approx(mean_absolute_error(told["ratio"], told[column]))
    assert row["bias"] == pytest.approx(mean(told[column]) - mean(told["ratio"]))
    assert row["mae_low"] <= row["mae"] <= row["mae_high"]
    answers = ["ABCD"[np.digitize(value, (0.1, 0.25, 0.5))] for value in MEASURED[column]]
    assert row["grades_right"] == pytest.approx(accuracy_score(MEASURED["grade"], answers))
    kappa = cohen_kappa_score(MEASURED["grade"], answers, labels=list("ABCD"), weights="quadratic")
    assert row["kappa"] == pytest.approx(kappa)


@pytest.mark.parametrize(("usual", "answer"), [(None, 0.125), (0.03, 0.03)])
def test_beside_them_stands_what_always_the_same_answer_comes_to(usual: float | None, answer: float) -> None:
    row = ratio_summary(MEASURED, usual).set_index("way").loc["median"]
    assert row["mae"] == pytest.approx(mean(abs(r - answer) for r in (0.0, 0.05, 0.2, 0.4)))
    assert row["kappa"] == pytest.approx(0)


def test_ways_that_there_are_not_have_no_row() -> None:
    alone = MEASURED.assign(regressed=np.nan)
    assert ratio_summary(alone)["way"].tolist() == ["mask", "median"]
    assert ratio_summary(alone.assign(from_mask=np.nan))["way"].tolist() == ["median"]


def test_grades_alone_have_no_error() -> None:
    row = ratio_summary(MEASURED[4:]).set_index("way").loc["mask"]
    assert (row["pictures"], row["graded"], row["grades_right"]) == (0, 1, 1)
    assert np.isnan([row["mae"], row["bias"], row["kappa"]]).all()


GRADE = st.sampled_from("ABCD")


@given(st.lists(st.tuples(GRADE, GRADE), min_size=2, max_size=30))
def test_kappa_is_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    truth, answers = ([pair[i] for pair in pairs] for i in (0, 1))
    if len({*truth, *answers}) == 1:
        assert np.isnan(quadratic_kappa(truth, answers))
    else:
        expected = cohen_kappa_score(truth, answers, labels=list("ABCD"), weights="quadratic")
        assert quadratic_kappa(truth, answers) == pytest.approx(expected)
