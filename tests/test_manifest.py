"""The manifest says what napari may count on."""

from pathlib import Path

import pytest
from npe2 import PluginManager, PluginManifest
from npe2.manifest.utils import import_python_name

from napari_embryo.settings import SegmentSettings

MANIFEST = PluginManifest.from_file(Path(__file__).parents[1] / "napari.yaml")
COMMANDS = {command.id: command for command in MANIFEST.contributions.commands or ()}


@pytest.fixture
def plugins() -> PluginManager:
    """A plugin manager that knows this plugin alone."""
    manager = PluginManager()
    manager.register(MANIFEST.model_copy(deep=True))
    return manager


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_every_command_leads_to_something_callable(command) -> None:
    assert command.id.startswith("napari-embryo.")
    assert callable(import_python_name(command.python_name))


def test_every_contribution_names_a_command_that_is_there() -> None:
    contributions = MANIFEST.contributions
    used = [
        *(contributions.readers or ()),
        *(contributions.writers or ()),
        *(contributions.sample_data or ()),
        *(contributions.widgets or ()),
        *(item for items in contributions.menus.values() for item in items),
    ]
    assert {item.command for item in used} == set(COMMANDS)


def test_menus_are_those_that_napari_opens_to_plugins() -> None:
    from napari._app_model.constants._menus import is_menu_contributable

    assert MANIFEST.contributions.menus
    assert all(is_menu_contributable(menu) for menu in MANIFEST.contributions.menus)


@pytest.mark.parametrize(
    "name",
    ["a.ome.tif", "a.OME.TIFF", "a.avi", "a.mp4", "a.czi", "a.ND2", "a.lif", "D2013.01.28_S0717_I132_WELL7_RUN93.jpeg"],
)
def test_reads(plugins: PluginManager, name: str) -> None:
    readers = list(plugins.iter_compatible_readers([name]))
    assert [reader.command for reader in readers] == ["napari-embryo.get_reader"]


def test_reads_folders(plugins: PluginManager, tmp_path: Path) -> None:
    assert [r.command for r in plugins.iter_compatible_readers([str(tmp_path)])] == ["napari-embryo.get_reader"]


@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.png", "a.tif", "a.npy"])
def test_leaves_alone_what_others_read_as_well(plugins: PluginManager, name: str) -> None:
    assert not list(plugins.iter_compatible_readers([name]))


@pytest.mark.parametrize(
    ("layers", "name", "command"),
    [
        (["image"], "a.ome.tif", "napari-embryo.write_image"),
        (["labels"], "a.ome.tif", "napari-embryo.write_labels"),
        (["labels"], "a.ome.zarr", "napari-embryo.write_zarr_labels"),
        (["labels"] * 2, "a.tif", "napari-embryo.write_cells"),
        (["labels"] * 40, "a.tif", "napari-embryo.write_cells"),
        (["image"], "a.zarr", None),
        (["image", "labels"], "a.tif", None),
        (["image", "labels", "labels"], "a.tif", None),
        (["points"], "a.tif", None),
    ],
)
def test_writes(plugins: PluginManager, layers: list[str], name: str, command: str | None) -> None:
    writer, _ = plugins.get_writer(name, layers)
    assert (writer and writer.command) == command


def test_preferences_repeat_the_settings() -> None:
    """napari draws its Preferences from the manifest; what it says there must be what the settings say."""
    schema = SegmentSettings.model_json_schema()["properties"]
    preferences = MANIFEST.contributions.configurations["segment"].properties
    for key, preference in preferences.items():
        said = preference.model_dump(exclude_unset=True, exclude={"title"}, mode="json")
        assert said == {name: schema[key][name] for name in said}


def test_preferences_can_be_read_and_are_checked(tmp_path: Path) -> None:
    from napari.settings._plugin_config_generator import plugin_configuration_generator

    preferences = plugin_configuration_generator()["napari-embryo"](config_path=tmp_path / "napari-embryo.yaml")
    assert preferences.segment.device == "auto"
    with pytest.raises(ValueError, match="tpu"):
        preferences.segment.device = "tpu"
