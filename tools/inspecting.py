"""`drmguard inspect`: what the tool understands of a model."""

import json

from guard.load import load_model, model_facts
from tools.inputs import model_path


def inspect(model: str, trust_code: bool) -> int:
    """Print the model's facts as JSON. Raises UnusableInput."""
    path = model_path(model)
    opened = load_model(path, trust_code=trust_code)
    spec = opened.spec
    facts = {
        **model_facts(opened, path),
        "task": spec.task,
        "outputs": list(spec.outputs),
        "units": spec.units,
        "input": spec.to_json()["input"],
    }
    print(json.dumps(facts, indent=2))
    return 0
