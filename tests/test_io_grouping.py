"""Which files are one embryo: different embryos never become one time-lapse by accident."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_embryo.image import EmbryoImage
from napari_embryo.io import OpenChoices, open_plan, plan_file, plan_files, plan_folder
from napari_embryo.io.names import read_name


def save(path: Path, value: int = 100) -> Path:
    """A picture of one gray value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((16, 16), value, np.uint8)).save(path)
    return path


def folder(root: Path, names: list[str]) -> Path:
    for value, name in enumerate(names):
        save(root / name, 50 + value)
    return root


def first_pixels(image: EmbryoImage) -> Any:
    return np.asarray(image.data)[..., 0, 0].tolist()


SEPARATE = {
    "GERI wells": [f"Demo_well{i:02d}_zid99_Example 2 6.0_172500.png" for i in range(1, 8)],
    "Windows numbers": [f"8C A ({i}).png" for i in range(1, 6)],
    "a Gardner grade and a number": [f"3AA ({i}).png" for i in range(1, 6)],
    "bare numbers": [f"{i:05}.png" for i in range(1305, 1310)],
    "numbered embryos": [f"embryo_{i}.png" for i in range(1, 7)],
    "wells": [f"well{i:02d}.png" for i in range(1, 8)],
    "positions": [f"P{i:02d}.png" for i in range(1, 8)],
    "wells of a plate": [f"{row}{i}.png" for row in "AB" for i in range(1, 4)],
    "a whole plate": [f"{row}{i}.png" for row in "EFGH" for i in range(1, 4)],
    "ages": ["smith_F34.png", "smith_F29.png"],
    "patients and days": [f"R{i}-0140_day{i % 2 + 3}.png" for i in range(10, 14)],
    "a date and a number": [f"2023-05-01_{i:04}.png" for i in range(1, 5)],
    "a camera's dates": [f"IMG_20230501_{i}.png" for i in ("101502", "101630", "105959", "143011")],
    "codes with letters": [f"A0T{i}B.png" for i in range(1, 5)],
    "hours of different embryos": [f"embryo {i}_{110 + i}h.png" for i in range(1, 5)],
    "runs of different wells": [f"D2013.01.28_S0717_I132_WELL{i}_RUN{i}.png" for i in range(1, 5)],
}


@pytest.mark.parametrize("names", SEPARATE.values(), ids=SEPARATE.keys())
def test_names_without_a_reason_stay_apart(tmp_path: Path, names: list[str]) -> None:
    plan = plan_folder(folder(tmp_path, names))
    assert [image.axes for image in open_plan(plan)] == ["YX"] * len(names)
    assert {image.name for image in plan.images} == {Path(name).stem for name in names}


def test_what_stays_apart_is_said(tmp_path: Path) -> None:
    plan = plan_folder(folder(tmp_path, ["embryo_1.png", "embryo_2.png", "other.png"]))
    assert any("2 files differ only in numbers" in note for note in plan.said)
    assert "group them as one stack" in plan.text()


SEQUENCES: dict[str, tuple[list[str], str]] = {
    "RUN": (["AA_RUN2.png", "AA_RUN10.png", "AA_RUN11.png"], "RUN"),
    "frame": (["frame0001.png", "frame0002.png", "frame0010.png"], "frame"),
    "t": (["e_t1.png", "e_t2.png", "e_t12.png"], "t"),
    "T in a camel's hump": (["embryoT001.png", "embryoT002.png", "embryoT003.png"], "T"),
    "time": (["e time 1.png", "e time 2.png", "e time 3.png"], "time"),
    "hours": (["e_9.5h.png", "e_10h.png", "e_112h.png"], "h"),
    "hours and minutes": (["e_9h05.png", "e_9h30.png", "e_10h00.png"], "h"),
    "t and hours": (["e_t2h.png", "e_t12h.png", "e_t24h.png"], "h"),
    "hpi": (["e hpi 20.png", "e hpi 40.png", "e hpi 112.png"], "hpi"),
    "dates": (["e7 2024-05-01 10-00.png", "e7 2024-05-01 10-10.png", "e7 2024-05-02 10-00.png"], "date and time"),
    "regular dates": ([f"2024050{d}_{h}0000.png" for d, h in ((1, "08"), (1, "20"), (2, "08"))], "date and time"),
}  # fmt: skip


