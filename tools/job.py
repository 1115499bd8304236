"""What a command was asked for, and the folder that it writes to."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from guard.device import pick_device, set_precision
from guard.errors import UnusableInput
from guard.files import digest, sha256, write_json
from guard.screen import METHODS, Settings, benign_error
from tools.inputs import Inputs, model_path, open_inputs

GATE_FAILED = 4  # the exit code, whatever the verdict
STATE = "search-state.pt"  # in the folder of the report, until the report is whole
NOTE = "search-state.json"  # until then too: what stood in the folder, and what the run wrote
MANIFEST = "manifest.json"  # every other file that a run wrote, with its SHA-256
GENERATOR = "generator.onnx"  # the trigger that decided
ACCEPTED, REFUSED = "mitigated", "not-accepted"  # names of a model after its mitigation
MITIGATED = tuple(
    name + end for name in (ACCEPTED, REFUSED) for end in (".safetensors", ".json", ".onnx")
)
SHIPPED = (
    *MITIGATED,
    *(f"mitigated.{precision}.onnx" for precision in ("fp16", "int8")),
    *("model.onnx", "model.fp16.onnx", "model.int8.onnx", GENERATOR),
)
MITIGATION = "mitigation.json"  # of `drmguard mitigate`; a check has it in its report
PARITY = "parity.json"
BOM = "bom.json"
KEPT = "parity-images.npz"  # for `drmguard verify`
REPORT = ("report.json", "report.html", "trigger.safetensors", "trigger.json")  # and figures
# What each command writes into its folder.
WRITTEN: dict[str, tuple[str, ...]] = {
    "screen": (*REPORT, "figures", MANIFEST, NOTE),
    "check": (*REPORT, "figures", MANIFEST, *SHIPPED, PARITY, KEPT, BOM, NOTE),
    "mitigate": (*MITIGATED, MITIGATION),
    "parity": (PARITY, "figures"),
}


@dataclass(frozen=True)
class Job:
    """The words of the command line."""

    out: Path
    command: str = "check"
    model: str | None = None
    data: str | None = None
    device: str = "auto"
    seed: int = 0
    method: str = "calibrated"
    images: int = 2000
    precision: str = "fp32"  # of the exported files, with commas between them
    opset: int = 18
    embed_preprocessing: bool = False
    tf32: bool = False
    trust_code: bool = False
    resume: bool = False
    overwrite: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Opened:
    """A job with its inputs read: what every later step needs."""

    job: Job
    device: torch.device
    inputs: Inputs
    benign_error: dict[str, Any]
    settings: Settings
    fingerprint: str  # a hash over all that decides the verdict
    started: str


def inputs_of(job: Job, device: torch.device) -> Inputs:
    """Model and data as the words ask for them. Raises UnusableInput."""
    return open_inputs(
        job.model,
        job.data,
        device=device,
        images=job.images,
        seed=job.seed,
        trust_code=job.trust_code,
    )


def open_job(job: Job) -> Opened:
    """Read model and data and check the folder. Raises UnusableInput."""
    check_method(job.method)
    started = now()
    check_folder(job)
    device = pick_device(job.device)
    set_precision(job.tf32)
    inputs = inputs_of(job, device)
    try:
        error = benign_error(inputs.model, inputs.data.benign)
    except UnusableInput as misfit:
        raise UnusableInput(f"{inputs.data.path}: {misfit}") from None
    settings = Settings(method=job.method, seed=job.seed)
    fingerprint = fingerprint_of(inputs, settings, device, job.tf32)
    return Opened(job, device, inputs, error, settings, fingerprint, started)


def check_method(method: str) -> None:
    """Raise UnusableInput for a method that there is not."""
    if method not in METHODS:
        raise UnusableInput(f"--method={method}: expected {' or '.join(METHODS)}")


def check_folder(job: Job) -> None:
    """Nothing of the user's or of an earlier run is lost silently. Raises UnusableInput."""
    if job.resume and job.overwrite:
        raise UnusableInput("--resume and --overwrite exclude each other")
    if job.out.exists() and not job.out.is_dir():
        raise UnusableInput(f"{job.out}: is a file; --out names a folder")
    targets = [job.out / name for name in WRITTEN[job.command]]
    check_source(model_path(job.model), targets)
    begun = any((job.out / name).exists() for name in ("report.json", STATE))
    begun = begun or _noted(job.out) is not None  # killed before its first state
    replace = job.overwrite or (job.resume and begun)
    if "report.json" in WRITTEN[job.command] and not replace:  # a mitigation goes beside one
        if (job.out / "report.json").exists():
            raise UnusableInput(f"{job.out}: holds a report; pass --overwrite, or another --out")
        if (job.out / STATE).exists():
            raise UnusableInput(f"{job.out}: holds a begun run; pass --resume or --overwrite")
    if job.resume and begun:
        check_resumed(job.out, targets)
    check_targets(targets, replace)


def check_resumed(out: Path, targets: Iterable[Path]) -> None:
    """A run that goes on writes over its own files alone. Raises UnusableInput."""
    if all((out / name).exists() for name in ("report.json", MANIFEST)):
        return  # finished: nothing is written
    reported = (*REPORT, "figures") if (out / "report.json").exists() else ()
    own = {*reported, *replaceable(out)}
    for target in targets:
        if target.exists() and target.name not in own:
            raise UnusableInput(
                f"{target}: exists, and the begun run is not known to have written it; move it, "
                "or pass another --out"
            )


