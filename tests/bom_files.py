"""CycloneDX 1.6 as far as a bill of materials of this tool goes: keys, enumerations, references."""

import re
from collections.abc import Iterator
from typing import Any

TEXT, WORD, SHA256 = r"(?s).*", r"(?s).+", r"[0-9a-f]{64}"
TYPES = "application|data|file|machine-learning-model"  # of the specification's those used here
APPROACHES = "supervised|unsupervised|reinforcement-learning|semi-supervised|self-supervised"
# Name of an object: its keys, "!" behind those that must be there, and what each may hold: a
# pattern of a text, "@" and the name of an object, a list of either. No other keys are allowed.
SHAPES: dict[str, dict[str, Any]] = {
    "bom": {
        "$schema": r"http://cyclonedx\.org/schema/bom-1\.6\.schema\.json",
        "bomFormat!": "CycloneDX",
        "specVersion!": r"1\.6",
        "serialNumber": r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        "version": int,
        "metadata": "@metadata",
        "components": ["@component"],
    },
    "metadata": {
        "timestamp": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00",
        "tools": "@tools",
        "component": "@component",
    },
    "tools": {"components": ["@component"]},
    "component": {
        "type!": TYPES,
        "name!": TEXT,
        "bom-ref": WORD,
        "version": TEXT,
        "description": TEXT,
        "scope": "required|optional|excluded",
        "hashes": ["@hash"],
        "pedigree": "@pedigree",
        "modelCard": "@modelCard",
        "properties": ["@property"],
    },
    "hash": {"alg!": "SHA-256", "content!": SHA256},
    "pedigree": {"ancestors": ["@component"], "notes": TEXT},
    "modelCard": {
        "modelParameters": "@modelParameters",
        "quantitativeAnalysis": "@quantitativeAnalysis",
        "considerations": "@considerations",
    },
    "modelParameters": {
        "approach": "@approach",
        "task": TEXT,
        "architectureFamily": TEXT,
        "modelArchitecture": TEXT,
        "datasets": ["@dataset"],
        "inputs": ["@format"],
        "outputs": ["@format"],
    },
    "approach": {"type": APPROACHES},
    "dataset": {"ref": WORD},
    "format": {"format": TEXT},
    "quantitativeAnalysis": {"performanceMetrics": ["@metric"]},
    "metric": {"type": TEXT, "value": TEXT, "slice": TEXT, "confidenceInterval": "@interval"},
    "interval": {"lowerBound": TEXT, "upperBound": TEXT},
    "considerations": {"useCases": [TEXT], "technicalLimitations": [TEXT]},
    "property": {"name!": TEXT, "value": TEXT},
}


def complaints(bom: dict[str, Any]) -> list[str]:
    """What CycloneDX 1.6 does not allow; empty where all is well."""
    found = list(misshapen(bom, "@bom", "bom"))
    refs = [value for key, value in pairs(bom) if key == "bom-ref"]
    found += [f"two parts are called {ref}" for ref in {r for r in refs if refs.count(r) > 1}]
    named = [value for key, value in pairs(bom) if key == "ref"]
    return found + [f"nothing is called {ref}" for ref in named if ref not in refs]


def misshapen(value: Any, rule: Any, where: str) -> Iterator[str]:
    """What does not fit a rule of SHAPES."""
    if isinstance(rule, list):
        if not isinstance(value, list):
            yield f"{where} is no list"
            return
        for k, one in enumerate(value):
            yield from misshapen(one, rule[0], f"{where}[{k}]")
    elif rule is int:
        if type(value) is not int or value < 1:
            yield f"{where} is {value!r}"
    elif not rule.startswith("@"):
        if not isinstance(value, str) or not re.fullmatch(rule, value):
            yield f"{where} is {value!r}"
    elif not isinstance(value, dict):
        yield f"{where} is no object"
    else:
        yield from wrong_keys(value, SHAPES[rule[1:]], where)


def wrong_keys(value: dict[str, Any], shape: dict[str, Any], where: str) -> Iterator[str]:
    """What does not fit in the keys of an object."""
    rules = {key.rstrip("!"): rule for key, rule in shape.items()}
    must = {key.rstrip("!") for key in shape if key.endswith("!")}
    yield from (f"{where} lacks {key}" for key in sorted(must - set(value)))
    for key, one in value.items():
        if key in rules:
            yield from misshapen(one, rules[key], f"{where}.{key}")
        else:
            yield f"{where} has {key}"


def pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """All keys with their values, however deep."""
    for key, one in value.items() if isinstance(value, dict) else ():
        yield key, one
        yield from pairs(one)
    for one in value if isinstance(value, list) else ():
        yield from pairs(one)
