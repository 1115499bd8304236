"""Which graphs round, as int8 does, where their layers with weights take their values."""

from collections.abc import Callable, Mapping, Sequence

from export.graph_read import Step

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
ROUNDING = ("QuantizeLinear", "Round")
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


def behind_rounding(step: Step, made_by: Mapping[str, Step]) -> bool:
    """Whether a layer takes rounded values, by steps of one value that depends on the image."""
    source = made_by.get(step.inputs[0])
    while source is not None and source.op not in (*LAYERS, *ROUNDING):
        before = [made_by[name] for name in source.inputs if name in made_by]
        source = before[0] if len(before) == 1 else None
    return source is not None and source.op in ROUNDING
