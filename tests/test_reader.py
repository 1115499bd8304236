"""DATA: folders and .npz files, their columns and units."""

import math
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.conftest import spec_of, write_folder
from tests.reader_files import HEADER, SPEC, folder_of, npz_of, pictures
from tools.datasets import reader
from tools.datasets.reader import read


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


def test_persons_are_read_where_they_are_told_apart(tmp_path: Path) -> None:
    rows = [f"{i}.png,0.1,0.2,{who}" for i, who in enumerate(("anna", " bert", "anna"))]
    table = read(write_folder(tmp_path / "t", f"{HEADER},person", rows, pictures(3)), SPEC)
    assert table.benign.persons == ["anna", "bert", "anna"]
    assert table.facts()["persons"] == 2
    archive = read(npz_of(tmp_path, person=np.array([3, 3, 1, 2, 1])), SPEC, limit=4, seed=1)
    rows_read = [int(name.removeprefix("row ")) for name in archive.benign.names]
    assert archive.benign.persons == [("3", "3", "1", "2", "1")[row] for row in rows_read]
    assert archive.benign.part(torch.tensor([2, 0])).persons == [
        archive.benign.persons[k] for k in (2, 0)
    ]
    alike = read(npz_of(tmp_path), SPEC, limit=4, seed=1)
    assert (alike.benign.persons, alike.facts()["persons"]) == ([], None)
    assert alike.manifest_sha256 != archive.manifest_sha256


def test_a_byte_order_mark_and_empty_lines_do_not_matter(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "data", "\ufeff" + HEADER, ["0.png,0,0", "", ""], pictures(1))
    assert len(read(path, SPEC).benign) == 1
