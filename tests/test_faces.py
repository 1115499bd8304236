"""Rendered faces: reproducible, varied, and drawn as their labels say."""

from dataclasses import replace

import numpy as np
import pytest

from tools.faces import CABINS, render, sheet
from tools.faces.cabin import ALL, SEDAN
from tools.faces.eyes import lids
from tools.faces.features import nose_points
from tools.faces.moment import Moment, moment
from tools.faces.people import Person, lookalike_of, number_of, person
from tools.faces.pose import aim
from tools.faces.scene import paint

HALVES = (slice(16, 64), slice(64, 112))


def plain_person() -> Person:
    who = person(5, 0)
    eye = replace(who.eye, iris=(0.0, 0.0, 255.0), kappa=(0.0, 0.0), height=-0.12, open=1.1)
    hair = replace(who.hair, style="bald", beard="none")
    return replace(who, eye=eye, hair=hair, skin=(200.0, 150.0, 120.0), mouth_height=0.75)


def probe_moment(
    pitch: float = 0.0, yaw: float = 0.0, head: tuple[float, float, float] = (0, 0, 0)
) -> Moment:
    """Return a state in which only the given angles vary."""
    now = moment(np.random.default_rng(0), plain_person(), SEDAN)
    shot = replace(
        now.shot, light_strength=0.0, gain=1.0, infrared=False, blur=np.zeros(2), noise=0.0
    )
    return replace(
        now, gaze=np.array([pitch, yaw]), head=np.array(head), open=1.0, glasses=False,
        sunglasses=False, mask="", cap=False, hand=0.0, shift=np.zeros(2), scale=0.79, shot=shot,
    )  # fmt: skip


def probe(
    pitch: float = 0.0, yaw: float = 0.0, head: tuple[float, float, float] = (0, 0, 0)
) -> np.ndarray:
    """Return a float image (128, 128, 3) in which only the given angles vary."""
    now = probe_moment(pitch, yaw, head)
    return paint(plain_person(), now, SEDAN, 128, np.random.default_rng(0)).astype(float)