@pytest.mark.parametrize(("names", "word"), SEQUENCES.values(), ids=SEQUENCES.keys())
def test_a_word_makes_a_sequence(tmp_path: Path, names: list[str], word: str) -> None:
    plan = plan_folder(folder(tmp_path, names))
    (image,) = open_plan(plan)
    assert (image.axes, first_pixels(image)) == ("TYX", [50, 51, 52])
    assert image.metadata["frame_files"] == tuple(names)
    assert any(f"names count frames in time ({word})" in note for note in plan.said)


def test_runs_and_hours_of_the_names_are_kept(tmp_path: Path) -> None:
    (image,) = open_plan(plan_folder(folder(tmp_path, ["e_9.5h.png", "e_10h.png", "e_12h30.png"])))
    assert image.hours == (9.5, 10, 12.5)
    (image,) = open_plan(plan_folder(folder(tmp_path / "runs", ["e_RUN2.png", "e_RUN3.png", "e_RUN7.png"])))
    assert (image.metadata["runs"], image.hours) == ((2, 3, 7), None)


def test_times_of_day_give_hours_since_the_first(tmp_path: Path) -> None:
    names = ["e7 2024-05-01 22-00.png", "e7 2024-05-01 23-30.png", "e7 2024-05-02 10-00.png"]
    (image,) = open_plan(plan_folder(folder(tmp_path, names)))
    assert image.hours == (0, 1.5, 12)


PLANES: dict[str, list[str]] = {
    "GERI": [f"Demo_well01_zid{i:02d}_Example 2 6.0_172500.png" for i in range(1, 12)],
    "MIRI": [f"MTL-0130-0FD2-AB62-47-P03-FP{i}.jpg" for i in range(1, 8)],
    "F": [f"e_F{i}.png" for i in (-30, -15, 0, 15)],
    "z": [f"e_z{i:03}.png" for i in range(5)],
    "plane": [f"e plane {i}.png" for i in range(5)],
    "in micrometers and a grade": [f"e_{i}_3AA.png" for i in (-15, 0, 15)],
}


@pytest.mark.parametrize("names", PLANES.values(), ids=PLANES.keys())
def test_planes_are_no_time(tmp_path: Path, names: list[str]) -> None:
    plan = plan_folder(folder(tmp_path, names))
    (image,) = open_plan(plan)
    assert (image.axes, image.shape[0], image.hours) == ("FYX", len(names), None)
    assert np.allclose(first_pixels(image), 50 + np.arange(len(names)), atol=1)
    assert any("focal planes" in note for note in plan.said)
    assert image.focus_um == {"F": (-30, -15, 0, 15), "in micrometers and a grade": (-15, 0, 15)}.get(
        next(key for key, value in PLANES.items() if value == names)
    )


def test_time_and_planes_in_one_name(tmp_path: Path) -> None:
    names = [f"xy1t{t:03}z{z}.png" for t in (1, 2, 3) for z in (1, 2)]
    (image,) = open_plan(plan_folder(folder(tmp_path, names)))
    assert (image.axes, first_pixels(image)) == ("TFYX", [[50, 51], [52, 53], [54, 55]])


@pytest.mark.parametrize(
    "name",
    ["img_{t:09}_Default_{z:03}.tif", "img_channel000_position001_time{t:09}_z{z:03}.tif"],
)
def test_micro_manager(tmp_path: Path, name: str) -> None:
    for t in range(3):
        for z in range(2):
            tifffile.imwrite(tmp_path / name.format(t=t, z=z), np.full((16, 16), 10 * t + z, np.uint16))
    summary = '{"Summary": {"PixelSize_um": 0.5, "z-step_um": 15, "Interval_ms": 600000}}'
    (tmp_path / "metadata.txt").write_text(summary)
    (image,) = open_plan(plan_folder(tmp_path))
    assert (image.axes, first_pixels(image)) == ("TFYX", [[0, 1], [10, 11], [20, 21]])
    assert (image.pixel_size_um, image.focus_um) == ((0.5, 0.5), (0, 15))
    assert image.hours == pytest.approx((0, 1 / 6, 2 / 6))


