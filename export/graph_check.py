"""Proof at load time: the torch module computes what onnxruntime computes from the file."""

import hashlib
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto
from torch import Tensor

from export.graph_file import OnnxFile, read_onnx
from export.graph_node import shown
from export.graph_read import Step
from export.graph_rounding import makers, mostly
from export.session import open_on_cpu
from export.write import frozen_copy
from guard.errors import UnusableInput
from guard.model import Model

# The largest difference allowed, as shares of an output's spread over the probes and of its
# size. Measured on five ResNet-18 of the attack zoo: float32 and half floats 3e-6 of the spread
# (onnxruntime computes half floats in float32 on this CPU, others need not: their unit is 5e-4);
# int8 1.4 %, one or two steps of the output's own scale, where a rounding falls the other way.
TOLERANCE = {"float32": (1e-4, 1e-5), "float16": (5e-3, 1e-3), "int8": (5e-2, 2e-2)}
MOVES = ("Flatten", "Identity", "Reshape", "Transpose")  # between a DequantizeLinear and a layer


def check_parity(model: Model, file: OnnxFile) -> None:
    """Compare on pictures at the limits and on noise, in batches of 1 and 3 or as the file says.

    Raises UnusableInput where the largest difference of an output exceeds TOLERANCE, or where
    no gradient of the answers reaches the pictures.
    """
    seed = int.from_bytes(hashlib.sha256(file.content).digest()[:8])
    x = probes(model.spec.input.size, seed % 2**63)
    _compare(model, file, x, len(x), (1, 3))
    if not model(x[:1].requires_grad_()).requires_grad:
        raise UnusableInput(
            f"{file.path}: no gradient of its outputs reaches the image (a Cast to whole numbers, "
            "say), so no trigger can be searched for"
        )


def check_pictures(model: Model, path: Path, pictures: Tensor, benign: int) -> None:
    """Hold a model against the file that it came from on pictures [N x 3 x H x W] uint8.

    The first `benign` of them set the tolerance. Raises UnusableInput as check_parity.
    """
    x = pictures.cpu().float() / 255
    _compare(frozen_copy(model), read_onnx(path), x, benign, (1, 16))


def probes(size: tuple[int, int], seed: int) -> Tensor:
    """All 0, all 1, noise and blurred noise: [6 x 3 x H x W] in whole steps of 1/255.

    The seed comes of the file, so that none can be made for the noise that it will meet.
    """
    draw = torch.Generator().manual_seed(seed)
    noise = torch.rand(2, 3, *size, generator=draw)
    coarse = torch.rand(2, 3, 4, 4, generator=draw)
    blurred = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
    limits = torch.stack([torch.zeros(3, *size), torch.ones(3, *size)])
    return (255 * torch.cat([limits, noise, blurred])).round() / 255


def precision(file: OnnxFile) -> str:
    """ "int8" where the layers with weights are quantised, else "float16" where halves are.

    A pair of QuantizeLinear and DequantizeLinear somewhere loosens no tolerance: both inputs of
    a layer must come from such.
    """
    nodes = [Step(n.op_type, None, tuple(n.input), tuple(n.output)) for n in file.proto.graph.node]
    made_by = makers(nodes)

    def quantised(name: str) -> bool:
        step = made_by.get(name)
        while step is not None and step.op in MOVES:
            step = made_by.get(step.inputs[0])
        return step is not None and step.op == "DequantizeLinear"

    if mostly(nodes, lambda layer: all(map(quantised, layer.inputs[:2]))):
        return "int8"
    values = [*file.proto.graph.input, *file.proto.graph.value_info]
    half = any(value.type.tensor_type.elem_type == TensorProto.FLOAT16 for value in values)
    return "float16" if half else "float32"


def _as_fed(x: Tensor, file: OnnxFile) -> np.ndarray:
    if file.pixels:
        return (255 * x).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return x.half().numpy() if file.half_input else x.numpy()


def _by_onnxruntime(
    session: onnxruntime.InferenceSession, x: np.ndarray, batch: int, file: OnnxFile
) -> np.ndarray:
    """What the file gives for x, `batch` pictures at a time; the last batch is filled up."""
    parts = []
    try:
        for start in range(0, len(x), batch):
            part = x[start : start + batch]
            full = part[np.arange(batch) % len(part)]
            parts.append(session.run(None, {file.input: full})[0][: len(part)])
        return np.concatenate(parts).astype(np.float32)
    except Exception as error:
        raise UnusableInput(
            f"{file.path}: onnxruntime can't run it in batches of {batch} ({shown(str(error))})"
        ) from None


def _compare(model: Model, file: OnnxFile, x: Tensor, first: int, batches: tuple[int, ...]) -> None:
    """Compare on pictures in [0, 1], of which the first ones set the tolerance."""
    session = open_on_cpu(file)
    with torch.no_grad():
        ours, given = model(x).numpy(), _as_fed(model.preprocess(x), file)
    of_spread, of_size = TOLERANCE[precision(file)]
    for batch in batches if file.batch is None else (file.batch,):
        theirs = _by_onnxruntime(session, given, batch, file)
        if theirs.shape != ours.shape:
            raise UnusableInput(f"{file.path}: gives {theirs.shape}, expected {ours.shape}")
        if not np.isfinite(theirs).all():
            raise UnusableInput(f"{file.path}: gives NaN or infinite values on some pictures")
        largest = np.abs(theirs[:first]).max(axis=0)
        allowed = of_spread * np.ptp(theirs[:first], axis=0) + of_size * largest
        apart = np.abs(ours - theirs).max(axis=0)
        for name, difference, limit in zip(model.spec.outputs, apart, allowed, strict=True):
            if not difference <= limit:  # also where ours is NaN
                raise UnusableInput(
                    f"{file.path}: output {name} comes out different by up to {difference:.3g} in "
                    f"onnxruntime, batch {batch} (allowed: {limit:.3g}), so what would be screened "
                    "is not this file"
                )
