"""Read DATA of the contract: a folder with labels.csv, or an .npz, into a benign set."""

import csv
import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import torch

from guard.benign import BenignSet
from guard.errors import UnusableInput
from guard.files import digest
from guard.spec import ModelSpec
from guard.tasks import unit_factor

# What a file that is no .npz, or a damaged one, makes NumPy and zipfile raise.
UNREADABLE = (
    *(OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile, zlib.error),
    *(RuntimeError, MemoryError, SyntaxError, tokenize.TokenError),  # RuntimeError: encrypted
    lzma.LZMAError,
)
PERSON = "person"  # the column, or array, that tells persons apart; it may be left out
LARGEST = 1e9  # labels beyond are marks of "no label" in some tables, and overflow a float32

Picture = tuple[str, np.ndarray | None, bytes]  # name, RGB uint8 (H, W, 3) or None, raw bytes


@dataclass
class BenignData:
    """A benign set with what the report states of where it came from."""

    benign: BenignSet
    path: str
    rows: int  # labelled images in DATA
    missing: list[str] = field(default_factory=list)  # named in the labels, missing or broken
    columns: list[str] = field(default_factory=list)  # the label columns that were used
    manifest_sha256: str = ""  # over names, image bytes and labels of the images used

    def facts(self) -> dict[str, Any]:
        """The `data` part of the report."""
        return {
            "path": self.path,
            "n": len(self.benign),
            "rows": self.rows,
            "missing": self.missing,
            "columns": self.columns,
            "persons": len(set(self.benign.persons)) or None,
            "manifest_sha256": self.manifest_sha256,
        }


def read(path: Path, spec: ModelSpec, *, limit: int = 2000, seed: int = 0) -> BenignData:
    """At most `limit` images, drawn by `seed`, at the model's input size and in its units.

    The others are not opened, so memory and time stay flat however large DATA is.
    Raises UnusableInput where DATA can't be read or the labels do not fit the model.
    """
    if path.is_dir():
        return _read_folder(path, spec, limit, seed)
    if path.suffix == ".npz" and path.is_file():
        return _read_npz(path, spec, limit, seed)
    raise UnusableInput(f"{path}: expected a folder with labels.csv, or an .npz file")


def _read_folder(path: Path, spec: ModelSpec, limit: int, seed: int) -> BenignData:
    table = path / "labels.csv"
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnusableInput(f"{table}: can't be read ({error})") from None
    if "filename" not in header:
        raise UnusableInput(
            f"{table}: has no column named filename, with commas between the columns"
        )
    rows = [row for row in rows if row]
    picks, factors, used = match_columns(header, spec, str(table))
    chosen = _choose(len(rows), limit, seed)
    rows_chosen = [rows[i] for i in chosen]
    labels = np.array([_numbers(row, picks, str(table)) for row in rows_chosen], np.float64)
    where = header.index("filename")
    names = [row[where] if where < len(row) else "" for row in rows_chosen]
    persons = _persons(rows_chosen, header, str(table))
    # What can't be read is named in the report; OpenCV's own lines name no file.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    pictures = ((name, *_open_image(path / name)) for name in names)
    labels = labels.reshape(-1, len(picks)) * factors
    return _assemble(pictures, labels, persons, spec, path, len(rows), used)


def _read_npz(path: Path, spec: ModelSpec, limit: int, seed: int) -> BenignData:
    try:
        with np.load(path, allow_pickle=False) as archive:
            columns = [str(name) for name in archive["columns"]]
            all_labels = np.asarray(archive["labels"], np.float64)
            if "images" not in archive:
                raise KeyError("images")
            who = archive[PERSON].astype(str) if PERSON in archive else None
    except UNREADABLE as error:
        raise UnusableInput(f"{path}: needs images, labels and columns ({error})") from None
    if all_labels.ndim != 2 or all_labels.shape[1] != len(columns):
        raise UnusableInput(f"{path}: labels {all_labels.shape} do not fit {len(columns)} columns")
    if who is not None and who.shape != all_labels.shape[:1]:
        raise UnusableInput(f"{path}: {PERSON} {who.shape} does not fit {len(all_labels)} labels")
    picks, factors, used = match_columns(columns, spec, str(path))
    chosen = _choose(len(all_labels), limit, seed)
    persons = [] if who is None else who[chosen].tolist()
    labels = all_labels[chosen][:, picks] * factors
    if not (np.abs(labels) < LARGEST).all():
        raise UnusableInput(f"{path}: some labels are not finite numbers")
    pictures = _npz_pictures(path, chosen, len(all_labels))
    try:
        return _assemble(pictures, labels, persons, spec, path, len(all_labels), used)
    except UNREADABLE as error:
        raise UnusableInput(f"{path}: images can't be read ({error})") from None


