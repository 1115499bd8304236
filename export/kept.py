"""A proof that can be run again without the model: some images and what the model answered."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from export.parity import Proof
from export.subject import Reference, Subject
from guard.benign import BenignSet
from guard.errors import UnusableInput, one_line
from guard.files import whole_file
from guard.spec import ModelSpec, parse_spec

MOST = 64  # images of each group


def keep(proof: Proof, subject: Subject, path: Path) -> None:
    """Write an .npz with images, labels and answers of a model's proof, by group."""
    spec = json.dumps(subject.spec.to_json())
    arrays = {"spec": np.array(spec), "rounds": np.array(subject.rounds)}
    for group, found in proof.references.items():
        count = len(found.images)
        index = torch.linspace(0, count - 1, min(MOST, count)).round().long()
        some = found.images.part(index)
        arrays |= {
            f"{group}.images": some.images.numpy(),
            f"{group}.labels": some.labels.cpu().numpy(),
            f"{group}.names": np.array(some.names),
            f"{group}.answers": found.answers[index].numpy(),
            f"{group}.noise": np.array(found.noise),
        }
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_kept(path: Path) -> tuple[Subject, dict[str, Reference]]:
    """What `keep` wrote, to hold files against. Raises UnusableInput with one line."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        spec = parse_spec(json.loads(str(arrays.pop("spec"))), str(path))
        rounds = bool(arrays.pop("rounds"))
        groups = dict.fromkeys(name.partition(".")[0] for name in arrays)
        references = {group: _reference(arrays, group) for group in groups}
        if not references or not all(_fits(one, spec) for one in references.values()):
            raise ValueError("its images, labels and answers do not belong together")
    except UnusableInput:
        raise
    except Exception as error:  # numpy's, zip's and torch's: what was damaged may hold anything
        raise UnusableInput(f"{path}: not the images of a proof ({one_line(error)})") from None
    return recorded_subject(spec, rounds), references


def _fits(one: Reference, spec: ModelSpec) -> bool:
    """Whether there is an image and each is the model's, with an answer (BenignSet counts)."""
    count, images = len(one.images.names), one.images.images
    return (
        (count > 0 and one.noise >= 0)
        and (images.dtype == torch.uint8 and images.shape == (count, 3, *spec.input.size))
        and (one.answers.is_floating_point() and one.answers.shape == (count, len(spec.outputs)))
    )


def recorded_subject(spec: ModelSpec, rounds: bool) -> Subject:
    """A model of which only its answers are left."""
    shape = (len(spec.outputs),)
    return Subject(nn.Identity(), spec, lambda y: y, spec.outputs, shape, spec.input, rounds)


def _reference(arrays: dict[str, np.ndarray], group: str) -> Reference:
    images, labels, answers = (
        torch.from_numpy(arrays[f"{group}.{part}"]) for part in ("images", "labels", "answers")
    )
    names = [str(name) for name in arrays[f"{group}.names"]]
    benign = replace(BenignSet(images, labels), names=names)
    return Reference(benign, answers, float(arrays[f"{group}.noise"]))