def test_channels_of_micro_manager_stay_apart(tmp_path: Path) -> None:
    folder(tmp_path, [f"img_channel{c:03}_position000_time{t:09}_z000.png" for c in (0, 1) for t in (0, 1)])
    assert [first_pixels(image) for image in open_plan(plan_folder(tmp_path))] == [[50, 51], [52, 53]]


# --- the published time-lapse set ------------------------------------------------------------------------------------

RUN = "D2013.01.28_S0717_I132_WELL7_RUN{}.png"


def test_a_folder_of_duplicates(tmp_path: Path) -> None:
    for run in range(1, 5):
        for inner in ("", "F0"):
            save(tmp_path / "AA83-7" / inner / RUN.format(run), 40 + 10 * run)
    plan = plan_folder(tmp_path)
    (image,) = open_plan(plan)
    assert (image.axes, first_pixels(image)) == ("TYX", [50, 60, 70, 80])
    assert any("4 files duplicate a frame" in note for note in plan.said)


def nantes(root: Path, planes: tuple[str, ...] = ("", "_F15", "_F-15")) -> Path:
    for value, plane in enumerate(planes):
        for run in (1, 2, 4):
            save(root / f"embryo_dataset{plane}" / "AA83-7" / RUN.format(run), 100 + 10 * value + run)
    times = root / "embryo_dataset_time_elapsed"
    times.mkdir()
    (times / "AA83-7_timeElapsed.csv").write_text("frame_index,time\n0,0.0\n1,22.5\n2,22.8\n3,23.1\n4,24.6\n")
    phases = root / "embryo_dataset_annotations"
    phases.mkdir()
    (phases / "AA83-7_phases.csv").write_text("tPB2,1,2\ntPNa,3,4\n")
    return root


def test_planes_in_folders_side_by_side_and_tables(tmp_path: Path) -> None:
    (image,) = open_plan(plan_folder(nantes(tmp_path)))
    assert (image.axes, image.focus_um, image.hours) == ("TFYX", (-15, 0, 15), (22.5, 22.8, 24.6))
    assert first_pixels(image)[1] == [122, 102, 112]
    assert image.metadata["runs"] == (1, 2, 4)
    assert image.metadata["phases"] == (
        {"phase": "tPB2", "first_run": 1, "last_run": 2},
        {"phase": "tPNa", "first_run": 3, "last_run": 4},
    )
    assert image.metadata["frame_files"] == tuple(RUN.format(run) for run in (1, 2, 4))
    (alone,) = open_plan(plan_folder(tmp_path / "embryo_dataset" / "AA83-7"))
    assert (alone.axes, alone.hours) == ("TYX", (22.5, 22.8, 24.6))


def test_hours_of_missing_runs_are_between_the_others(tmp_path: Path) -> None:
    plan = plan_folder(nantes(tmp_path, ("",))).edited(OpenChoices(gaps="empty"))
    (image,) = open_plan(plan)
    assert image.hours == pytest.approx((22.5, 22.8, 23.7, 24.6))
    assert image.metadata["frame_files"][2] == ""


def test_a_table_without_a_run_gives_no_hours(tmp_path: Path) -> None:
    root = nantes(tmp_path, ("",))
    (root / "embryo_dataset_time_elapsed" / "AA83-7_timeElapsed.csv").write_text("1,22.5\n2,22.8\n")
    plan = plan_folder(root)
    assert open_plan(plan)[0].hours is None
    assert any("no hours for the runs 4" in note for note in plan.said)


def test_patients_in_folders_that_look_like_planes(tmp_path: Path) -> None:
    """F34 is a woman's age here: there is no folder without it, and none below 0."""
    for folder_name in ("smith_F34", "smith_F29"):
        save(tmp_path / folder_name / "1.png")
    assert [image.axes for image in open_plan(plan_folder(tmp_path))] == ["YX"] * 2


def test_folders_that_are_not_opened_are_said(tmp_path: Path) -> None:
    folder(tmp_path, ["a.png"])
    save(tmp_path / "inner" / "b.png")
    assert any("not opened (inner)" in note for note in plan_folder(tmp_path).said)


# --- what the user says ----------------------------------------------------------------------------------------------


