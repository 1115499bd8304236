"""Weights that an ONNX file keeps in other files: taken in from its own folder, no other."""

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto

from export.graph_node import shown
from guard.errors import UnusableInput


def data_files(path: Path) -> dict[str, str]:
    """The SHA-256 of each file, by name, that holds weights of a readable ONNX file."""
    files = take_in(onnx.load_model(path, load_external_data=False), path)
    return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}


def take_in(proto: onnx.ModelProto, path: Path) -> dict[str, bytes]:
    """Put weights that lie in other files into the graph; gives the content of these by name.

    Raises UnusableInput for one that is no plain file beside `path`.
    """
    files: dict[str, bytes] = {}
    for tensor in _tensors(proto.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            where = {entry.key: entry.value for entry in tensor.external_data}
            name = where.get("location", "")
            if name not in files:
                files[name] = _content(name, path)
            try:
                values = _part(files[name], where, tensor)
            except (ValueError, KeyError):
                raise UnusableInput(
                    f"{path}: {shown(name)} does not hold the values of {shown(tensor.name)} "
                    "where it says; ask for both files anew"
                ) from None
            del tensor.external_data[:]
            tensor.data_location, tensor.raw_data = TensorProto.DEFAULT, values
    return files


def _content(name: str, path: Path) -> bytes:
    """Of a file beside `path`; of no link, for that may lead anywhere."""
    try:
        beside = path.parent / name
        if Path(name).name == name and beside.is_file() and not beside.is_symlink():
            return beside.read_bytes()
    except (OSError, TypeError, ValueError):  # a name that is none
        pass
    raise UnusableInput(
        f"{path}: keeps weights in another file, {shown(str(name)) or 'without a name'}, that is "
        "no plain file beside it; put it there, or save all as one file "
        "(onnx.save_model with save_as_external_data=False)"
    )


def _part(content: bytes, where: dict[str, str], tensor: TensorProto) -> bytes:
    """The bytes of one tensor. Raises ValueError where they are not as many as it has."""
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    start, needed = int(where.get("offset", 0)), math.prod(tensor.dims) * kind.itemsize
    part = content[start : start + needed]
    if start < 0 or len(part) != needed or int(where.get("length", needed)) != needed:
        raise ValueError
    return part


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)
