"""The command line: it reads words and hands them over; tools/ does the work.

Fire would run a command first and complain of unknown flags afterwards. So Fire only calls
functions that note what to do; it is done once Fire has accepted every word.
"""

import contextlib
import io
import os
import signal
import sys
import traceback
from typing import Any

from tools.calling import Call, call
from tools.words import TEXTS, CommandLineError, typed

_noted: list[Call] = []
IDLE = ("out", "seed", "resume", "overwrite", "quiet")  # common flags of what writes no files


def check(
    model: str | None = None,
    data: str | None = None,
    *,
    out: str = "drmguard-report",
    device: str = "auto",
    seed: int = 0,
    method: str = "calibrated",
    images: int = 2000,
    precision: str = "fp32",
    opset: int = 18,
    embed_preprocessing: bool = False,
    tf32: bool = False,
    trust_code: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """The main job: screen a model, remove a backdoor, export to ONNX, prove parity, report.

    Exit codes: 0 clean, 1 backdoored (also where it was then removed), 2 unusable input,
    3 inconclusive, 4 mitigation not accepted or parity failed, 5 error of the tool.

    Args:
        model: a model file (.safetensors, .pt, .onnx), or sample:backdoored, sample:benign.
        data: a folder with labels.csv, or an .npz. May be left out for a sample model.
        out: the folder for the report, the models and the proof.
        device: auto, cpu or cuda.
        seed: of the choice of images and of the search.
        method: calibrated (the model is its own control) or paper (arXiv 2411.04811 as is).
        images: how many images of DATA to use at most.
        precision: of the ONNX files: fp32, fp16, int8, or several with commas.
        opset: the ONNX operator set, 18 to 26.
        embed_preprocessing: ONNX takes uint8 RGB images [N x H x W x 3].
        tf32: allow TF32 on a GPU in the figures that decide.
        trust_code: open model formats that run code (pickled modules, TorchScript, .pt2).
        resume: keep the search of an interrupted run in the same folder.
        overwrite: replace what an earlier run left in the folder.
        quiet: no progress bar.
    """
    _note("tools.checking", "check", **locals())


def screen(
    model: str | None = None,
    data: str | None = None,
    *,
    out: str = "drmguard-report",
    device: str = "auto",
    seed: int = 0,
    method: str = "calibrated",
    images: int = 2000,
    tf32: bool = False,
    trust_code: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Verdict and evidence only.

    Exit codes: 0 clean, 1 backdoored, 2 unusable input, 3 inconclusive, 5 error of the tool.

    Args:
        model: a model file (.safetensors, .pt, .onnx), or sample:backdoored, sample:benign.
        data: a folder with labels.csv, or an .npz. May be left out for a sample model.
        out: the folder for the report.
        device: auto, cpu or cuda.
        seed: of the choice of images and of the search.
        method: calibrated or paper.
        images: how many images of DATA to use at most.
        tf32: allow TF32 on a GPU in the figures that decide.
        trust_code: open model formats that run code.
        resume: go on with an interrupted run in the same folder.
        overwrite: replace what an earlier run left in the folder.
        quiet: no progress bar.
    """
    _note("tools.screening", "screen", **locals())


def mitigate(
    model: str,
    data: str | None = None,
    *,
    trigger: str,
    out: str,
    device: str = "auto",
    seed: int = 0,
    method: str = "calibrated",
    images: int = 2000,
    tf32: bool = False,
    trust_code: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Fine-tune a model until its recovered triggers do nothing, then screen it afresh.

    Writes mitigated.safetensors with its .json, or not-accepted.safetensors (an ONNX model as
    .onnx too), and mitigation.json. Exit codes: 0 accepted, 2 unusable input, 4 not accepted.

    Args:
        model: the model file, or sample:backdoored, sample:benign.
        data: a folder with labels.csv, or an .npz. May be left out for a sample model.
        trigger: trigger.safetensors of a report on this model, with its .json.
        out: the folder for the mitigated model.
        device: auto, cpu or cuda.
        seed: of the choice of images and of the fine-tuning.
        method: of the fresh screening: calibrated or paper.
        images: how many images of DATA to use at most.
        tf32: allow TF32 on a GPU in the figures that decide.
        trust_code: open model formats that run code.
        resume: without effect: what was interrupted begins anew.
        overwrite: replace what an earlier run left in the folder.
        quiet: no progress bar.
    """
    _note("tools.unlearning", "mitigate", **_without(locals(), "resume"))


def verify(
    folder: str,
    *,
    out: str | None = None,
    device: str = "auto",
    seed: int = 0,
    method: str = "calibrated",
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Recompute every hash and the parity of a report's folder, from the folder alone.

    Exit codes: 0 all as written, 2 the folder is no complete report, 4 something differs.

    Args:
        folder: what `drmguard check` wrote with --out.
        out: without effect: nothing is written.
        device: auto, cpu or cuda; without effect here.
        seed: without effect.
        method: of a screening; without effect here.
        resume: without effect.
        overwrite: without effect: nothing is written.
        quiet: without effect: there is no progress bar.
    """
    _note("tools.verifying", "verify", **_without(locals(), *IDLE))


def inspect(
    model: str = "sample:backdoored",
    *,
    trust_code: bool = False,
    out: str | None = None,
    device: str = "auto",
    seed: int = 0,
    method: str = "calibrated",
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Print what the tool understands of a model, as JSON.

    Format, inputs, outputs, units, preprocessing, where f is split into F and H, SHA-256.

    Args:
        model: the model file with its .json beside it, or sample:backdoored, sample:benign.
        trust_code: open model formats that run code.
        out: without effect: the facts are printed.
        device: auto, cpu or cuda; the facts are the same.
        seed: without effect.
        method: of a screening; without effect here.
        resume: without effect.
        overwrite: without effect: nothing is written.
        quiet: without effect: there is no progress bar.
    """
    _note("tools.inspecting", "inspect", **_without(locals(), *IDLE))


def export(
    model: str,
    *,
    out: str,
    precision: str = "fp32",
    data: str | None = None,
    opset: int = 18,
    embed_preprocessing: bool = False,
    images: int = 2000,
    seed: int = 0,
    trust_code: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    method: str = "calibrated",
    resume: bool = False,
    quiet: bool = False,
) -> None:
    """Write a model as ONNX: FILE.onnx, FILE.fp16.onnx, FILE.int8.onnx.

    The file takes `input`, preprocessed floats [N x 3 x H x W], and gives `output` [N x d]; its
    metadata says how to preprocess. Exit codes: 0, 2 unusable input, 4 a file does not compute
    what the model computes (nothing is written then).

    Args:
        model: the model file with its .json beside it, or sample:backdoored, sample:benign.
        out: FILE.onnx.
        precision: fp32, fp16, int8, or several with commas.
        data: benign images: they calibrate int8, and each file is measured on them.
        opset: the ONNX operator set, 18 to 26.
        embed_preprocessing: take uint8 RGB images [N x H x W x 3] and preprocess in the graph.
        images: how many images of DATA to use at most.
        seed: of the choice of images.
        trust_code: open model formats that run code.
        overwrite: replace the files.
        device: auto, cpu or cuda; the file is the same.
        method: of a screening; without effect here.
        resume: without effect: a file appears whole or not at all.
        quiet: without effect: there is no progress bar.
    """
    _note("tools.exporting", "export", **_without(locals(), "resume", "quiet"))


def parity(
    model: str,
    file: str,
    data: str | None = None,
    *,
    out: str,
    trigger: str | None = None,
    device: str = "auto",
    images: int = 2000,
    seed: int = 0,
    trust_code: bool = False,
    overwrite: bool = False,
    method: str = "calibrated",
    resume: bool = False,
    quiet: bool = False,
) -> None:
    """Prove that an ONNX file computes what a model computes; writes parity.json.

    Exit codes: 0 it does, 2 unusable input, 4 it does not.

    Args:
        model: the model file with its .json beside it, or sample:backdoored, sample:benign.
        file: the ONNX file, of this tool or another, for the same images and outputs.
        data: a folder with labels.csv, or an .npz. May be left out for a sample model.
        out: the folder for parity.json and the worst image; not one that holds a report.
        trigger: trigger.safetensors of a report: triggered images are compared too.
        device: auto, cpu or cuda: where the model runs.
        images: how many images of DATA to use at most.
        seed: of the choice of images.
        trust_code: open model formats that run code.
        overwrite: replace what an earlier run left in the folder.
        method: of a screening; without effect here.
        resume: without effect: a file appears whole or not at all.
        quiet: without effect: there is no progress bar.
    """
    _note("tools.proving", "parity", **_without(locals(), "resume", "quiet"))


def zoo_train(
    plan: str,
    *,
    out: str,
    device: str = "auto",
    jobs: int = 1,
    genki: str | None = None,
) -> None:
    """Make the models of a plan: backdoored and benign ones whose truth is known.

    Takes minutes a model; killed, the same command goes on where it was.

    Args:
        plan: a CSV table, a row a group of models (see tools/zoo/plans).
        out: the folder of the zoo.
        device: auto, cpu or cuda.
        jobs: models trained at once.
        genki: the folder of the GENKI-4K face crops, for rows that ask for them.
    """
    _note("tools.zoo.commands", "train", **locals())


def zoo_screen(
    zoo: str,
    *,
    out: str,
    method: str = "calibrated",
    device: str = "auto",
    only: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    images: int = 2000,
    data: str | None = None,
    change: str = "",
) -> None:
    """Screen every model of a zoo, one JSON line each; goes on where it was.

    Args:
        zoo: the folder that `zoo train` made.
        out: the file of JSON lines.
        method: calibrated or paper.
        device: auto, cpu or cuda.
        only: take only the models of these names, separated by commas; * stands for anything.
        limit: take only so many models.
        seed: of the search.
        jobs: models screened at once.
        images: use at most so many of the benign images.
        data: screen all models with this benign set, say another camera's, not with their own.
        change: settings to change for an ablation, as in "calibrated.probes.kept=0;paper.steps=9".
    """
    _note("tools.zoo.commands", "screen", **locals())


def zoo_mitigate(
    zoo: str,
    *,
    out: str,
    device: str = "auto",
    only: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    change: str = "",
) -> None:
    """Screen and mitigate the backdoored models of a zoo; judge with the true trigger.

    A JSON line each: RE, AE and DAE before, after, and after plain fine-tuning.

    Args:
        zoo: the folder that `zoo train` made.
        out: the file of JSON lines.
        device: auto, cpu or cuda.
        only: take only the models of these names, separated by commas; * stands for anything.
        limit: take only so many models.
        seed: of screening and fine-tuning.
        jobs: models at once.
        change: settings of the mitigation to change for an ablation, as in "pursuit.every=0".
    """
    _note("tools.zoo.commands", "mitigate", **locals())


def zoo_table(lines: str, *, out: str, overwrite: bool = False) -> None:
    """Turn lines of `zoo screen` and `zoo mitigate` into the paper's tables and their pictures.

    Args:
        lines: files of JSON lines, separated by commas.
        out: the folder for the tables.
        overwrite: replace the tables and pictures of that folder.
    """
    _note("tools.zoo.commands", "table", **locals())


COMMANDS: dict[str, Any] = {
    "check": check,
    "screen": screen,
    "mitigate": mitigate,
    "export": export,
    "parity": parity,
    "verify": verify,
    "inspect": inspect,
    "zoo": {
        "train": zoo_train,
        "screen": zoo_screen,
        "mitigate": zoo_mitigate,
        "table": zoo_table,
    },
}


def main() -> None:
    """The console script: run the command and end with its exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run(sys.argv[1:]))


def run(words: list[str]) -> int:
    """Read the words, run the command they name, give the exit code of the contract."""
    try:
        noted = read(words)
        return 0 if noted is None else call(noted)
    except CommandLineError as error:
        print(f"drmguard: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # SIGTERM too, as CI ends a job: temporary files go
        print(f"drmguard: interrupted; {_going_on(words)}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who reads along has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print("drmguard: the output could not be written to its end", file=sys.stderr)
        return 2
    except (Exception, SystemExit):  # Python itself would exit with 1, which means: backdoored
        traceback.print_exc()
        print("drmguard: an error of the tool itself; please report it", file=sys.stderr)
        return 5


def _going_on(words: list[str]) -> str:
    """How to go on with what was interrupted."""
    said = {
        "zoo": "the same command goes on from here",
        "check": "--resume keeps the search; what comes after it begins again",
        "screen": "--resume goes on from here",
    }
    return said.get("".join(words[:1]), "the same command starts anew")


def read(words: list[str]) -> Call | None:
    """The call that the words stand for; None where they asked for help, which is printed."""
    import fire

    if "--" in words:  # behind it Fire takes flags of its own, and does nothing but obey them
        raise CommandLineError("--: no word of drmguard; leave it out (see drmguard --help)")
    os.environ["PAGER"] = "cat"  # Fire would open a pager for help
    _noted.clear()
    asks = bool({"-h", "--help"} & set(words))
    for work in (*COMMANDS.values(), *COMMANDS["zoo"].values()):
        if callable(work) and not asks:  # Fire would read --out=2024_01_15 as a number
            fire.decorators.SetParseFn(str, *TEXTS)(work)  # and its help would show what this adds
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            fire.Fire(COMMANDS, command=words or ["--help"], name="drmguard")
    except fire.core.FireExit as end:
        if end.code:
            raise CommandLineError(_one_line(complaint.getvalue(), words)) from None
        print(complaint.getvalue(), end="")
        return None
    return _noted[0] if _noted else None


def _without(arguments: dict[str, Any], *names: str) -> dict[str, Any]:
    """The arguments that have an effect, the others after a look at their kind."""
    for name in names:
        typed(name, arguments[name])
    return {name: value for name, value in arguments.items() if name not in names}


def _note(module: str, function: str, **arguments: Any) -> None:
    """Note a call, after checking that each argument is of its parameter's kind."""
    for name, value in arguments.items():
        arguments[name] = typed(name, value)
    _noted.append((module, function, arguments))


def _one_line(complaint: str, words: list[str]) -> str:
    errors = [line for line in complaint.splitlines() if line.startswith("ERROR:")]
    text = errors[0].removeprefix("ERROR:").strip() if errors else f"can't read {' '.join(words)}"
    known = [word for word in words[:2] if word in COMMANDS or word in COMMANDS["zoo"]]
    return f"{text} (see drmguard {' '.join([*known, '--help'])})"


if __name__ == "__main__":
    main()
