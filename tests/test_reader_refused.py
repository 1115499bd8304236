"""DATA that is refused, each in one line that names it."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.errors import UnusableInput
from guard.spec import ModelSpec
from tests.conftest import write_folder
from tests.reader_files import HEADER, SPEC, npz_of, pictures
from tools.datasets.reader import read


def refusal(path: Path, spec: ModelSpec = SPEC, **keywords: Any) -> str:
    with pytest.raises(UnusableInput) as caught:
        read(path, spec, **keywords)
    line = str(caught.value)
    assert "\n" not in line
    assert path.name in line
    return line


@pytest.mark.parametrize(
    ("header", "row", "word"),
    [
        ("filename,pitch_rad,roll_rad", "0.png,0,0", "yaw"),
        ("filename,pitch,yaw", "0.png,0,0", "pitch_rad"),
        ("filename,pitch_rad,yaw_gon", "0.png,0,0", "yaw_gon"),
        ("filename,pitch_rad,yaw_", "0.png,0,0", "yaw_"),
        ("filename,pitch_rad,yaw_rad,yaw_deg", "0.png,0,0,0", "yaw"),
        ("file,pitch_rad,yaw_rad", "0.png,0,0", "filename"),
        ("", "", "filename"),
        (f"{HEADER},person", "0.png,0,0", "person"),
        (f"{HEADER},person", "0.png,0,0, ", "person"),
        (HEADER, "0.png,left,0", "0.png"),
        (HEADER, "0.png,0,", "0.png"),
        (HEADER, "0.png,0", "0.png"),
        (HEADER, "0.png,nan,0", "0.png"),
        (HEADER, "0.png,0,inf", "0.png"),
        (HEADER, "0.png,0,-1.7976931348623157e308", "0.png"),
        (HEADER, "0.png,1e39,0", "0.png"),
        (HEADER.replace(",", ";"), "0.png;0;0", "commas"),
        ("pitch_rad,yaw_rad,filename", "0,0", ""),
        (HEADER, "", ""),
        (HEADER, "absent.png,0,0", "none"),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    tmp_path: Path, header: str, row: str, word: str
) -> None:
    path = write_folder(tmp_path / "data", header, [row], pictures(1))
    assert word in refusal(path)


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe\x00", b"filename,pitch_rad,yaw_rad\n"], ids=str
)
def test_unreadable_tables_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "data"
    path.mkdir()
    if content is not None:
        (path / "labels.csv").write_bytes(content)
    refusal(path)


NPZ = [
    ({"images": None}, "images"),
    ({"labels": None}, "labels"),
    ({"columns": None}, "columns"),
    ({"images": pictures(4)}, "4"),
    ({"images": pictures(5).astype(np.float32)}, "uint8"),
    ({"images": pictures(5)[..., :1]}, "RGB"),
    ({"images": pictures(5)[..., 0]}, "RGB"),
    ({"images": np.moveaxis(pictures(5), 3, 1)}, "RGB"),
    ({"images": np.asfortranarray(pictures(5))}, "Fortran"),
    ({"images": np.empty((5, 0, 8, 3), np.uint8)}, ""),
    ({"images": np.array([{}] * 5)}, "images"),
    ({"labels": np.zeros(5)}, "labels"),
    ({"labels": np.zeros((5, 3))}, "columns"),
    ({"labels": np.full((5, 2), np.nan)}, "finite"),
    ({"labels": np.full((5, 2), np.inf)}, "finite"),
    ({"labels": np.full((5, 2), 1e39)}, "finite"),
    ({"labels": np.array([["left", "right"]] * 5)}, ""),
    ({"labels": np.array([[{}, {}]] * 5)}, ""),
    ({"columns": np.array(["pitch_rad", "roll_rad"])}, "yaw"),
    ({"columns": np.array(["pitch", "yaw"])}, "pitch_rad"),
    ({"columns": np.array("pitch_rad")}, "columns"),
    ({"columns": np.array([{}, {}])}, ""),
    ({"person": np.arange(4)}, "person"),
    ({"person": np.array("anna")}, "person"),
    ({"person": np.array([{}] * 5)}, ""),
    ({"images": pictures(0), "labels": np.empty((0, 2))}, ""),
]


@pytest.mark.parametrize(("changes", "word"), NPZ, ids=range(len(NPZ)))
def test_npz_files_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    assert word in refusal(npz_of(tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_unreadable_npz_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    refusal(path)


def test_a_single_array_under_the_name_of_an_npz_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", pictures(2))
    (tmp_path / "data.npy").rename(tmp_path / "data.npz")
    refusal(tmp_path / "data.npz")


@pytest.mark.parametrize(
    "damage", [(b"'descr'", b"'descr\\"), (b"(5, 2), }", b"(9**99,)}")], ids=["header", "size"]
)
def test_a_damaged_header_inside_an_npz_is_refused(
    damage: tuple[bytes, bytes], tmp_path: Path
) -> None:
    path = npz_of(tmp_path)
    content = path.read_bytes()
    assert damage[0] in content
    path.write_bytes(content.replace(*damage))
    refusal(path)


def test_a_damaged_compressed_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    columns = np.array(["pitch_rad", "yaw_rad"])
    np.savez_compressed(path, images=pictures(5, 64), labels=np.zeros((5, 2)), columns=columns)
    content = bytearray(path.read_bytes())
    content[200:4000] = b"\xff" * 3800
    path.write_bytes(bytes(content))
    refusal(path)


def packed_again(path: Path, method: int) -> bytearray:
    """The bytes of an .npz whose members are packed by another method of zip."""
    with zipfile.ZipFile(npz_of(path)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path / "data.npz", "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return bytearray((path / "data.npz").read_bytes())


def test_an_encrypted_npz_is_refused(tmp_path: Path) -> None:
    content = packed_again(tmp_path, zipfile.ZIP_STORED)
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # of each member, twice
        at = content.find(mark)
        while at >= 0:
            content[at + flags] |= 1
            at = content.find(mark, at + 1)
    (tmp_path / "data.npz").write_bytes(content)
    assert "encrypted" in refusal(tmp_path / "data.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("member", ["images", "columns"])
def test_a_damaged_member_is_refused(member: str, method: int, tmp_path: Path) -> None:
    content = packed_again(tmp_path, method)
    at = content.find(f"{member}.npy".encode()) + len(member) + 4
    content[at + 12 : at + 40] = b"\xff" * 28  # behind what says how it is packed
    (tmp_path / "data.npz").write_bytes(content)
    refusal(tmp_path / "data.npz")


@pytest.mark.parametrize("name", ["absent", "data.csv", "data.npy"])
def test_other_kinds_of_data_are_refused(tmp_path: Path, name: str) -> None:
    if name != "absent":
        (tmp_path / name).write_bytes(b"anything")
    assert ".npz" in refusal(tmp_path / name)
