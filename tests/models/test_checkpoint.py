"""A checkpoint gives back the same network, and nothing else is taken for one."""

import copy
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from napari_embryo import models
from napari_embryo.families import ResANetSettings, UNetSettings
from napari_embryo.models.checkpoint import (
    METADATA_KEY,
    CheckpointError,
    CheckpointInfo,
    file_sha256,
    load,
    read_info,
    save,
)
from napari_embryo.settings import Preprocessing

INFO = CheckpointInfo(
    model=UNetSettings(base_channels=4, classes=("ICM", "ZP")),
    preprocessing=Preprocessing(height=96, width=64, fit="stretch", low_percentile=1),
    provenance={"data": ["Blastocyst µ", 3], "iou": {"ZP": 0.87}},
)
IMAGES = torch.randn(2, 1, 48, 64, generator=torch.Generator().manual_seed(0))


def trained(info: CheckpointInfo) -> nn.Module:
    """A network whose running statistics are no longer those it was made with."""
    torch.manual_seed(0)
    net = models.build(info.model)
    with torch.no_grad():
        net.train()(5 * IMAGES + 2)
    return net.eval()


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return trained(INFO)


@pytest.fixture(scope="module")
def written(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("weights") / "unet.safetensors"
    save(path, net, INFO)
    return path.read_bytes()


@pytest.fixture
def file(written: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "unet.safetensors"
    path.write_bytes(written)
    return path


def outputs(net: nn.Module) -> dict[str, Tensor]:
    with torch.no_grad():
        found: dict[str, Tensor] = net(IMAGES)
    return found


@pytest.mark.parametrize(
    "model",
    [INFO.model, ResANetSettings(classes=("ZP",), head="softmax", sa4=False, dual_gate=False, encoder="v1")],
    ids=["unet", "resanet with options"],
)
def test_loaded_outputs_are_the_saved_ones(tmp_path: Path, model: Any) -> None:
    info = INFO.model_copy(update={"model": model})
    net = trained(info)
    save(tmp_path / "some folder" / "weights.safetensors", net, info)
    found = load(tmp_path / "some folder" / "weights.safetensors")
    assert found.info.model == model
    assert not found.model.training
    expected = outputs(net)
    for name, tensor in outputs(found.model).items():
        assert torch.equal(tensor, expected[name]), name


def test_what_it_says_of_itself(file: Path) -> None:
    found = load(file)
    for info in (found.info, read_info(file)):
        assert info.model_copy(update={"content_sha256": ""}) == INFO
    assert found.sha256 == file_sha256(file)
    assert len(found.sha256) == 64


def test_any_safetensors_program_can_read_it(file: Path, net: nn.Module) -> None:
    state = net.state_dict()
    with safe_open(file, framework="pt") as other:
        assert set(other.keys()) == state.keys()
        assert all(torch.equal(other.get_tensor(name), state[name]) for name in state)
        assert json.loads(other.metadata()[METADATA_KEY])["model"]["family"] == "unet"


def test_a_network_in_another_memory_layout_is_saved_the_same(tmp_path: Path, written: bytes) -> None:
    net = trained(INFO).to(memory_format=torch.channels_last)
    save(tmp_path / "w.safetensors", net, INFO)
    assert (tmp_path / "w.safetensors").read_bytes() == written


def test_half_precision_halves_the_file_and_keeps_the_statistics(
    tmp_path: Path, net: nn.Module, written: bytes
) -> None:
    file = tmp_path / "half.safetensors"
    norm = next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    kept = norm.running_var.clone()
    try:
        norm.running_var.fill_(1e6)  # beyond half precision's 65504
        save(file, net, INFO, half=True)
    finally:
        norm.running_var.copy_(kept)
    with safe_open(file, framework="pt") as other:
        stored = {name: other.get_tensor(name) for name in other.keys()}  # noqa: SIM118 - safe_open is no mapping
    assert {t.dtype for t in stored.values() if t.ndim > 1} == {torch.float16}
    assert {t.dtype for t in stored.values() if t.ndim == 1} == {torch.float32}
    loaded = load(file).model
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert max(float(b.max()) for name, b in loaded.named_buffers() if name.endswith("running_var")) == 1e6
    assert file.stat().st_size < 0.6 * len(written)


def test_half_precision_hardly_changes_the_outputs(tmp_path: Path, net: nn.Module) -> None:
    save(tmp_path / "half.safetensors", net, INFO, half=True)
    found, expected = outputs(load(tmp_path / "half.safetensors").model), outputs(net)
    torch.testing.assert_close(torch.sigmoid(found["logits"]), torch.sigmoid(expected["logits"]), atol=5e-3, rtol=0)


@pytest.mark.parametrize("start", [b"\x80", b"PK"], ids=["as a pickle starts", "as a zip archive starts"])
def test_a_header_of_any_length_is_understood(tmp_path: Path, net: nn.Module, written: bytes, start: bytes) -> None:
    """A safetensors file begins with its header's length, which may spell the first bytes of a pickle."""
    period = 256 ** len(start)
    lacking = (int.from_bytes(start, "little") - int.from_bytes(written[:8], "little")) % period
    notes = INFO.provenance | {"x": "." * (lacking - len(',\\"x\\":\\"\\"') % period)}
    save(tmp_path / "w.safetensors", net, INFO.model_copy(update={"provenance": notes}))
    assert (tmp_path / "w.safetensors").read_bytes().startswith(start), "the test's own arithmetic"
    assert load(tmp_path / "w.safetensors").info.provenance == notes


class Bomb:
    """Does something when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.target,)


def raw_pickle(path: Path, protocol: int) -> None:
    path.write_bytes(pickle.dumps(Bomb(path.with_name("exploded")), protocol))


def torch_zip(path: Path) -> None:
    torch.save(Bomb(path.with_name("exploded")), path)


def torch_legacy(path: Path) -> None:
    torch.save(Bomb(path.with_name("exploded")), path, _use_new_zipfile_serialization=False)


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "weights")


PICKLES: dict[str, Callable[[Path], None]] = {
    "torch.save": torch_zip,
    "old torch.save": torch_legacy,
    "pickle": lambda path: raw_pickle(path, 5),
    "zip": other_zip,
}


@pytest.mark.parametrize("make", PICKLES.values(), ids=PICKLES)
def test_a_pickle_is_refused_unopened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    file = tmp_path / "model.safetensors"
    make(file)
    with pytest.raises(CheckpointError, match="PyTorch pickle, which can run arbitrary code") as refusal:
        load(file)
    assert "model.safetensors" in str(refusal.value)
    assert not (tmp_path / "exploded").exists()


def test_a_text_pickle_is_refused_unopened(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    raw_pickle(file, 0)
    with pytest.raises(CheckpointError, match="incomplete or invalid safetensors file"):
        load(file)
    assert not (tmp_path / "exploded").exists()


def test_good_files_are_never_unpickled(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any, **_options: Any) -> None:
        pytest.fail("something was unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    assert load(file).info.model == INFO.model


def header_length(content: bytes) -> int:
    return 8 + int(struct.unpack("<Q", content[:8])[0])


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def with_header(content: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The same tensors under another header."""
    end = header_length(content)
    header = json.loads(content[8:end])
    change(header)
    packed = json.dumps(header).encode()
    packed += b" " * (-len(packed) % 8)
    return struct.pack("<Q", len(packed)) + packed + content[end:]


def saying(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        header["__metadata__"][METADATA_KEY] = json.dumps(json.loads(header["__metadata__"][METADATA_KEY]) | changes)

    return change


def rename(header: dict[str, Any]) -> None:
    """Swap two tensors of the same shape."""
    first, second = "down.0.0.1.running_mean", "down.0.1.1.running_mean"
    assert header[first]["shape"] == header[second]["shape"]
    header[first], header[second] = header[second], header[first]


def forget(header: dict[str, Any]) -> None:
    del header["__metadata__"]


def deep(header: dict[str, Any]) -> None:
    header["__metadata__"][METADATA_KEY] = "[" * 100_000


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "first weight changed": (lambda c: flipped(c, header_length(c)), "was altered after it was written"),
    "last weight changed": (lambda c: flipped(c, len(c) - 1), "was altered after it was written"),
    "weights swapped": (lambda c: with_header(c, rename), "was altered after it was written"),
    "no digest": (lambda c: with_header(c, saying(content_sha256="")), "was altered after it was written"),
    "last byte missing": (lambda c: c[:-1], "copy or download it again"),
    "cut in the weights": (lambda c: c[: len(c) // 2], "copy or download it again"),
    "cut in the header": (lambda c: c[:100], "copy or download it again"),
    "cut in the first number": (lambda c: c[:5], "copy or download it again"),
    "bytes behind the end": (lambda c: c + b"more", "incomplete or invalid safetensors file"),
    "empty": (lambda _: b"", "incomplete or invalid safetensors file"),
    "text": (lambda _: b"these are no weights, these are words\n" * 9, "incomplete or invalid safetensors file"),
    "picture": (lambda _: b"\x89PNG\r\n\x1a\n" + bytes(100), "incomplete or invalid safetensors file"),
    "no settings": (lambda c: with_header(c, forget), "a safetensors file of another program"),
    "unknown family": (
        lambda c: with_header(c, saying(model={"family": "attnreg"})),
        "this version does not understand its settings",
    ),
    "unknown setting": (
        lambda c: with_header(c, saying(model={"family": "unet", "depth": 9})),
        "this version does not understand its settings",
    ),
    "impossible setting": (
        lambda c: with_header(c, saying(preprocessing={"height": -1})),
        "this version does not understand its settings",
    ),
    "a later format": (lambda c: with_header(c, saying(format=2, layers=[])), "update napari-embryo"),
    "a setting of a later version": (
        lambda c: with_header(c, saying(model={"family": "unet", "depth": 9})),
        r"model\.depth: there is no such setting\). If a later version wrote it, update napari-embryo",
    ),
    "a header as long as the format allows": (
        lambda _: struct.pack("<Q", 99_000_000) + b'{"a":' + b"[" * 98_999_990 + b"\n" * 10,
        "its header would have 99000000 bytes",
    ),
    "a header longer than any memory": (lambda _: struct.pack("<Q", 2**60) + b"{}", "its header would have 11529215"),
    "a deep header": (lambda _: struct.pack("<Q", 100_000) + b"[" * 100_000, "incomplete or invalid safetensors file"),
    "deep settings": (lambda c: with_header(c, deep), "does not understand its settings"),
    "another percentile": (
        lambda c: with_header(c, saying(preprocessing={"low_percentile": 1.0})),
        "was altered after it was written",
    ),
    "another number of classes": (
        lambda c: with_header(c, saying(model={"family": "unet", "base_channels": 4, "classes": ["ZP"]})),
        "was altered after it was written",
    ),
}


@pytest.mark.parametrize(("spoil", "reason"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_with_the_reason(
    file: Path, written: bytes, spoil: Callable[[bytes], bytes], reason: str
) -> None:
    file.write_bytes(spoil(written))
    with pytest.raises(CheckpointError, match=reason) as refusal:
        load(file)
    assert str(file) in str(refusal.value)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (None, "another program"),
        ({"format": "pt"}, "another program"),
        ({METADATA_KEY: "no json"}, "does not understand"),
        ({METADATA_KEY: "[]"}, "does not understand"),
    ],
)
def test_weights_of_another_program_are_refused(tmp_path: Path, metadata: dict[str, str] | None, reason: str) -> None:
    file = tmp_path / "foreign.safetensors"
    save_file({"layer.weight": torch.zeros(2, 3)}, file, metadata=metadata)
    for read in (load, read_info):
        with pytest.raises(CheckpointError, match=reason):
            read(file)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(file: Path, net: nn.Module, value: float) -> None:
    """A training that failed saves them with a right digest."""
    spoiled = copy.deepcopy(net)
    name, parameter = next(iter(spoiled.named_parameters()))
    with torch.no_grad():
        parameter.view(-1)[0] = value
    save(file, spoiled, INFO)
    with pytest.raises(CheckpointError, match=rf"1 of its \d+ tensors .*not finite.* such as {name}"):
        load(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors: no such checkpoint"):
        load(tmp_path / "nowhere.safetensors")
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load(tmp_path)


def test_a_family_without_bundled_weights_is_named() -> None:
    with pytest.raises(
        FileNotFoundError, match="this version has no bundled weights of 'unet'; name a checkpoint file"
    ):
        load(family="unet")


def test_a_full_disk_leaves_the_old_checkpoint(
    file: Path, written: bytes, net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(path: Path, _content: bytes) -> int:
        with path.open("wb") as started:
            started.write(written[:1000])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", disk_full)
        for target in (file, file.with_name("new.safetensors")):
            with pytest.raises(OSError, match="No space left"):
                save(target, net, INFO)
    assert file.read_bytes() == written
    assert list(file.parent.iterdir()) == [file]


def test_weights_of_another_network_are_refused(file: Path, net: nn.Module) -> None:
    """Written by ours, but with the settings of a wider network."""
    save(file, net, INFO.model_copy(update={"model": UNetSettings(base_channels=8, classes=INFO.model.classes)}))
    with pytest.raises(CheckpointError, match="do not fit the network its settings describe"):
        load(file)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_others_may_read_what_was_saved(file: Path, net: nn.Module) -> None:
    (other := file.with_name("plain")).touch()
    save(file, net, INFO)
    assert file.stat().st_mode == other.stat().st_mode


def test_saving_replaces_the_old_checkpoint(file: Path, net: nn.Module) -> None:
    newer = INFO.model_copy(update={"provenance": {"steps": 7}})
    save(file, net, newer)
    assert load(file).info.provenance == {"steps": 7}
    assert list(file.parent.iterdir()) == [file]


def test_the_digest_of_a_file_follows_its_content(file: Path) -> None:
    before = load(file).sha256
    file.write_bytes(file.read_bytes() + b"more")
    assert file_sha256(file) != before
