"""The tables of the report, as HTML. All text that comes from outside is escaped here."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from tools.report import Evidence
from tools.report.text import amount, answer, number, percent


def pairs(title: str, rows: Mapping[str, Any]) -> str:
    """A table of two columns, with its heading; nothing where there is nothing to say."""
    if not rows:
        return ""
    body = "".join(
        f"<tr><th scope='row'>{escape(str(k))}</th><td>{escape(shown(v))}</td></tr>"
        for k, v in rows.items()
    )
    return f"<div class='block'><h3>{escape(title)}</h3><table><tbody>{body}</tbody></table></div>"


def grid(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with a heading for each column; it scrolls sideways where it is too wide."""
    head = "".join(f"<th scope='col'>{escape(c)}</th>" for c in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f"<h3>{escape(title)}</h3><div class='scroll'><table class='list'>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def shown(value: Any) -> str:
    """A value of a table as text; what is nested goes on one line."""
    if value is None:
        return "\u2013"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}".replace("-", "\u2212")
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {shown(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(shown(v) for v in value) or "none"
    return str(value)


def all_tables(evidence: Evidence, values: Mapping[str, Any]) -> str:
    """Every table, the wide one first; `values` is the content of report.json."""
    blocks = [
        pairs("Errors", _errors(evidence, values)),
        pairs("Result", _result(values)),
        pairs("Model", _model(values["model"])),
        pairs("Pictures", _data(values["data"])),
        pairs("Configuration", {**values["config"], **values["settings"]}),
        pairs("Environment", values["environment"]),
        pairs("Times", {k: _seconds(v) for k, v in values["timings"].items()}),
    ]
    return f"{_restarts(evidence, values)}<div class='tables'>{''.join(blocks)}</div>"


def _errors(evidence: Evidence, values: Mapping[str, Any]) -> dict[str, str]:
    error, forced = values["benign_error"], values["forced"]
    unit = error.get("unit") or evidence.model.spec.error_unit
    low, high = error.get("ci95") or (None, None)
    return {
        "error of the supplied model on all benign pictures": amount(error.get("value"), unit),
        "95 % confidence interval": f"{amount(low, unit)} to {amount(high, unit)}",
        "error of always answering the mean": amount(error.get("mean_answer"), unit),
        "triggered answers from the target, median": amount(forced["median_triggered"], unit),
        "triggered answers from the target, 95 %": amount(forced["p95_triggered"], unit),
        "benign answers from the target, median": amount(forced["median_benign"], unit),
    }


def _result(values: Mapping[str, Any]) -> dict[str, Any]:
    names = {
        "method": "method",
        "mechanism": "trigger model that fits best",
        "score": "score",
        "threshold": "threshold",
        "threshold_source": "source of the threshold",
        "perturbation": "perturbation",
        "output_variance_ratio": "variance of the answers left",
        "rav": "RAV",
        "rnv": "RNV",
    }
    return {label: values[key] for key, label in names.items()}


def _model(facts: Mapping[str, Any]) -> dict[str, Any]:
    spec = dict(facts["spec"])
    rows = {k: v for k, v in facts.items() if k not in ("spec", "split")}
    rows |= {k: spec[k] for k in ("task", "outputs", "units")}
    rows |= {f"input {k}": v for k, v in spec["input"].items()}
    split = facts.get("split") or {}
    layer = f"{split.get('layer')}, {split.get('features')} features"
    rows["split at"] = layer if split.get("layer") else f"none: {split.get('reason') or 'unknown'}"
    if isinstance(rows.get("parameters"), int):
        rows["parameters"] = f"{rows['parameters']:,}"
    return rows


def _data(facts: Mapping[str, Any]) -> dict[str, Any]:
    rows = {k: v for k, v in facts.items() if k != "roles"}
    return rows | {f"used for {role}": count for role, count in (facts.get("roles") or {}).items()}


def _seconds(value: Any) -> Any:
    return f"{number(value)} s" if isinstance(value, int | float) else value


def _restarts(evidence: Evidence, values: Mapping[str, Any]) -> str:
    columns = [
        "role",
        "target",
        "ended at",
        "cost",
        "expected",
        "distance left",
        "steps",
        "settled",
    ]
    if not values["restarts"]:
        return ""
    return grid("Searches", columns, [_search(evidence, r) for r in values["restarts"]])


def _search(evidence: Evidence, restart: Mapping[str, Any]) -> list[str]:
    spec = evidence.model.spec
    return [
        shown(restart.get("role")),
        answer(spec, restart.get("target")),
        answer(spec, restart.get("found")),
        number(restart.get("cost")),
        "\u2013" if restart.get("baseline") is None else number(restart["baseline"]),
        percent(restart.get("distance", restart.get("variance_ratio"))),
        shown(restart.get("steps")),
        shown(restart.get("converged")),
    ]


def mitigation_table(evidence: Evidence, values: Mapping[str, Any]) -> str:
    """What removing the backdoor did to the errors on images held back from fine-tuning."""
    unit, again = evidence.model.spec.error_unit, values.get("rescreen") or {}
    said = again.get("verdict")
    score = number(again.get("score"), 2)
    names = {"benign": "benign error", "trigger": "error under the recovered trigger"}
    rows: dict[str, Any] = {"accepted": values.get("accepted"), "reason": values.get("reason")}
    for key, name in names.items():
        ends = [amount(values.get(f"{key}_error_{end}"), unit) for end in ("before", "after")]
        rows[name] = " \u2192 ".join(ends)
    rows["pictures held back to judge"] = values.get("held_back")
    rows["persons on these alone"] = values.get("held_back_persons") or "not told apart"
    rows["rounds of fine-tuning and fresh screening"] = values.get("rounds")
    rows["fresh screening of the result"] = f"{said}, score {score}" if said else None
    return pairs("Errors on the pictures held back, before and after", rows)


PARITY_COLUMNS = {
    "file": "file",
    "provider": "provider",
    "images": "pictures",
    "n": "number",
    "batch": "batch",
    "max_abs": "largest difference",
    "max_task_error": "in the task's unit",
    "mean_task_error": "mean",
    "tolerance": "tolerance",
    "tolerance_of": "of the",
    "passed": "passed",
}


def parity_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row a file, provider, group of pictures and batch size; why the tolerance is what it is.

    Failed comparisons come first.
    """
    ordered = sorted(rows, key=lambda row: bool(row.get("passed")))
    cells = [[_compared(key, row.get(key)) for key in PARITY_COLUMNS] for row in ordered]
    reasons = dict.fromkeys(
        str(row["tolerance_reason"]) for row in rows if "tolerance_reason" in row
    )
    said = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
    return grid("Comparisons", list(PARITY_COLUMNS.values()), cells) + (
        f"<details><summary>Tolerances and their reasons</summary><ul>{said}</ul></details>"
        if said
        else ""
    )


def _compared(key: str, value: Any) -> str:
    if key == "provider":
        return str(value).removesuffix("ExecutionProvider")
    return number(value, 2) if isinstance(value, float) else shown(value)


def shipped_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What a fresh screening says of each file, opened as a supplier's file would be."""
    cells = [
        [str(row["file"]), str(row["verdict"]), number(row["score"], 2), str(row["reason"])]
        for row in rows
    ]
    return grid("Each file screened again", ["file", "verdict", "score", "reason"], cells)


def hash_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What tells each file from all others."""
    return pairs("SHA-256 of each file", {str(row["file"]): row["sha256"] for row in rows})


def latency_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Milliseconds a call, an indication for the machine that the check ran on."""
    columns = ["file", "provider", "batch", "median", "99th percentile", "runs", "threads"]
    cells = [
        [
            str(row["file"]),
            _compared("provider", row["provider"]),
            str(row["batch"]),
            f"{number(row['p50_ms'])} ms",
            f"{number(row['p99_ms'])} ms",
            str(row["runs"]),
            str(row["threads"]),
        ]
        for row in rows
    ]
    return grid("Time a call on this machine", columns, cells)
