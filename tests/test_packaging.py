"""The manifest and the weights arrive however the package is installed: wheel, sdist, editable."""

import configparser
import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import napari_embryo

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "src" / "napari_embryo"

INSTALLED = """
import json, site, sys
before = list(sys.path)
site.addsitedir(sys.argv[1])  # what an interpreter does with its own site-packages: an editable install lives from it
sys.path[:0] = [path for path in sys.path if path not in before]
from npe2 import PluginManifest
from npe2.manifest.utils import import_python_name
import napari_embryo
manifest = PluginManifest.from_distribution("napari-embryo")
callables = {c.python_name: callable(import_python_name(c.python_name)) for c in manifest.contributions.commands}
said = json.loads(manifest.model_dump_json(exclude={"package_metadata"}))
print(json.dumps({"file": napari_embryo.__file__, "manifest": said, "callables": callables}))
"""

BUILD = """
import sys, zlib
from hatchling import build
compressor = zlib.compressobj
zlib.compressobj = lambda level, *more: compressor(0, *more)  # 200 MB of weights, of which no test asks the packed size
print(getattr(build, "build_" + sys.argv[1])(sys.argv[2]))
"""


def python(*arguments: str, cwd: Path = REPOSITORY, **environ: str) -> str:
    """Run Python; answer what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=os.environ | environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def built(kind: str, folder: Path, source: Path = REPOSITORY) -> Path:
    """What pip and build ask for: a wheel, an sdist, or the wheel that ``pip install -e`` makes."""
    return folder / python("-c", BUILD, kind, str(folder), cwd=source)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the checkout."""
    return built("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution."""
    return built("sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that ``pip install -e`` makes."""
    return built("editable", tmp_path_factory.mktemp("editable"))


@pytest.mark.parametrize("way", ["wheel", "editable"])
def test_the_manifest_arrives_and_its_commands_can_be_imported(
    way: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if way == "editable" and not (PACKAGE / "napari.yaml").is_symlink():
        pytest.skip("this checkout has no links (git config core.symlinks): an editable install cannot work")
    package: Path = request.getfixturevalue(way)
    where = ("--no-deps", "--no-index", "--no-compile", "--target", str(tmp_path))
    python("-m", "pip", "install", "--quiet", *where, str(package))
    arrived = json.loads(python("-c", INSTALLED, str(tmp_path), cwd=tmp_path, PYTHONPATH=str(tmp_path)))
    assert Path(arrived["file"]).is_relative_to(REPOSITORY if way == "editable" else tmp_path)
    assert arrived["manifest"] == manifest_at_the_root()
    assert all(arrived["callables"].values())


def manifest_at_the_root() -> dict[str, object]:
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(REPOSITORY / "napari.yaml")
    said: dict[str, object] = json.loads(manifest.model_dump_json(exclude={"package_metadata"}))
    return said


def test_the_sdist_builds_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    assert contents(built("wheel", tmp_path, next(tmp_path.glob("napari_embryo-*/")))) == contents(wheel)


def contents(wheel: Path) -> dict[str, int]:
    """The name and the checksum of every file."""
    with zipfile.ZipFile(wheel) as archive:
        return {file.filename: file.CRC for file in archive.infolist()}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        manifest = archive.read("napari_embryo/napari.yaml").decode()
        entry_points = configparser.ConfigParser()
        entry_points.read_string(
            archive.read(next(n for n in names if n.endswith("dist-info/entry_points.txt"))).decode()
        )
    assert len(names) == len(set(names))
    assert {name.split("/")[0] for name in names} == {
        "napari_embryo",
        f"napari_embryo-{napari_embryo.__version__}.dist-info",
    }
    ours = {f"napari_embryo/{file.relative_to(PACKAGE).as_posix()}" for file in PACKAGE.rglob("*") if is_ours(file)}
    assert ours <= set(names)
    assert {"napari_embryo/py.typed", "napari_embryo/napari.yaml"} <= ours
    assert manifest == (REPOSITORY / "napari.yaml").read_text(encoding="utf-8")
    assert entry_points["console_scripts"]["napari-embryo"] == "napari_embryo.cli:main"
    assert entry_points["napari.manifest"]["napari-embryo"] == "napari_embryo:napari.yaml"


def is_ours(file: Path) -> bool:
    return file.is_file() and "__pycache__" not in file.parts


def test_the_sdist_holds_what_a_packager_needs(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {
        "CHANGELOG.md",
        "LICENSE",
        "README.md",
        "constraints.txt",
        "napari.yaml",
        "pyproject.toml",
        "src/napari_embryo/__init__.py",
        "src/napari_embryo/napari.yaml",
        "tests/test_packaging.py",
        "tox.ini",
    }


def test_dependencies_have_lower_bounds_only_and_no_qt() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [Requirement(line) for line in project["dependencies"]]
    assert {specifier.operator for requirement in required for specifier in requirement.specifier} == {">="}
    assert not {requirement.name.lower() for requirement in required} & {"pyqt5", "pyqt6", "pyside2", "pyside6"}


def test_the_readme_names_commands_that_tox_has() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(REPOSITORY / "tox.ini", encoding="utf-8")
    assert "pip install tox && tox run -e demo" in readme
    assert "pip install tox && tox run\n" in readme
    assert tox["tox"]["env_list"] == "py"
    assert {"testenv:demo", "testenv:lint", "testenv:bench"} <= set(tox.sections())
    assert "pip install tox && tox run " in (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
