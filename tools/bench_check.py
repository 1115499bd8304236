"""How long the main job takes on the built-in sample: `python -m tools.bench_check [--out=FILE]`.

Runs `drmguard check` on both models and notes the seconds of each step that the report states.
"""

import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fire

from guard.device import environment, pick_device
from guard.files import write_json
from tools import cli

MODELS = ("sample:backdoored", "sample:benign")
KEPT = ("verdict", "score", "threshold", "timings")
RESULT = Path(__file__).parent / "results" / "bench_check.json"


def measure(model: str) -> dict[str, Any]:
    """One run's exit code and what its report says."""
    with tempfile.TemporaryDirectory() as folder:
        code = cli.run(["check", model, f"--out={folder}/out", "--quiet"])
        report = json.loads((Path(folder) / "out" / "report.json").read_text())
    accepted = report.get("mitigation", {}).get("accepted")
    kept = {key: report[key] for key in KEPT}
    return {"model": model, "exit_code": code, **kept, "mitigation_accepted": accepted}


def bench(out: str = str(RESULT)) -> None:
    """Measure both, print a line each, write the result."""
    load, rows = os.getloadavg(), []
    for model in MODELS:
        rows.append(measure(model))
        steps = ", ".join(f"{name} {value:.0f}" for name, value in rows[-1]["timings"].items())
        print(f"{model}: exit code {rows[-1]['exit_code']}, {steps}", flush=True)
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "load_before": load,
        "load_after": os.getloadavg(),
        "environment": environment(pick_device("auto")),
    }
    write_json(Path(out), {**facts, "rows": rows})


if __name__ == "__main__":
    fire.Fire(bench)
