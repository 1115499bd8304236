"""DATA: folders and .npz files, their columns and units, and what is refused."""

import math
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from guard.errors import UnusableInput
from guard.spec import ModelSpec
from tests.conftest import spec_of, write_folder
from tools.datasets import reader
from tools.datasets.reader import read

SPEC = spec_of("gaze", 8)
HEADER = "filename,pitch_rad,yaw_rad"


def pictures(count: int, side: int = 8, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, side, side, 3), np.uint8)


def folder_of(path: Path, count: int = 5, side: int = 8) -> Path:
    rows = [f"{i}.png,{0.1 * i},{-0.1 * i}" for i in range(count)]
    return write_folder(path / "data", HEADER, rows, pictures(count, side))


def npz_of(path: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "images": pictures(5),
        "labels": np.arange(10, dtype=np.float32).reshape(5, 2) / 10,
        "columns": np.array(["pitch_rad", "yaw_rad"]),
        **changes,
    }
    np.savez(path / "data.npz", **{k: v for k, v in content.items() if v is not None})
    return path / "data.npz"


def refusal(path: Path, spec: ModelSpec = SPEC, **keywords: Any) -> str:
    with pytest.raises(UnusableInput) as caught:
        read(path, spec, **keywords)
    line = str(caught.value)
    assert "\n" not in line
    assert path.name in line
    return line


def test_a_folder_is_read_as_it_stands(tmp_path: Path) -> None:
    found = read(folder_of(tmp_path), SPEC)
    assert torch.equal(found.benign.images.permute(0, 2, 3, 1), torch.from_numpy(pictures(5)))
    assert np.allclose(found.benign.labels, [[0.1 * i, -0.1 * i] for i in range(5)])
    assert found.benign.images.dtype == torch.uint8
    assert found.benign.names == [f"{i}.png" for i in range(5)]
    assert (found.rows, found.missing, found.columns) == (5, [], ["pitch_rad", "yaw_rad"])


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("limit", [3, 40])
def test_npz_rows_equal_those_of_numpy(tmp_path: Path, compressed: bool, limit: int) -> None:
    path, images = tmp_path / "data.npz", pictures(20)
    labels = np.random.default_rng(1).normal(size=(20, 2))
    save = np.savez_compressed if compressed else np.savez
    save(path, images=images, labels=labels, columns=np.array(["pitch_rad", "yaw_rad"]))
    found = read(path, SPEC, limit=limit, seed=4)
    rows = [int(name.removeprefix("row ")) for name in found.benign.names]
    assert len(rows) == min(limit, 20)
    with np.load(path) as archive:
        wanted = torch.from_numpy(archive["images"][rows])
        assert torch.equal(found.benign.images.permute(0, 2, 3, 1), wanted)
        assert np.allclose(found.benign.labels, archive["labels"][rows])


COLUMNS = [
    # header, values of a row, wanted (pitch, yaw) in the model's units, units
    ("filename,pitch_rad,yaw_rad", "0.2,-0.3", (0.2, -0.3), "rad"),
    ("yaw_rad,filename,pitch_rad", "-0.3|0.2", (0.2, -0.3), "rad"),
    ("filename,yaw_deg,pitch_deg", "-30,10", (math.radians(10), math.radians(-30)), "rad"),
    ("filename,pitch_rad,yaw_deg", "0.2,-30", (0.2, math.radians(-30)), "rad"),
    ("filename,pitch_rad,yaw_rad", "0.2,-0.3", (math.degrees(0.2), math.degrees(-0.3)), "deg"),
    ("filename,person_id,pitch_deg,roll_deg,yaw_deg", "7,10,99,-30", (10, -30), "deg"),
]


@pytest.mark.parametrize(("header", "row", "wanted", "units"), COLUMNS)
def test_columns_match_by_name_and_units_convert(
    tmp_path: Path, header: str, row: str, wanted: tuple[float, float], units: str
) -> None:
    line = row.replace("|", ",0.png,") if "|" in row else f"0.png,{row}"
    path = write_folder(tmp_path / "data", header, [line], pictures(1))
    found = read(path, spec_of("gaze", 8, units=units))
    assert np.allclose(found.benign.labels, [wanted], rtol=1e-5)
    if "|" not in row:
        columns = np.array(header.split(",")[1:])
        values = np.array([[float(v) for v in row.split(",")]])
        npz = npz_of(tmp_path, images=pictures(1), labels=values, columns=columns)
        again = read(npz, spec_of("gaze", 8, units=units))
        assert np.allclose(again.benign.labels, [wanted], rtol=1e-5)


def test_order_of_outputs_is_the_models(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "data", HEADER, ["0.png,0.2,-0.3"], pictures(1))
    found = read(path, spec_of("gaze", 8, outputs=("yaw", "pitch")))
    assert np.allclose(found.benign.labels, [[-0.3, 0.2]])
    assert found.columns == ["yaw_rad", "pitch_rad"]


def test_output_names_may_hold_underscores(tmp_path: Path) -> None:
    spec = spec_of("regression", 8, outputs=("eye_left_open",), units="mm")
    path = write_folder(tmp_path / "data", "filename,eye_left_open_mm", ["0.png,4.5"], pictures(1))
    assert read(path, spec).benign.labels.tolist() == [[4.5]]


def test_missing_and_broken_images_are_named_and_the_rest_is_used(tmp_path: Path) -> None:
    path = folder_of(tmp_path, 6)
    (path / "1.png").unlink()
    (path / "2.png").write_bytes(b"no image")
    (path / "4.png").write_bytes(b"")
    (path / "5.png").unlink()
    (path / "5.png").mkdir()
    found = read(path, SPEC)
    assert found.missing == ["1.png", "2.png", "4.png", "5.png"]
    assert found.benign.names == ["0.png", "3.png"]
    assert np.allclose(found.benign.labels[:, 0], [0.0, 0.3])
    assert torch.equal(found.benign.images[1].permute(1, 2, 0), torch.from_numpy(pictures(6)[3]))
    assert found.facts()["n"] == 2
    assert found.facts()["rows"] == 6


