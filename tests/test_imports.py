"""What importing costs: nothing heavy before it is needed, checked in a fresh interpreter."""

import json
import subprocess
import sys

import pytest

import napari_embryo

HEAVY = {
    "captum",
    "dask",
    "distributed",
    "imageio",
    "napari",
    "pandas",
    "qtpy",
    "scipy",
    "skimage",
    "tifffile",
    "torch",
}

DISCOVERY = """
from npe2 import PluginManager
plugins = PluginManager.instance()
plugins.discover()
manifest = plugins.get_manifest("napari-embryo")
assert {w.display_name for w in manifest.contributions.widgets} >= {"Open embryo", "Segment"}
"""

READER = """
from npe2 import PluginManager
plugins = PluginManager.instance()
plugins.discover()
plugins.activate("napari-embryo")
get_reader = plugins.commands.get("napari-embryo.get_reader")
assert callable(get_reader)
"""


def imported_by(code: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter holds after ``code``."""
    script = f"{code}\nimport json, sys\nprint(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        pytest.param("import napari_embryo", HEAVY | {"numpy", "pydantic", "npe2"}, id="package"),
        pytest.param("from napari_embryo import SegmentSettings", HEAVY | {"numpy"}, id="settings"),
        pytest.param("from napari_embryo import EmbryoImage", HEAVY, id="image"),
        pytest.param(DISCOVERY, HEAVY | {"napari_embryo"}, id="discovery"),
        pytest.param(READER, {"captum", "napari", "qtpy", "skimage", "torch"}, id="reader command"),
        pytest.param(
            "import napari_embryo.readers, napari_embryo.writers, napari_embryo.samples",
            {"captum", "napari", "qtpy", "skimage", "torch"},
            id="readers, writers, samples",
        ),
        pytest.param("import napari_embryo.cli", {"napari", "qtpy", "torch"}, id="command line"),
        pytest.param("import napari_embryo.widgets.segment", {"captum", "torch"}, id="segment widget"),
        pytest.param("import napari_embryo.widgets.open", {"captum", "torch"}, id="open widget"),
    ],
)
def test_imports_nothing_heavy(code: str, unwanted: set[str]) -> None:
    assert not imported_by(code) & unwanted


@pytest.mark.parametrize("name", napari_embryo.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(napari_embryo, name) is not None
    assert name in dir(napari_embryo)


def test_the_settings_of_every_family_are_public() -> None:
    assert {family.settings.__name__ for family in napari_embryo.FAMILIES.values()} <= {*napari_embryo.__all__}


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match="EmbryoImage"):
        _ = napari_embryo.nonsense
