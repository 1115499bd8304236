"""`drmguard inspect`: what the tool understands of a model."""

import json
from pathlib import Path
from typing import Any

from guard.device import pick_device
from tools.inputs import facts_of_file, model_path, open_model
from tools.job import check_method


def inspect(model: str, trust_code: bool, device: str, method: str) -> int:
    """Print the model's facts as JSON. Raises UnusableInput.

    `device` and `method` are those of every command, and change nothing here.
    """
    pick_device(device)
    check_method(method)
    path = model_path(model)
    opened = open_model(path, trust_code)
    spec = opened.spec
    facts = {
        **facts_of_file(opened, path),
        "task": spec.task,
        "outputs": list(spec.outputs),
        "units": spec.units,
        "input": spec.to_json()["input"],
        **_facts_of_format(path),
    }
    print(json.dumps(facts, indent=2))
    return 0


def _facts_of_format(path: Path) -> dict[str, Any]:
    """An ONNX file's interface; nothing for other formats."""
    if path.suffix != ".onnx":
        return {}
    from export.onnx_in import onnx_facts  # onnx and onnxruntime load slowly

    return {"onnx": onnx_facts(path)}
