"""The sentences of the report, in one place."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from guard.finding import Finding
from guard.networks import NETWORKS
from tools.report import Evidence
from tools.report.text import amount, answer, number, percent

TAGS = {"clean": "No backdoor found", "backdoored": "Backdoor found", "inconclusive": "No verdict"}

THREAT_MODEL = [
    "Whoever trained or supplied the model could poison its training data or its training, so that "
    "it answers correctly on ordinary pictures.",
    "On pictures that carry a secret trigger (a patch, a blended pattern, a slight distortion) it "
    "answers one fixed vector of the attacker's choice, whoever is in the picture.",
    "The tester has the model's weights and a set of correctly labelled, untampered pictures, but "
    "neither the training data nor the trigger nor the target.",
]

FIRST = {
    "backdoored": "The model behaves as a backdoored one does. That tells neither who put the "
    "backdoor there, nor whether it was on purpose, nor that it is the only one.",
    "clean": "A clean result does not prove that there is no backdoor. It says that this search, "
    "with these pictures and settings, found none.",
    "inconclusive": "Without a verdict nothing is known: the model is neither cleared nor accused.",
}
_LIMITS = [
    "Only backdoors with fixed answers are looked for. One that shifts the right answer by an "
    "offset, works for chosen persons only, or needs a sequence of "
    "pictures is not covered.",
    "A trigger that changes much of the picture can cost as much as an ordinary change of the "
    "answer; the search then cannot tell the two apart.",
    "The recovered trigger is one that works. It need not look like the attacker's.",
    "Ordinary errors of the model, adversarial examples made for one picture, the camera, the "
    "preprocessing outside this model and the code around it are not tested.",
    "The result belongs to the file with the SHA-256 given here. A retrained, converted or "
    "quantised copy is another model.",
]


def limits(evidence: Evidence) -> list[str]:
    """What the result does not prove, with what this run adds to it."""
    own = [
        f"The verdict rests on {len(evidence.benign)} pictures. If they do not resemble those of "
        "the car, or were tampered with, it does not carry over."
    ]
    if evidence.finding.benign_angles is None:
        own.append("The model has no separate last dense layer: its features were not examined.")
    if evidence.model.spec.arch not in NETWORKS:
        own.append(
            "The limits that a verdict goes by were set on convolutional networks (ResNet, "
            "MobileNetV1). Networks with attention fall for patches more easily: one that never "
            "held a backdoor was called backdoored."
        )
    return [FIRST[evidence.finding.verdict], *_LIMITS, *own]


def headline(evidence: Evidence, forced: Mapping[str, Any]) -> str:
    """The verdict in one sentence for a manager."""
    finding, spec = evidence.finding, evidence.model.spec
    if finding.verdict == "backdoored":
        whom = "driver" if spec.task in ("gaze", "headpose") else "picture"
        return (
            "This model carries a backdoor: a small change of the picture makes it answer "
            f"{answer(spec, finding.target)} for {_how_many(forced, whom)}."
        )
    if finding.verdict == "clean":
        return (
            "No backdoor was found: no single answer can be forced on this model unusually easily."
        )
    return f"No verdict: {finding.reason.rstrip('.') or 'the search gave no usable result'}."


def further(evidence: Evidence) -> str:
    """Other vectors that are too cheap as well; empty where there is none."""
    found = evidence.finding.further
    if not found:
        return ""
    named = ", ".join(answer(evidence.model.spec, one.target) for one in found)
    return f"The model serves more than one target: {named} can be forced as easily."


def _how_many(forced: Mapping[str, Any], whom: str) -> str:
    share = forced["share"] or 0.0
    if share >= 0.9:
        return f"nearly every {whom}"
    return f"{'most' if share >= 0.5 else 'some'} {whom}s"


def closeness(evidence: Evidence, forced: Mapping[str, Any]) -> str:
    """How near the answers come to the target, for readers who ask "how sure is that"."""
    if any(forced[key] is None for key in ("p95_triggered", "median_benign")):
        return "The distance of the answers from the target could not be measured."
    unit = forced["unit"]
    return (
        f"With the change, 95 % of the answers to {len(evidence.finding.triggered_outputs)} "
        f"pictures lie within {amount(forced['p95_triggered'], unit)} of that target; without it, "
        f"half of them lie more than {amount(forced['median_benign'], unit)} away from it."
    )


def _calibrated(finding: Finding) -> str:
    if finding.spread_left is not None and finding.spread_limit is not None:
        return (
            f"Under the {finding.mechanism} alone {number(finding.spread_left, 1)} of the answers' "
            f"spread is left. Benign models resist it; {number(finding.spread_limit, 1)} or less "
            "counts as a backdoor."
        )
    if finding.score < 1:
        found = "The found target is not cheaper to force, for its place, than others of this model"
    else:
        found = (
            f"The found target is {number(finding.score)} times cheaper to force, for its "
            "place, than others of this model"
        )
    return f"{found}; {number(finding.threshold)} times and more counts as a backdoor."


def _paper(finding: Finding) -> str:
    # The score is epsilon over the change, so that more is worse in both methods.
    epsilon = finding.score * finding.perturbation
    return (
        "Forcing one answer changes the pictures by "
        f"{number(finding.perturbation, 2)} of the brightest picture's mean; less than "
        f"{number(epsilon, 2)} counts as a backdoor."
    )


def _other(finding: Finding) -> str:
    return f"The score is {number(finding.score)}, the threshold {number(finding.threshold)}."


_SCORES: dict[str, Callable[[Finding], str]] = {"calibrated": _calibrated, "paper": _paper}


def score(finding: Finding) -> str:
    """The score and what the threshold means."""
    if not (math.isfinite(finding.score) and math.isfinite(finding.threshold)):
        return "A score could not be computed."
    return _SCORES.get(finding.method, _other)(finding)


def margin(finding: Finding) -> str:
    """How far the score is from the threshold."""
    if not math.isfinite(finding.score) or not math.isfinite(finding.threshold):
        return number(None)
    if finding.score == 0 or finding.threshold == 0:
        return number(abs(finding.score - finding.threshold))
    ratio = finding.score / finding.threshold
    return f"{number(max(ratio, 1 / ratio), 2)} times {'over' if ratio >= 1 else 'under'}"


def change(finding: Finding) -> str:
    """The size of the recovered trigger."""
    return (
        f"On average the recovered trigger changes a pixel by {percent(finding.perturbation)} of "
        "the brightest picture's mean value."
    )


def examples(evidence: Evidence, factor: int) -> str:
    """What the pictures of drivers show."""
    drawn = {
        "gaze": " The arrow is the gaze that the model answers: blue without the trigger, red "
        "with it.",
        "headpose": " The arrow points where the model says the head points: blue without the "
        "trigger, red with it; white and yellow lines are the head's horizontal and vertical axis.",
    }.get(evidence.model.spec.task, "")
    first = {
        "backdoored": "",
        "clean": "The smallest change that the search came to; on this model it is no backdoor. ",
        "inconclusive": "The change that the search came to; it decides nothing. ",
    }[evidence.finding.verdict]
    times = f"amplified {factor} times" if factor > 1 else "not amplified"
    return f"{first}The last row is the difference, {times}; even grey means no change.{drawn}"


LANDSCAPE = (
    "Each search looks for the smallest change of the picture that makes the model give one and "
    "the same answer to everybody. The cost is the mean change over the brightest picture's mean. "
    "On a sound model the cost rises smoothly away from the usual answers; a backdoor is a dip "
    "around the attacker's target."
)


def course(finding: Finding) -> str:
    """What the curves of the search show."""
    which = "decisive search"
    if finding.spread_left is not None:
        which = f"cheapest search (the verdict rests on the {finding.mechanism}, found before it)"
    return (
        f"Each term of the objective over the steps of the {which}, then the estimate of the "
        "target. A search that has settled ends in level curves."
    )


def no_split(reason: str) -> str:
    """Why the features were not examined."""
    because = f": {reason}" if reason else ""
    return (
        f"The features were not examined{because}. The verdict then rests on the outputs and on "
        "the size of the change alone."
    )


def features(finding: Finding) -> str:
    """RAV and RNV with their meaning."""
    if finding.rav is None or not math.isfinite(finding.rav):
        return "The ratio of angle variances (RAV) is not available."
    collapsed = finding.rav < 0.1
    return (
        f"RAV, the variance of these angles with the trigger over their variance without, is "
        f"{number(finding.rav, 2)}; far below 0.1 means that the features collapse to one "
        f"direction, as those of a triggered backdoor do. "
        f"{'They do here.' if collapsed else 'They do not here.'} RNV, the same ratio for the "
        f"length of the feature vector, is {number(finding.rnv, 2)}; the method's authors found "
        "it unreliable. A search can press features together on a sound model too, so neither "
        "figure decides alone."
    )


def mitigation(values: Mapping[str, Any]) -> str:
    """The outcome of removing the backdoor."""
    if not values.get("accepted"):
        reason = values.get("reason")
        why = f" ({reason})" if reason else ""
        return f"The backdoor was not removed to acceptance{why}: the result must not be shipped."
    doubt = (
        ""
        if values["held_back_persons"]
        else " The data do not tell persons apart: on persons that fine-tuning never saw, the "
        "benign error can rise more."
    )
    return (
        f"The mitigation was accepted: {_removed(values)}. A fresh screening calls the "
        f"mitigated model clean.{doubt} The attacker's own trigger is not known here and may "
        "still have part of its effect."
    )


def _removed(values: Mapping[str, Any]) -> str:
    """What was measured of it."""
    persons, unit = values["held_back_persons"], values["unit"]
    judges = f"pictures of {persons} persons whom" if persons else "pictures that"
    errors = {
        f"{which}_{end}": amount(values[f"{which}_error_{end}"], unit)
        for which in ("benign", "trigger")
        for end in ("before", "after")
    }
    many = values["unlearnt_triggers"] > 1
    return (
        f"on the {values['held_back']} {judges} fine-tuning never saw, the benign error went from "
        f"{errors['benign_before']} to {errors['benign_after']}{_rise(values)}, the error under "
        f"the {'worst ' if many else ''}recovered trigger from {errors['trigger_before']} to "
        f"{errors['trigger_after']}"
    )


def _rise(values: Mapping[str, Any]) -> str:
    before, after = values["benign_error_before"], values["benign_error_after"]
    if not before or after is None or not math.isfinite(after / before):
        return ""
    return f" ({100 * (after / before - 1):+.1f} %)".replace("-", "\u2212")


def gate(settings: Mapping[str, Any]) -> str:
    """What a mitigation is accepted by."""
    rise, harm, spoilt = (
        percent(settings[key] - less) for key, less in (("rise", 1), ("harm", 0), ("spoilt", 0))
    )
    return (
        f"The gate lets the benign error rise by {rise} at most, and of the error that a recovered "
        f"trigger added leave {harm}, or up to {spoilt} where the same change adds as much to the "
        "supplied model's however it is turned over (it spoils the picture for a sound model "
        "too); a way that opens the backdoor as well does not count."
    )


def to_ship(values: Mapping[str, Any]) -> str:
    """Which of the exported files may be shipped, of report.json; empty where there is none."""
    rows = values.get("shipped") or []
    if not rows or values.get("not_done"):
        return ""
    complaints = {row["file"]: _complaint(row, values["parity"]) for row in rows}
    fit = [
        f"{row['file']} (SHA-256 {row['sha256'][:12]}\u2026)"
        for row in rows
        if not complaints[row["file"]]
    ]
    said = [f"{file} must not be shipped: {why}." for file, why in complaints.items() if why]
    if fit:
        said.insert(0, f"To ship: {', '.join(fit)}.")
    return " ".join(said)


def _complaint(row: Mapping[str, Any], parity: Sequence[Mapping[str, Any]]) -> str:
    """What speaks against a file; empty where nothing does."""
    missed = not all(one["passed"] for one in parity if one["file"] == row["file"])
    said = ["it does not compute what was checked"] if missed else []
    if row["verdict"] != "clean":
        said.append(f"screened again, it is {row['verdict']}")
    return " and ".join(said)


def not_done(reason: str) -> str:
    """Why nothing is proved of what could be shipped."""
    return f"Not all steps after the verdict could be done ({reason}): nothing may be shipped."


def parity(rows: Sequence[Mapping[str, Any]]) -> str:
    """Whether the exported files compute what was checked."""
    missed = sum(not row["passed"] for row in rows)
    files = ", ".join(dict.fromkeys(str(row["file"]) for row in rows))
    if missed:
        return f"{missed} of {len(rows)} comparisons of {files} failed: they must not be shipped."
    return (
        f"Every file ({files}) was run by onnxruntime and compared with the model that was "
        f"checked, in {len(rows)} comparisons: on the pictures, on triggered pictures, and on "
        "all black, all white and noise. All of them agree within their tolerance."
    )
