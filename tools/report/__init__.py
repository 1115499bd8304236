"""The report: report.json for programs, report.html for people, figures/*.png for both.

Nothing heavy is imported here, so that the command line starts fast.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guard.benign import BenignSet
    from guard.finding import Finding
    from guard.model import Model


@dataclass
class Evidence:
    """Everything that one report needs."""

    finding: "Finding"
    model: "Model"
    benign: "BenignSet"  # the measured images: rows of finding.benign_outputs match these
    benign_error: dict[str, Any]  # value, unit, ci95 [lo, hi], mean_answer
    model_facts: dict[str, Any]  # path, sha256, bytes, format, arch, parameters, split
    data_facts: dict[str, Any]  # path, n, manifest_sha256, roles, missing, columns
    config: dict[str, Any]
    environment: dict[str, Any]
    timings: dict[str, Any]  # seconds
    warnings: list[str]
    mitigation: dict[str, Any] | None = None
    parity: list[dict[str, Any]] | None = None
    shipped: list[dict[str, Any]] | None = None  # a fresh screening of each exported file
    not_done: str | None = None  # why a step after the verdict could not be taken to its end
    latency: list[dict[str, Any]] | None = None  # indications for this machine
    started: str | None = None  # ISO 8601, UTC
    ended: str | None = None  # None: the time of writing


def report_values(evidence: Evidence) -> dict[str, Any]:
    """The content of report.json: plain JSON values, NaN and infinity as None."""
    from tools.report.values import gather_values

    return gather_values(evidence)


def write_report(evidence: Evidence, out: Path) -> list[Path]:
    """Write figures/*.png, report.html and, last, report.json: where it is, all is.

    Gives the paths of the figures.
    """
    from guard.files import write_json, write_text
    from tools.report.files import write_figures
    from tools.report.material import gather_material
    from tools.report.page import page
    from tools.report.sections import draw_sections

    values = report_values(evidence)
    sections = draw_sections(evidence, gather_material(evidence), values)
    (out / "report.json").unlink(missing_ok=True)  # an older one would vouch for half a report
    figures = write_figures(out / "figures", [p for one in sections for p in one.pictures])
    write_text(out / "report.html", page(evidence, values, sections))
    write_json(out / "report.json", values)
    return figures