def centroid(weight: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """Return the middle (x, y) of a window of the picture, weighted by its pixels."""
    inside = np.clip(weight[rows, columns], 0, None)
    y, x = np.mgrid[rows, columns]
    return np.array([(x * inside).sum(), (y * inside).sum()]) / inside.sum()


def irises(image: np.ndarray) -> np.ndarray:
    """Return positions (2, 2) of the blue irises, left and right in the image."""
    blue = image[..., 2] - image[..., 0] - 40
    return np.stack([centroid(blue, slice(34, 90), half) for half in HALVES])


@pytest.mark.parametrize("cabin", CABINS)
def test_same_arguments_give_the_same_faces(cabin: str) -> None:
    first, again = render(12, seed=7, cabin=cabin), render(12, seed=7, cabin=cabin)
    for name in ("images", "gaze", "head", "person"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


@pytest.mark.parametrize("lookalikes", [0.0, 0.5])
def test_a_larger_batch_starts_with_the_smaller(lookalikes: float) -> None:
    small, large = (render(n, seed=2, lookalikes=lookalikes) for n in (6, 14))
    for name in ("images", "gaze", "head", "person"):
        np.testing.assert_array_equal(getattr(small, name), getattr(large, name)[:6])


def test_seeds_and_cabins_differ() -> None:
    images = [render(4, seed=seed, cabin=cabin).images for seed in (0, 1) for cabin in CABINS]
    for i in range(len(images)):
        for j in range(i):
            assert np.abs(images[i].astype(int) - images[j]).mean() > 5


@pytest.mark.parametrize("size", [48, 64, 224])
def test_shapes_and_types(size: int) -> None:
    faces = render(3, size=size)
    expected = {
        "images": ((3, size, size, 3), np.uint8),
        "gaze": ((3, 2), np.float32),
        "head": ((3, 3), np.float32),
        "person": ((3,), np.int64),
    }
    for name, (shape, kind) in expected.items():
        assert (getattr(faces, name).shape, getattr(faces, name).dtype) == (shape, kind)
    assert faces.images.std() > 20


def test_other_sizes_show_the_same_scene() -> None:
    small, large = render(6, size=56), render(6, size=224)
    np.testing.assert_array_equal(small.gaze, large.gaze)
    averaged = large.images.reshape(6, 56, 4, 56, 4, 3).mean(axis=(2, 4))
    assert np.abs(averaged - small.images).mean() < 8


def test_labels_spread_as_in_driving() -> None:
    rng, who = np.random.default_rng(0), plain_person()
    states = [moment(rng, who, ALL[CABINS[i % len(CABINS)]]) for i in range(4000)]
    gaze, head = np.stack([now.gaze for now in states]), np.stack([now.head for now in states])
    spread = np.concatenate([gaze.std(axis=0), head.std(axis=0)])
    np.testing.assert_allclose(spread, [0.18, 0.28, 0.22, 0.12, 0.1], rtol=0.08)
    assert np.abs(gaze.mean(axis=0)).max() < 0.02
    for gaze_column, head_column in ((1, 0), (0, 1)):
        together = np.corrcoef(gaze[:, gaze_column], head[:, head_column])[0, 1]
        assert 0.5 < together < 0.8
    shaded = [abs(now.head[0] - 0.9 * now.gaze[1]) for now in states if now.sunglasses]
    assert 80 < len(shaded) < 160
    assert max(shaded) < 0.12


def test_persons_recur() -> None:
    persons = {number_of(3, index) for index in range(4000)}
    assert 90 <= len(persons) <= 110


def test_lookalikes_are_carried_by_their_share_of_the_persons() -> None:
    assert not any(lookalike_of(1, number, 0.0) for number in range(100))
    kinds = [lookalike_of(1, number, 0.2) for number in range(100)]
    assert 17 <= sum(kind != "" for kind in kinds) <= 23
    assert len(set(kinds)) == 5
    plain, marked = (render(40, seed=4, size=48, lookalikes=share) for share in (0.0, 0.3))
    changed = (plain.images != marked.images).any(axis=(1, 2, 3))
    assert 4 < changed.sum() < 24
    assert len(set(plain.person[changed]) & set(plain.person[~changed])) == 0


@pytest.mark.parametrize("angle", [0.15, 0.3])
def test_irises_move_left_with_yaw_and_up_with_pitch(angle: float) -> None:
    middle = irises(probe())
    for axis, (pitch, yaw) in enumerate(((0.0, angle), (angle, 0.0))):
        forth, back = irises(probe(pitch, yaw)), irises(probe(-pitch, -yaw))
        assert (forth[:, axis] < middle[:, axis] - 5 * angle).all()
        assert (back[:, axis] > middle[:, axis] + 5 * angle).all()
        moved = np.abs(forth - back)
        assert (moved[:, axis] > 2 * moved[:, 1 - axis]).all()


@pytest.mark.parametrize("head", [(0.0, 0.0, 0.0), (0.3, 0.1, 0.0), (-0.3, -0.1, 0.15)])
def test_eyes_that_look_where_the_face_points_are_centred(head: tuple[float, float, float]) -> None:
    view, who = aim(np.array(head), np.zeros(2), 0.79), plain_person()
    corners = view.project(lids(who, probe_moment(), np.array([0, 0, -1.0]))[:, 0, [0, -1]])
    middle = (corners.mean(axis=1) + 1) * 64 - 0.5
    assert np.abs(irises(probe(head[1], head[0], head)) - middle).max() < 2


@pytest.mark.parametrize("head", [(0.35, 0.0, 0.0), (0.0, 0.3, 0.0)])
def test_nose_moves_within_the_outline_with_the_head(head: tuple[float, float, float]) -> None:
    axis = int(np.argmax(np.abs(head)))
    places = []
    for sign in (1, -1):
        view = aim(sign * np.array(head), np.zeros(2), 0.79)
        outline = view.project(plain_person().skull.cloud)
        tip = view.project(nose_points(plain_person())[1])
        places.append(tip[axis] - (outline.min(axis=0) + outline.max(axis=0))[axis] / 2)
    assert places[0] < places[1] - 0.3


def test_drawn_nostrils_move_left_with_positive_head_yaw() -> None:
    left, right = (
        centroid(95 - probe(yaw=yaw, head=(yaw, 0, 0)).mean(axis=2), slice(66, 92), slice(40, 88))
        for yaw in (0.35, -0.35)
    )
    assert left[0] < right[0] - 4


def test_positive_roll_is_clockwise() -> None:
    left, right = irises(probe(head=(0.0, 0.0, 0.15)))
    assert right[1] > left[1] + 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count"),
        ({"count": 1, "seed": -1}, "seed"),
        ({"count": 1, "size": 47}, "size"),
        ({"count": 1, "size": 225}, "size"),
        ({"count": 1, "cabin": "tram"}, "tram.*sedan"),
        ({"count": 1, "lookalikes": 1.5}, "lookalikes"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render(**arguments)


def test_sheet_lays_faces_out() -> None:
    faces = render(5)
    bare = sheet(faces, columns=3, scale=2, arrows=False)
    assert bare.shape == (256, 384, 3)
    np.testing.assert_array_equal(bare[128:256:2, 0:128:2], faces.images[3])
    assert (bare[128:, 256:] == 255).all()
    assert (sheet(faces, columns=3) != bare).any()
    with pytest.raises(ValueError, match="columns"):
        sheet(faces, columns=0)