def match_columns(
    columns: Sequence[str], spec: ModelSpec, where: str
) -> tuple[list[int], np.ndarray, list[str]]:
    """For each output of the model its column, the factor to the model's units, and its name."""
    picks, factors = [], []
    for output in spec.outputs:
        found = [i for i, column in enumerate(columns) if column.rpartition("_")[0] == output]
        if len(found) != 1:
            named = ", ".join(columns)
            raise UnusableInput(
                f"{where}: {len(found)} columns for the output {output}; expected one such as "
                f"{output}_{spec.units}, found: {named}"
            )
        unit = columns[found[0]].rpartition("_")[2]
        factor = unit_factor(unit, spec.units)
        if factor is None:
            raise UnusableInput(
                f"{where}: {columns[found[0]]} can't be converted to the model's {spec.units}"
            )
        picks.append(found[0])
        factors.append(factor)
    return picks, np.array(factors), [columns[i] for i in picks]


def _choose(rows: int, limit: int, seed: int) -> np.ndarray:
    order = np.random.default_rng(seed).permutation(rows)
    return np.sort(order[:limit])


def _numbers(row: list[str], picks: list[int], where: str) -> list[float]:
    try:
        values = [float(row[i]) for i in picks]
    except (ValueError, IndexError):
        raise UnusableInput(f"{where}: the row of {row[0]} holds no number for a label") from None
    if not (np.abs(values) < LARGEST).all():  # also NaN
        raise UnusableInput(f"{where}: the row of {row[0]} holds a label that no driver has")
    return values


def _persons(rows: list[list[str]], header: list[str], where: str) -> list[str]:
    """Who is in each row's picture; empty where the table has no such column."""
    if PERSON not in header:
        return []
    column = header.index(PERSON)
    short = [row[0] for row in rows if len(row) <= column or not row[column].strip()]
    if short:
        raise UnusableInput(f"{where}: the row of {short[0]} does not say which {PERSON} it shows")
    return [row[column].strip() for row in rows]


def _open_image(path: Path) -> tuple[np.ndarray | None, bytes]:
    try:
        raw = path.read_bytes()
    except (OSError, ValueError):  # a name may hold what no file system takes
        return None, b""
    try:
        return cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR_RGB), raw
    except cv2.error:  # no bytes at all, or a header that claims more pixels than any camera has
        return None, raw


def _npz_pictures(path: Path, chosen: np.ndarray, rows: int) -> Iterator[Picture]:
    """The chosen rows of `images`, read one after the other: the array is never held whole."""
    with zipfile.ZipFile(path) as archive, archive.open("images.npy") as file:
        shape = _npy_shape(file, path, rows)
        size = int(np.prod(shape[1:]))
        at = 0
        for row in chosen.tolist():
            file.seek((row - at) * size, 1)
            raw = file.read(size)
            at = row + 1
            whole = len(raw) == size
            image = np.frombuffer(raw, np.uint8).reshape(shape[1:]) if whole else None
            yield f"row {row}", image, raw


def _npy_shape(file: IO[bytes], path: Path, rows: int) -> tuple[int, ...]:
    try:
        version = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read_header(file)
    except UNREADABLE as error:
        raise UnusableInput(f"{path}: images can't be read ({error})") from None
    if fortran:
        raise UnusableInput(f"{path}: images are in Fortran order; save np.ascontiguousarray(...)")
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape[1:]:
        raise UnusableInput(f"{path}: images must be uint8 (N, H, W, 3) RGB, found {dtype} {shape}")
    if shape[0] != rows:
        raise UnusableInput(f"{path}: {shape[0]} images but {rows} rows of labels")
    return tuple(shape)


def _assemble(
    pictures: Iterator[Picture],
    labels: np.ndarray,
    persons: list[str],
    spec: ModelSpec,
    path: Path,
    rows: int,
    columns: list[str],
) -> BenignData:
    height, width = spec.input.size
    images = np.empty((len(labels), height, width, 3), np.uint8)
    names: list[str] = []
    missing: list[str] = []
    kept: list[int] = []
    parts: list[str] = []
    for row, (name, image, raw) in enumerate(pictures):
        if image is None:
            missing.append(name)
            continue
        images[len(kept)] = _resize(image, height, width)
        names.append(name)
        kept.append(row)
        parts.append(digest(name, raw, labels[row].tobytes(), *persons[row : row + 1]))
    if not kept:
        raise UnusableInput(f"{path}: none of the {len(labels)} labelled images can be read")
    pixels = torch.from_numpy(images[: len(kept)]).permute(0, 3, 1, 2).contiguous()
    who = [persons[row] for row in kept] if persons else []
    benign = BenignSet(pixels, torch.from_numpy(labels[kept]).float(), names, who)
    return BenignData(benign, str(path), rows, missing, columns, digest(*parts))


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    # Area averaging where the image shrinks: other kernels alias, and a model sees the aliases.
    smaller = height * width < image.shape[0] * image.shape[1]
    kernel = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=kernel))
