"""scripts/system_packages.py: what a window needs on Linux, named before anything fails for the want of it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def script(repository: Path) -> ModuleType:
    file = repository / "scripts" / "system_packages.py"
    spec = importlib.util.spec_from_file_location("system_packages", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("purpose", "platform", "screen", "libraries", "programs"),
    [
        ("tests", "linux", False, True, True),
        ("tests", "linux", True, True, False),
        ("demo", "linux", True, True, False),
        ("demo", "linux", False, False, False),
        ("tests", "darwin", False, False, False),
        ("tests", "win32", True, False, False),
    ],
)
def test_needed(script: ModuleType, purpose: str, platform: str, screen: bool, libraries: bool, programs: bool) -> None:
    found = script.needed(purpose, platform, screen)
    assert [bool(part) for part in found] == [libraries, programs]


@pytest.mark.parametrize(
    ("environ", "screen"),
    [({}, False), ({"DISPLAY": ""}, False), ({"DISPLAY": ":0"}, True), ({"WAYLAND_DISPLAY": "wayland-0"}, True)],
)
def test_has_screen(script: ModuleType, environ: dict[str, str], screen: bool) -> None:
    assert script.has_screen(environ) is screen


def lacking(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, *, root: bool, apt: bool, until_installed: bool
) -> list[list[str]]:
    """Let libGL be missing; answer the list that collects what would be installed."""
    installed: list[list[str]] = []
    monkeypatch.setattr(script, "loads", lambda name: name != "libGL.so.1" or (until_installed and bool(installed)))
    monkeypatch.setattr(script.shutil, "which", lambda name: None if name == "apt-get" and not apt else f"/bin/{name}")
    monkeypatch.setattr(script.os, "geteuid", lambda: 0 if root else 1000, raising=False)
    monkeypatch.setattr(script.sys, "platform", "linux")
    monkeypatch.setattr(script, "install", lambda packages: installed.append(packages) is None)
    return installed


def test_root_installs(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = lacking(script, monkeypatch, root=True, apt=True, until_installed=True)
    assert script.main(["tests"]) == 0
    assert installed == [["libgl1"]]


@pytest.mark.parametrize(
    ("root", "apt", "says"),
    [
        (False, True, "    sudo apt-get install -y --no-install-recommends libgl1\n"),
        (True, True, "    apt-get install -y --no-install-recommends libgl1\n"),
        (False, False, "(the line below is for Debian and Ubuntu)"),
    ],
    ids=["user", "root, in vain", "no apt"],
)
def test_others_are_told(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    root: bool,
    apt: bool,
    says: str,
) -> None:
    lacking(script, monkeypatch, root=root, apt=apt, until_installed=False)
    assert script.main(["tests"]) == 1
    said = capsys.readouterr().err
    assert "libGL.so.1" in said
    assert says in said


def test_nothing_is_missing_here(script: ModuleType) -> None:
    """The tests ran, so what they need is there."""
    assert script.main(["tests"]) == 0