def test_the_user_can_say_that_files_are_one_stack(tmp_path: Path) -> None:
    plan = plan_folder(folder(tmp_path, ["a1.png", "a2.png", "a10.png"]), "stack")
    (image,) = open_plan(plan.edited(OpenChoices(hours_per_frame=0.5, first_hour=20)))
    assert (image.axes, image.hours, first_pixels(image)) == ("TYX", (20, 20.5, 21), [50, 51, 52])
    assert image.metadata["frame_files"] == ("a1.png", "a2.png", "a10.png")


def test_planes_can_be_time_and_have_a_distance(tmp_path: Path) -> None:
    plan = plan_folder(folder(tmp_path, ["e_z1.png", "e_z2.png"]))
    assert open_plan(plan.edited(OpenChoices(spacing_um=10)))[0].focus_um == (0, 10)
    assert open_plan(plan.edited(OpenChoices(axes="TYX")))[0].axes == "TYX"


def test_chosen_files_follow_the_same_rules(tmp_path: Path) -> None:
    names = ["well1.png", "well2.png"]
    folder(tmp_path, names)
    assert len(plan_files([tmp_path / name for name in names]).images) == 2


# --- stacks of ImageJ that do not say what they hold -----------------------------------------------------------------


def imagej(path: Path, description: str, n: int) -> Path:
    stack = np.stack([np.full((16, 16), 10 + i, np.uint8) for i in range(n)])
    tifffile.imwrite(
        path,
        stack,
        byteorder=">",
        photometric="minisblack",
        metadata=None,
        description=f"ImageJ=1.53t\nimages={n}\n{description}",
    )
    return path


@pytest.mark.parametrize("description", ["slices=20\nunit=pixel\n", "channels=20\n"])
def test_an_imported_sequence_is_asked_for(tmp_path: Path, description: str) -> None:
    plan = plan_file(imagej(tmp_path / "a.tif", description, 20))
    assert plan.are_axes_assumed
    assert "the axis of length 20 is time: the file does not say" in plan.said[0]
    assert [image.axes for image in open_plan(plan)] == ["TYX"]
    planes = plan.edited(OpenChoices(axes="zyx", focus="best", spacing_um=5))
    assert not planes.are_axes_assumed
    assert planes.images[0].focus_um == tuple(5.0 * i for i in range(20))
    assert any("of 20 focal planes the sharpest one is used" in note for note in planes.said)


@pytest.mark.parametrize("description", ["slices=7\nhyperstack=true\n", "slices=7\nspacing=15\nunit=um\n"])
def test_planes_of_imagej_that_say_so(tmp_path: Path, description: str) -> None:
    plan = plan_file(imagej(tmp_path / "a.tif", description, 7))
    assert (plan.are_axes_assumed, plan.images[0].axes) == (False, "FYX")


def test_channels_can_be_frames(tmp_path: Path) -> None:
    plan = plan_file(imagej(tmp_path / "a.tif", "channels=3\nhyperstack=true\n", 3))
    assert [image.name for image in plan.images] == ["a channel 1", "a channel 2", "a channel 3"]
    (image,) = open_plan(plan.edited(OpenChoices(axes="TYX")))
    assert (image.axes, first_pixels(image)) == ("TYX", [10, 11, 12])


# --- words in names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stem", "run", "hours", "plane", "title"),
    [
        ("D2013.01.28_S0717_I132_WELL7_RUN93_F-15", 93, None, -15, "D2013.01.28_S0717_I132_WELL7"),
        ("embryo_12", None, None, None, "embryo_12"),
        ("timelapse_3", None, None, None, "timelapse_3"),
        ("3AA_112.5h", None, 112.5, None, "3AA"),
        ("3AA_112,5 hpi", None, 112.5, None, "3AA"),
        ("e_90min", None, 1.5, None, "e"),
        ("H12", None, None, None, "H12"),
        ("T47D", None, None, None, "T47D"),
        ("frame_7", 7, None, None, ""),
        ("F2D", None, None, None, "F2D"),
        ("f3", None, None, None, "f3"),
        ("e_z-3", None, None, -3, "e"),
        ("2024-13-45_10-00", None, None, None, "2024-13-45_10-00"),
    ],
)
def test_words(stem: str, run: int | None, hours: float | None, plane: int | None, title: str) -> None:
    said = read_name(stem)
    assert (said.run, said.hours, said.plane and said.plane.number, said.title) == (run, hours, plane, title)