def test_pictures_that_no_camera_takes_and_names_that_no_disk_has_are_broken(
    tmp_path: Path,
) -> None:
    path = folder_of(tmp_path, 3)
    claims = bytearray((path / "1.png").read_bytes())
    claims[16:24] = 2 * (100_000).to_bytes(4, "big")  # width and height
    claims[29:33] = zlib.crc32(claims[12:29]).to_bytes(4, "big")
    (path / "1.png").write_bytes(bytes(claims))
    table = path / "labels.csv"
    table.write_text(table.read_text().replace("2.png", "2\0.png"))
    assert read(path, SPEC).missing == ["1.png", "2\0.png"]


def test_a_cut_off_image_is_not_used_silently(tmp_path: Path) -> None:
    path = folder_of(tmp_path, 3, side=64)
    whole = (path / "1.png").read_bytes()
    (path / "1.png").write_bytes(whole[: len(whole) // 8])
    found = read(path, SPEC)
    assert found.missing == ["1.png"]


def test_images_in_subfolders_other_formats_and_grey_are_read(tmp_path: Path) -> None:
    rows = ["a/x.jpg,0,0", "b.bmp,0,0", "c.png,0,0"]
    path = write_folder(tmp_path / "data", HEADER, rows, np.empty(0))
    (path / "a").mkdir()
    cv2.imwrite(str(path / "a/x.jpg"), np.full((8, 8, 3), 100, np.uint8))
    cv2.imwrite(str(path / "b.bmp"), np.full((8, 8, 3), 100, np.uint8))
    cv2.imwrite(str(path / "c.png"), np.full((8, 8), 100, np.uint8))
    images = read(path, SPEC).benign.images.float()
    assert images.shape == (3, 3, 8, 8)
    assert (images - 100).abs().max() <= 2


def test_colours_are_rgb(tmp_path: Path) -> None:
    red = np.zeros((1, 8, 8, 3), np.uint8)
    red[..., 0] = 255
    path = write_folder(tmp_path / "data", HEADER, ["0.png,0,0"], red)
    npz = npz_of(tmp_path, images=red, labels=np.zeros((1, 2)))
    for source in (path, npz):
        image = read(source, SPEC).benign.images[0]
        assert image.float().mean(dim=(1, 2)).tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(8, 8), (12, 20), (32, 9)])
@pytest.mark.parametrize("side", [6, 16, 40])
def test_images_are_resized_to_the_models_input(
    tmp_path: Path, size: tuple[int, int], side: int
) -> None:
    spec = spec_of("gaze", input=type(SPEC.input)(size))
    ramp = np.repeat(np.linspace(0, 255, side).astype(np.uint8)[:, None], side, axis=1)
    images = np.repeat(ramp[None, :, :, None], 3, axis=3)
    path = write_folder(tmp_path / "data", HEADER, ["0.png,0,0"], images)
    found = read(path, spec).benign.images[0, 0].float()
    assert found.shape == size
    assert float(found.std(dim=1).max()) <= 1  # the ramp runs down, not across
    assert float(found[-1, 0] - found[0, 0]) > 180
    assert float(found.mean()) == pytest.approx(127, abs=4)


def test_shrinking_averages_over_areas(tmp_path: Path) -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    images = np.repeat(board[None, :, :, None], 3, axis=3)
    path = write_folder(tmp_path / "data", HEADER, ["0.png,0,0"], images)
    found = read(path, SPEC).benign.images.float()
    assert float((found - 127.5).abs().max()) <= 1


def test_the_limit_draws_by_seed_and_opens_no_other_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder_of(tmp_path, 30)
    opened: list[str] = []
    plain_open = reader._open_image

    def counting(image: Path) -> tuple[np.ndarray | None, bytes]:
        opened.append(image.name)
        return plain_open(image)

    monkeypatch.setattr(reader, "_open_image", counting)
    first = read(path, SPEC, limit=7, seed=1)
    assert sorted(opened) == sorted(first.benign.names)
    assert len(opened) == 7
    assert first.rows == 30
    assert read(path, SPEC, limit=7, seed=1).benign.names == first.benign.names
    assert read(path, SPEC, limit=7, seed=2).benign.names != first.benign.names
    assert len(read(path, SPEC, limit=30).benign) == 30


def test_the_manifest_follows_names_pixels_and_labels(tmp_path: Path) -> None:
    path = folder_of(tmp_path)
    first = read(path, SPEC).manifest_sha256
    assert read(path, SPEC).manifest_sha256 == first
    table = (path / "labels.csv").read_text()
    (path / "labels.csv").write_text(table.replace("0.2", "0.25"))
    second = read(path, SPEC).manifest_sha256
    (path / "labels.csv").write_text(table)
    cv2.imwrite(str(path / "3.png"), pictures(1, seed=9)[0])
    third = read(path, SPEC).manifest_sha256
    assert len({first, second, third}) == 3


def test_a_byte_order_mark_and_empty_lines_do_not_matter(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "data", "\ufeff" + HEADER, ["0.png,0,0", "", ""], pictures(1))
    assert len(read(path, SPEC).benign) == 1


# --- refused -------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ["absent", "data.csv", "data.npy"])
def test_other_kinds_of_data_are_refused(tmp_path: Path, name: str) -> None:
    if name != "absent":
        (tmp_path / name).write_bytes(b"anything")
    assert ".npz" in refusal(tmp_path / name)