def check_source(source: Path, targets: Iterable[Path]) -> None:
    """A model and the JSON beside it are never written over. Raises UnusableInput."""
    if not source.is_file():
        return
    for path in (source, source.with_suffix(".json")):
        if path.resolve() in [target.resolve() for target in targets]:
            raise UnusableInput(f"{path}: would be written over; choose another --out")


def check_targets(targets: Iterable[Path], overwrite: bool) -> None:
    """What is there already is replaced only when that is asked for. Raises UnusableInput.

    A folder where a file goes, or a file where the figures go, can't be replaced at all: that is
    said before the work, not after it.
    """
    for target in targets:
        if target.exists() and target.is_dir() != (target.name == "figures"):
            raise UnusableInput(f"{target}: is in the way; move it, or pass another --out")
        if target.exists() and not overwrite:
            raise UnusableInput(f"{target}: exists; pass --overwrite, or another --out")


def prepare_folder(job: Job) -> None:
    """Make the folder, before the search and after the inputs proved usable."""
    make_folder(job.out)
    if job.overwrite:
        earlier = (*written_before(job.out), *own_files(job.out))
        remove(job.out, (STATE, *REPORT, *earlier, MANIFEST, NOTE))
        if any((job.out / name).exists() for name in WRITTEN[job.command]):
            note(job.out, {})  # --resume may write over it too


def remove(out: Path, names: Iterable[str]) -> None:
    """Remove those of the files `names` that there are. Raises UnusableInput."""
    try:
        for name in names:
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise UnusableInput(f"{out}: can't be written to ({error.strerror})") from None


def make_folder(out: Path) -> None:
    """Make the folder and see that it takes files. Raises UnusableInput."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UnusableInput(f"{out}: can't be written to ({error.strerror})") from None


def written_before(out: Path, listing: str = MANIFEST) -> list[str]:
    """The files that an earlier run wrote into a folder, by its manifest or another `listing`.

    Left beside a new report they would vouch for another model. Files of the user's stay, whatever
    a manifest from elsewhere lists.
    """
    try:
        names = [str(name) for name in json.loads((out / listing).read_text())["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    own = {*WRITTEN["check"], *WRITTEN["mitigate"]} - {"figures"}
    pictures = [name for name in names if fnmatch(name, "figures/*.png") and name.count("/") == 1]
    safe = not (out / "figures").is_symlink()
    return [name for name in names if name in own] + (pictures if safe else [])


def note(out: Path, written: dict[str, str] | None) -> None:
    """Note which files a run has `written`, by name with SHA-256; None while it is writing.

    An interrupted run has no manifest: by the note a later run tells the files of this one from
    the user's. What stood under the names of a check's files at the first note stays noted.
    """
    before, _ = _noted(out) or (_standing(out), None)
    write_json(out / NOTE, {"before": before, "written": written})


@contextmanager
def noting(out: Path) -> Iterator[None]:
    """Note what the run has written where it is stopped. A kill leaves the note as it was."""
    try:
        yield
    except BaseException:
        if (out / NOTE).exists():
            with suppress(OSError):  # a full disk is to be told of, not this
                note(out, {name: sha256(out / name) for name in own_files(out)})
        raise


def own_files(out: Path) -> list[str]:
    """The files that a run wrote since its first note; none where there is no note."""
    noted = _noted(out)
    if noted is None:
        return []
    before, written = noted
    return [
        name
        for name, digest in _standing(out).items()
        if (digest != before.get(name) if written is None else digest == written.get(name))
    ]


def replaceable(out: Path) -> list[str]:
    """What a begun run may write over: its own files and what it was begun in spite of."""
    noted = _noted(out)
    if noted is None:
        return []
    before = [name for name, digest in _standing(out).items() if digest == noted[0].get(name)]
    return [*own_files(out), *before, "figures", NOTE]


def _noted(out: Path) -> tuple[dict[str, str], dict[str, str] | None] | None:
    try:
        values = json.loads((out / NOTE).read_text())
        written = values.get("written")
        return dict(values["before"]), None if written is None else dict(written)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _standing(out: Path) -> dict[str, str]:
    names = [name for name in WRITTEN["check"] if name != NOTE]
    return {name: sha256(out / name) for name in names if (out / name).is_file()}


def inside(name: str) -> bool:
    """Whether a name in a manifest stays in the manifest's folder."""
    return ".." not in Path(name).parts and not Path(name).is_absolute()


def fingerprint_of(inputs: Inputs, settings: Settings, device: torch.device, tf32: bool) -> str:
    """A hash over all that decides the verdict: model, data, settings, precision, torch."""
    return digest(
        inputs.facts["sha256"],
        inputs.facts["sidecar_sha256"] or "",  # an ONNX file may state all of it inside
        inputs.data.manifest_sha256,
        json.dumps(asdict(settings), sort_keys=True),
        f"{device.type} tf32={tf32}",
        torch.__version__,
    )


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
