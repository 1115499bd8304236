"""Which graphs round, as int8 does, where their layers with weights take their values."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from export.graph_read import Step

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
SHARE = 0.75  # of the layers, at least


def makers(steps: Sequence[Step]) -> dict[str, Step]:
    """The step that makes each value, by its name."""
    return {name: step for step in steps for name in step.outputs}


def mostly(steps: Sequence[Step], told: Callable[[Step], bool]) -> bool:
    """Whether enough of the layers with weights are `told`.

    The last layers, from which no other follows, don't count where there are others: quantisers
    leave them in floats.
    """
    ahead: set[str] = set()  # values that some layer still needs
    inner: list[Step] = []
    last: list[Step] = []
    for step in reversed(steps):
        needed, layer = not ahead.isdisjoint(step.outputs), step.op in LAYERS
        if layer:
            (inner if needed else last).append(step)
        if layer or needed:
            ahead.update(step.inputs)
    counted = inner or last
    return bool(counted) and sum(map(told, counted)) >= SHARE * len(counted)


def behind_rounding(
    layer: Step, made_by: Mapping[str, Step], constants: Mapping[str, Tensor]
) -> bool:
    """Whether a layer takes values of 8 bits, by steps of one value that depends on the image.

    From QuantizeLinear, or from what the exporter writes for one: Round, Add, Clip. A Round that
    no such Clip bounds may be to steps as fine as you like.
    """
    source, bounded = made_by.get(layer.inputs[0]), False
    while source is not None and source.op not in (*LAYERS, "QuantizeLinear", "Round"):
        bounds = [constants[name] for name in source.inputs[1:] if name in constants]
        if source.op == "Clip":
            bounded = len(bounds) == 2 and float(bounds[1] - bounds[0]) <= 255
        bounded = bounded and source.op in ("Add", "Clip", "Sub")
        before = [made_by[name] for name in source.inputs if name in made_by]
        source = before[0] if len(before) == 1 else None
    return source is not None and (
        source.op == "QuantizeLinear" or (source.op == "Round" and bounded)
    )
