"""A model as files: safetensors with its sidecar JSON."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from guard.files import whole_file, write_json
from guard.model import Model


def save_model(model: Model, path: Path, *, half: bool = False) -> list[Path]:
    """Write PATH (.safetensors) and the JSON beside it, each whole; gives both paths.

    `half` rounds the weights to fp16, in `model` too.
    """
    state = model.network.state_dict()
    if half:
        model.half().float()
        state = {n: v.half() if v.is_floating_point() else v for n, v in state.items()}
    sidecar = path.with_suffix(".json")
    write_json(sidecar, model.spec.to_json())
    save_weights(state, path)
    return [path, sidecar]


def save_weights(
    state: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a state dict as safetensors, whole or not at all."""
    # Copies, for a module under two names has its weights twice and the format forbids sharing.
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    with whole_file(path) as temporary:
        save_file(weights, temporary, metadata)
