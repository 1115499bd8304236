"""report.html: one file that opens offline, without scripts."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import PurePath
from typing import Any

from tools.report import Evidence, tables, words
from tools.report.plotting import Picture
from tools.report.sections import Section
from tools.report.style import CSS, VERDICT_COLOURS
from tools.report.text import amount, number, percent

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # nothing from outside


def page(evidence: Evidence, values: Mapping[str, Any], sections: Sequence[Section]) -> str:
    """The whole document; `values` is the content of report.json."""
    numbered = [_section(k + 1, section) for k, section in enumerate(sections)]
    extra = _later_steps(evidence, values, len(numbered) + 1)
    count = len(numbered) + len(extra)
    body = [
        _verdict(evidence, values),
        _warnings(values["warnings"]),
        _limits(values["limits"]),
        *numbered,
        *extra,
        _block(count + 1, "Figures, files and settings", tables.all_tables(evidence, values)),
        _block(count + 2, "Threat model assumed", _bullets(values["threat_model"])),
        _footer(values),
    ]
    # A figure and its % sign stay on one line.
    content = "".join(body).replace(" %", "\u00a0%")
    title = escape(f"DRMGuard: {words.TAGS[values['verdict']]}, {_model_name(values)}")
    colour = VERDICT_COLOURS[values["verdict"]]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{CSS}</style></head>"
        f'<body style="--verdict: {colour}">{_header(values)}<main>{content}</main></body>'
        "</html>\n"
    )


def _model_name(values: Mapping[str, Any]) -> str:
    return PurePath(str(values["model"].get("path", "model"))).name


def _header(values: Mapping[str, Any]) -> str:
    ended = str(values["ended"]).replace("T", " ").replace("+00:00", " UTC")
    return (
        f"<header><span><b>DRMGuard</b> backdoor screening report</span>"
        f"<span>{escape(_model_name(values))}</span><span>{escape(ended)}</span></header>"
    )


def _verdict(evidence: Evidence, values: Mapping[str, Any]) -> str:
    finding = evidence.finding
    said = [words.score(finding)]
    if finding.verdict == "backdoored":
        said.append(words.closeness(evidence, values["forced"]))
        said.append(words.further(evidence))
    if evidence.mitigation is not None:
        said.append(words.mitigation(evidence.mitigation))
    if evidence.not_done is not None:
        said.append(words.not_done(evidence.not_done))
    said.append(words.to_ship(values))
    paragraphs = "".join(f"<p>{escape(sentence)}</p>" for sentence in said if sentence)
    return (
        f'<div class="verdict"><div class="tag">{words.TAGS[finding.verdict]}</div>'
        f"<h1>{escape(words.headline(evidence, values['forced']))}</h1>"
        f"{paragraphs}{_keys(evidence, values)}</div>"
    )


def _keys(evidence: Evidence, values: Mapping[str, Any]) -> str:
    finding, error = evidence.finding, values["benign_error"]
    unit = error.get("unit") or evidence.model.spec.error_unit
    # The error is over all images, not only those that measure or are held back.
    images = f"supplied model, all {evidence.data_facts.get('n', 'the')} pictures"
    rows = [
        ("Score", number(finding.score), f"{finding.method} method"),
        ("Threshold", number(finding.threshold), finding.threshold_source),
        ("Margin", words.margin(finding), "score against threshold"),
        ("Size of the change", percent(finding.perturbation), "of the brightest picture"),
        ("Variance left", percent(finding.output_variance_ratio), "of the answers, with trigger"),
        ("Benign error", amount(error.get("value"), unit), images),
    ]
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in rows
    )
    return f'<dl class="keys">{cells}</dl>'


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    lines = "".join(f"<p>{escape(str(w))}</p>" for w in warnings)
    return f'<div class="warnings"><b>Warnings</b>{lines}</div>'


def _limits(limits: Sequence[str]) -> str:
    return f'<div class="limits"><h2>What this result does not prove</h2>{_list(limits)}</div>'


def _list(items: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _bullets(items: Sequence[str]) -> str:
    return _list(items).replace("<ul>", '<ul class="plain">', 1)


def _block(count: int, title: str, content: str) -> str:
    return f"<section><h2><span>{count}</span>{escape(title)}</h2>{content}</section>"


def _section(count: int, section: Section) -> str:
    figures = "".join(_figure(picture) for picture in section.pictures)
    text = f"<p>{escape(section.text)}</p>"
    grid = f'<div class="grid {section.layout}">{figures}</div>' if figures else ""
    few = section.layout == "panels" and 0 < len(section.pictures) <= 2
    content = f'<div class="beside">{text}{grid}</div>' if few else text + grid
    return _block(count, section.title, content + section.table)


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    image = f'<img alt="{escape(picture.alt)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}{caption}</figure>"


def _later_steps(evidence: Evidence, values: Mapping[str, Any], count: int) -> list[str]:
    """What came of the steps after the verdict and its mitigation."""
    found = []
    if evidence.not_done is not None:
        said = f"<p>{escape(words.not_done(evidence.not_done))}</p>"
        found.append(("A step that could not be done", said))
    if evidence.parity is not None:
        said = f"<p>{escape(words.parity(values['parity']))}</p>"
        compared = tables.parity_table(values["parity"])
        times = tables.latency_table(values["latency"]) if values.get("latency") else ""
        again = tables.shipped_table(values["shipped"]) if values.get("shipped") else ""
        hashes = tables.hash_table(values["shipped"]) if values.get("shipped") else ""
        found.append(("Exported files", said + again + hashes + compared + times))
    return [_block(count + k, title, content) for k, (title, content) in enumerate(found)]


def _footer(values: Mapping[str, Any]) -> str:
    tool = values["tool"]
    commit = f", commit {tool['commit']}" if tool["commit"] else ""
    started = f"started {values['started']}, " if values["started"] else ""
    line = (
        f"{tool['name']} {tool['version']}{commit}. Run {started}ended {values['ended']}. "
        f"Report schema {values['schema_version']}; report.json beside this file holds all figures."
    )
    return f"<footer>{escape(line)}</footer>"
