"""Reading an ONNX file: what onnx.checker says of it, and what it takes and gives."""

from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import onnx
from onnx import TensorProto

from export.graph_external import take_in
from export.graph_node import shown
from guard.errors import UnusableInput

OPSETS = range(11, 27)
FLOAT_INPUTS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True)
class OnnxFile:
    """A file that passed onnx.checker, and what it takes and gives."""

    path: Path
    content: bytes  # with the weights that lie in files beside it
    proto: onnx.ModelProto  # with inferred shapes, without nodes that nothing needs
    opset: int
    input: str
    output: str
    batch: int | None  # None: symbolic
    size: tuple[int, int]  # height, width; 0 where symbolic
    pixels: bool  # uint8 pictures [N x H x W x 3] instead of floats [N x 3 x H x W]
    half_input: bool  # of which half floats


def read_onnx(path: Path) -> OnnxFile:
    """Read and check a file as ONNX, not yet its operators. Raises UnusableInput."""
    if not path.is_file():
        raise UnusableInput(f"{path}: there is no such model file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnusableInput(f"{path}: can't be read ({error.strerror})") from None
    try:
        proto = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own kinds
        raise UnusableInput(f"{path}: not a readable ONNX file ({shown(str(error))})") from None
    if proto.functions or proto.graph.sparse_initializer:
        raise UnusableInput(f"{path}: local functions and sparse weights are not supported")
    if take_in(proto, path):
        content = _whole(proto, path)
    opset = _opset(proto, path)
    try:
        _check_names(proto.graph)
        _sort_nodes(proto.graph)
        onnx.checker.check_model(proto, full_check=True)
        _drop_unneeded(proto.graph)
        proto = onnx.shape_inference.infer_shapes(proto)
    except Exception as error:  # the checker raises several kinds
        raise UnusableInput(f"{path}: not a valid ONNX file ({shown(str(error))})") from None
    return _interface(path, content, proto, opset)


def _whole(proto: onnx.ModelProto, path: Path) -> bytes:
    """The file with the weights of others in it, for onnxruntime."""
    try:
        return proto.SerializeToString()
    except Exception:  # protobuf's own kinds
        raise UnusableInput(
            f"{path}: its weights are over 2 GB, more than one file holds"
        ) from None


def _check_names(graph: onnx.GraphProto) -> None:
    """protobuf gives text that is not UTF-8 as bytes, where it was promised to be text."""
    values = (*graph.input, *graph.output, *graph.initializer)
    names = [value.name for value in (*values, *graph.node)]
    for node in graph.node:
        names += [node.op_type, node.domain, *node.input, *node.output]
        names += [attribute.name for attribute in node.attribute]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("a name is not UTF-8")


def _sort_nodes(graph: onnx.GraphProto) -> None:
    """Each node behind those that it needs, which converters to half floats leave undone."""
    made_by = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    needs = {
        place: {made_by[name] for name in _names_read(node) if name in made_by}
        for place, node in enumerate(graph.node)
    }
    nodes = [graph.node[place] for place in TopologicalSorter(needs).static_order()]
    del graph.node[:]
    graph.node.extend(nodes)


def _drop_unneeded(graph: onnx.GraphProto) -> None:
    """Only the nodes behind the outputs, as onnxruntime runs them.

    Else one that does nothing could decide what the file passes for: int8, say.
    """
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            needed.update(_names_read(node))
            kept.append(node)
    known = [value for value in graph.value_info if value.name in needed]
    for field, values in ((graph.node, kept[::-1]), (graph.value_info, known)):
        del field[:]
        field.extend(values)


def _names_read(node: onnx.NodeProto) -> Iterator[str]:
    """The values that a node reads; those of the graphs inside it too."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for each in inner.node:
                yield from _names_read(each)
            yield from (output.name for output in inner.output)


def _opset(proto: onnx.ModelProto, path: Path) -> int:
    found = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    if not found or found[0] not in OPSETS:
        raise UnusableInput(
            f"{path}: is of ONNX opset {found[0] if found else 'unknown'}; "
            f"opsets {OPSETS[0]} to {OPSETS[-1]} are supported"
        )
    return int(found[0])


def _interface(path: Path, content: bytes, proto: onnx.ModelProto, opset: int) -> OnnxFile:
    graph = proto.graph
    held = {tensor.name for tensor in graph.initializer}  # old files list them as inputs too
    inputs = [value for value in graph.input if value.name not in held]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise UnusableInput(
            f"{path}: has {len(inputs)} inputs and {len(graph.output)} outputs; "
            "expected one picture in and one tensor [N x d] out: join outputs in the model "
            "(torch.cat, Concat) and export it again"
        )
    given = onnx.TensorProto.DataType.Name(graph.output[0].type.tensor_type.elem_type)
    if given not in ("FLOAT", "FLOAT16", "DOUBLE"):
        raise UnusableInput(f"{path}: gives {given}, not floats: no trigger can be searched for")
    kind = inputs[0].type.tensor_type
    sides = [max(side.dim_value, 0) for side in kind.shape.dim]  # 0: symbolic, as -1 is
    pixels = kind.elem_type == TensorProto.UINT8
    channels = sides.pop(3 if pixels else 1) if len(sides) == 4 else -1
    if channels not in (0, 3) or not (pixels or kind.elem_type in FLOAT_INPUTS):
        raise UnusableInput(
            f"{path}: takes {shown(onnx.helper.printable_type(inputs[0].type))}; expected floats "
            "[N x 3 x H x W] or uint8 [N x H x W x 3]; to floats with channels first tf2onnx turns "
            "a file by --inputs-as-nchw=INPUT"
        )
    return OnnxFile(
        path=path,
        content=content,
        proto=proto,
        opset=opset,
        input=inputs[0].name,
        output=graph.output[0].name,
        batch=sides[0] or None,
        size=(sides[1], sides[2]),
        pixels=pixels,
        half_input=kind.elem_type == TensorProto.FLOAT16,
    )
