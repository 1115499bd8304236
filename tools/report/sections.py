"""The sections of the report: their titles, their words and their figures, in order."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tools.report import Evidence, tables, words
from tools.report.faces import amplification, example_figures
from tools.report.landscape import landscape_figures
from tools.report.material import Material
from tools.report.outputs import cloud_figures, target_figures
from tools.report.plotting import Picture
from tools.report.removal import removal_figures
from tools.report.search import path_figures, term_figures
from tools.report.trigger import trigger_figures


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph in plain text, figures in a grid of `layout`, and a table."""

    title: str
    text: str
    pictures: list[Picture]
    layout: str = "panels"  # or "faces", "squares"
    table: str = ""  # HTML


def draw_sections(evidence: Evidence, material: Material, values: dict[str, Any]) -> list[Section]:
    """`values` is the content of report.json."""
    examples = Section(
        "Drivers with and without the recovered trigger",
        words.examples(evidence, amplification(material.after - material.before)),
        example_figures(material),
        "faces",
    )
    return [
        examples,
        Section(
            "The trigger", words.change(evidence.finding), trigger_figures(material), "squares"
        ),
        Section(
            "Where the answers go",
            words.closeness(evidence, values["forced"]),
            target_figures(material),
        ),
        Section(
            "What it costs to force an answer",
            words.LANDSCAPE,
            landscape_figures(material, values["landscape"]),
        ),
        Section(
            "The course of the search",
            words.course(evidence.finding),
            [*term_figures(material), *path_figures(material)],
        ),
        _features(evidence, material),
        *_removal(evidence, material, values),
    ]


def _features(evidence: Evidence, material: Material) -> Section:
    finding = evidence.finding
    title = "Features inside the model"
    if finding.benign_angles is None or finding.triggered_angles is None:
        reason = evidence.model.split.reason
        return Section(title, words.no_split(reason), [])
    names, rows = evidence.model.spec.outputs, finding.benign_angles.shape[1]
    if len(names) != rows:  # the outputs are computed from those of the last dense layer
        names = tuple(f"row {row} of the last dense layer" for row in range(1, rows + 1))
    pictures = cloud_figures(
        "angles",
        [f"angle to the weights of {name} (\u00b0)" for name in names],
        np.asarray(finding.benign_angles.detach().double().cpu()),
        np.asarray(finding.triggered_angles.detach().double().cpu()),
    )
    return Section(title, words.features(finding), pictures)


def _removal(evidence: Evidence, material: Material, values: dict[str, Any]) -> list[Section]:
    """Nothing where no mitigation was tried."""
    if evidence.mitigation is None:
        return []
    done = values["mitigation"]
    return [
        Section(
            "Removing the backdoor",
            f"{words.mitigation(evidence.mitigation)} {words.gate(done['settings'])}",
            removal_figures(material, done),
            table=tables.mitigation_table(evidence, done),
        )
    ]
