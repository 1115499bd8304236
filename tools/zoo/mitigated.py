"""From a mitigation's lines to tables 5 and 6 of the paper, a row a model."""

import statistics
from collections.abc import Sequence
from typing import Any

ERRORS = ("RE", "AE", "DAE")
STATES = {  # plain fine-tuning: table 6
    "before": "before",
    "mitigated": "after",
    "plain fine-tuning": "labels",
    "at a higher rate": "labels_fast",
}
HEAD = ["name", "attack", *(f"{state}: {e}" for state in STATES for e in ERRORS)]
HEAD += ["benign model: AE", "benign model: DAE", "DAE / RE", "accepted"]


def mitigation(lines: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Rows under HEAD, degrees with the attacker's own trigger; the means of a setting last.

    Lines of `drmguard zoo screen`, and of models whose backdoor was not found, have no row.
    """
    mitigated = [line for line in lines if "after" in line]
    rows = []
    for change in dict.fromkeys(line.get("change", "") for line in mitigated):
        alike = [line for line in mitigated if line.get("change", "") == change]
        rows += [*(_row(line, change) for line in alike), _means(alike, change)]
    return rows


def _row(line: dict[str, Any], change: str) -> list[str]:
    accepted = "yes" if line["accepted"] else "no"
    return [_named(line["name"], change), line["label"], *_cells(_figures(line)), accepted]


def _means(lines: Sequence[dict[str, Any]], change: str) -> list[str]:
    columns = zip(*(_figures(line) for line in lines), strict=True)
    accepted = f"{sum(line['accepted'] for line in lines)} of {len(lines)}"
    means = _cells([_mean(list(column)) for column in columns])
    return [_named("mean", change), "", *means, accepted]


def _named(name: str, change: str) -> str:
    return f"{name}, {change}" if change else name


def _figures(line: dict[str, Any]) -> list[float | None]:
    ends = [line.get(key, {}).get(e) for key in STATES.values() for e in ERRORS]
    benign = [line.get("benign_model", {}).get(e) for e in ERRORS[1:]]
    return [*ends, *benign, line["after"]["DAE"] / line["after"]["RE"]]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def _cells(values: Sequence[float | None]) -> list[str]:
    return ["-" if value is None else f"{value:.2f}" for value in values]
