"""A model as files: safetensors with its sidecar JSON."""

from pathlib import Path

from safetensors.torch import save_file

from guard.files import whole_file, write_json
from guard.model import Model


def save_model(model: Model, path: Path) -> list[Path]:
    """Write PATH (.safetensors) and the JSON beside it, each whole; gives both paths."""
    state = model.network.state_dict()
    weights = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    sidecar = path.with_suffix(".json")
    write_json(sidecar, model.spec.to_json())
    with whole_file(path) as temporary:
        save_file(weights, temporary)
    return [path, sidecar]
