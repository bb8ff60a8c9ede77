"""External data: where it may lie, and where not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from support.onnx_files import model_of

from weighbridge.errors import Error
from weighbridge.formats.onnx import FORMAT

if TYPE_CHECKING:
    from pathlib import Path

VALUES = np.arange(6, dtype=np.float32)


def pointing(location: str, **entries: str) -> onnx.ModelProto:
    """Return a model with one tensor of six float32 in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[6])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return model_of(tensor)


def save(folder: Path, location: str = "w.data", **entries: str) -> Path:
    """Write such a model into a folder; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "m.onnx"
    path.write_bytes(pointing(location, **entries).SerializeToString())
    return path


def refused(path: Path) -> Error:
    with pytest.raises(Error) as caught:
        FORMAT.open(path)
    assert caught.value.path == str(path)
    assert caught.value.tensor == "w"
    return caught.value


def values(path: Path) -> list[float]:
    with FORMAT.open(path) as found:
        numbers: list[float] = found.tensors["w"].values().tolist()
        return numbers


@pytest.mark.parametrize(
    ("location", "entries", "before"),
    [
        ("w.data", {}, b""),
        ("w.data", {"offset": "0", "length": "24"}, b""),
        ("w.data", {"offset": "5", "length": "24"}, b"12345"),
        ("w.data", {"offset": "5"}, b"12345"),
        ("w.data", {"checksum": "0" * 40, "basepath": "/x", "unknown": "y"}, b""),
        ("sub/deep/w.data", {}, b""),
        ("./w.data", {}, b""),
        ("größer w.data", {}, b""),
        ("..w.data", {}, b""),
    ],
)
def test_external_data_are_read(
    location: str, entries: dict[str, str], before: bytes, tmp_path: Path
) -> None:
    target = tmp_path / location
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(before + VALUES.tobytes())
    assert values(save(tmp_path, location, **entries)) == VALUES.tolist()


@pytest.mark.parametrize(
    ("entries", "rule"),
    [
        ({"offset": "-1"}, "external-number"),
        ({"offset": "+1"}, "external-number"),
        ({"offset": "1e3"}, "external-number"),
        ({"offset": " 1"}, "external-number"),
        ({"offset": "0x10"}, "external-number"),
        ({"offset": ""}, "external-number"),
        ({"offset": "٣"}, "external-number"),
        ({"offset": "9" * 5000}, "external-number"),
        ({"length": "-24"}, "external-number"),
        ({"length": "23"}, "data-length"),
        ({"length": "25"}, "data-length"),
        ({"length": "0"}, "data-length"),
        ({"offset": "1", "length": "24"}, "truncated"),
        ({"offset": "1"}, "truncated"),
        ({"offset": str((1 << 63) - 1), "length": "24"}, "truncated"),
        ({"offset": "9" * 19, "length": "24"}, "truncated"),
    ],
)
def test_offsets_and_lengths_are_checked(
    entries: dict[str, str], rule: str, tmp_path: Path
) -> None:
    (tmp_path / "w.data").write_bytes(VALUES.tobytes())
    assert refused(save(tmp_path, **entries)).rule == rule


@pytest.mark.parametrize(
    ("location", "rule"),
    [
        ("", "external-location"),
        ("/etc/hostname", "external-location"),
        ("//server/share", "external-location"),
        ("../secret", "external-location"),
        ("sub/../../secret", "external-location"),
        ("sub/..", "external-location"),
        ("..\\secret", "external-location"),
        ("C:\\secret", "external-location"),
        ("C:secret", "external-location"),
        ("\\\\server\\share", "external-location"),
        ("w\0.data", "external-location"),
        ("absent", "not-found"),
        ("w.data/below", "not-found"),
        ("*/_ORT_MEM_ADDR_/*", "not-found"),
        ("x" * 5000, "unreadable"),
        (".", "not-a-file"),
        ("folder", "not-a-file"),
        ("pipe", "not-a-file"),
        ("link-out", "external-escape"),
        ("link-absolute", "external-escape"),
        ("folder-out/secret", "external-escape"),
        ("loop", "unreadable"),
        ("dangling", "not-found"),
    ],
)
@pytest.mark.timeout(20)
def test_hostile_locations_are_refused(location: str, rule: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(VALUES.tobytes())
    home = tmp_path / "model"
    (home / "folder").mkdir(parents=True)
    (home / "sub").mkdir()
    (home / "w.data").write_bytes(VALUES.tobytes())
    os.mkfifo(home / "pipe")
    (home / "link-out").symlink_to("../secret")
    (home / "link-absolute").symlink_to(tmp_path / "secret")
    (home / "folder-out").symlink_to(tmp_path)
    (home / "loop").symlink_to("loop")
    (home / "dangling").symlink_to("nothing")
    assert refused(save(home, location)).rule == rule


def test_links_inside_the_directory_are_followed(tmp_path: Path) -> None:
    (tmp_path / "stored").mkdir()
    (tmp_path / "stored" / "w").write_bytes(VALUES.tobytes())
    (tmp_path / "w.data").symlink_to("stored/w")
    assert values(save(tmp_path)) == VALUES.tolist()


def cache(root: Path, inner: str = "") -> Path:
    """Lay out Hugging Face's cache as ``huggingface_hub`` does; return the model's path."""
    repo = root / "models--me--tiny"
    blobs, snapshot = repo / "blobs", repo / "snapshots" / "0123abc" / inner
    blobs.mkdir(parents=True)
    up = os.path.relpath(blobs, snapshot)
    (save(blobs)).rename(blobs / "aaaa")
    (blobs / "bbbb").write_bytes(VALUES.tobytes())
    snapshot.mkdir(parents=True)
    (snapshot / "m.onnx").symlink_to(f"{up}/aaaa")
    (snapshot / "w.data").symlink_to(f"{up}/bbbb")
    return snapshot / "m.onnx"


@pytest.mark.parametrize("inner", ["", "onnx", "onnx/int8"])
def test_the_cache_of_hugging_face_is_understood(inner: str, tmp_path: Path) -> None:
    assert values(cache(tmp_path, inner)) == VALUES.tolist()


def test_the_cache_may_be_reached_by_a_link_or_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache(tmp_path / "cache")
    (tmp_path / "link").symlink_to(path.parent)
    assert values(tmp_path / "link" / "m.onnx") == VALUES.tolist()
    monkeypatch.chdir(path.parent)
    assert values(type(path)("m.onnx")) == VALUES.tolist()


def test_blobs_of_another_repository_are_out_of_bounds(tmp_path: Path) -> None:
    path = cache(tmp_path)
    other = tmp_path / "models--you--other" / "blobs"
    other.mkdir(parents=True)
    (other / "cccc").write_bytes(VALUES.tobytes())
    (path.parent / "w.data").unlink()
    (path.parent / "w.data").symlink_to(other / "cccc")
    assert refused(path).rule == "external-escape"


def test_a_link_called_blobs_opens_no_door(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_bytes(VALUES.tobytes())
    path = save(tmp_path / "repo" / "snapshots" / "1")
    (tmp_path / "repo" / "blobs").symlink_to(tmp_path / "secrets")
    (path.parent / "w.data").symlink_to("../../blobs/key")
    assert refused(path).rule == "external-escape"


def test_data_of_a_linked_model_are_looked_for_beside_the_link(tmp_path: Path) -> None:
    path = save(tmp_path / "real")
    (path.parent / "w.data").write_bytes(VALUES.tobytes())
    (tmp_path / "m.onnx").symlink_to(path)
    error = refused(tmp_path / "m.onnx")
    assert error.rule == "not-found"
    assert "beside the link" in str(error)


def test_tensors_may_share_bytes_and_files(tmp_path: Path) -> None:
    """Tied weights have one address, and the file is opened once."""
    model = pointing("w.data", offset="0", length="24")
    twin = model.graph.initializer.add()
    twin.CopyFrom(model.graph.initializer[0])
    twin.name = "v"
    (tmp_path / "w.data").write_bytes(VALUES.tobytes())
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with FORMAT.open(tmp_path / "m.onnx") as found:
        assert len(found.resources) == 2
        assert found.tensors["v"].values().tolist() == VALUES.tolist()


def test_numbers_of_less_than_a_byte_may_be_external(tmp_path: Path) -> None:
    array = np.arange(7).astype(onnx.helper.tensor_dtype_to_np_dtype(TensorProto.INT4))
    tensor = numpy_helper.from_array(array, "w")
    onnx.save_model(
        model_of(tensor), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0
    )
    with FORMAT.open(tmp_path / "m.onnx") as found:
        assert found.tensors["w"].values().tolist() == array.tolist()
