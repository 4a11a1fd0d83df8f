"""Keep-list, regions and self-check: the same in this process and by a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import compose
from serving import ServerProcess

import unface
from unface.anonymize import MaskOptions, apply_masks, decode, encode
from unface.errors import InvalidImage, InvalidOption
from unface.local import Local

Pixels = NDArray[np.uint8]
SCENE = compose(640, 400, [(40, 60, 80), (360, 90, 100)])
LEFT, RIGHT = SCENE.faces.tolist()
SIGN = (300.0, 20.0, 340.0, 50.0)


@pytest.fixture(scope="module", params=["here", "served"])
def finder(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Any]:
    """What does the work: this process, or a server."""
    if request.param == "here":
        local = Local()
        yield local
        local.close()
    else:
        with unface.Client(server.target) as client:
            yield client


def same_inside(a: Pixels, b: Pixels, box: Any) -> bool:
    x1, y1, x2, y2 = (round(edge) for edge in box)
    return bool((a[y1:y2, x1:x2] == b[y1:y2, x1:x2]).all())


def test_a_kept_face_stays_as_it_was_and_the_other_is_covered(finder: Any) -> None:
    faces = finder.detect(SCENE.image)
    right = max(faces, key=lambda face: face.box[0])
    result = finder.anonymize_with_faces(SCENE.image, keep=[right.box])
    assert same_inside(result.image, SCENE.image, right.box)
    assert not same_inside(result.image, SCENE.image, LEFT)
    assert [face.box for face in result.kept] == [right.box]
    assert len(result.faces) == 1


def test_a_box_to_cover_is_covered_as_a_face_would_be(finder: Any) -> None:
    faces = finder.detect(SCENE.image)
    result = finder.anonymize(SCENE.image, cover=[SIGN], method="solid")
    expected = apply_masks(SCENE.image, [*faces.boxes, SIGN], MaskOptions(method="solid"))
    assert np.array_equal(result, expected)


def test_cover_only_looks_for_no_face(finder: Any) -> None:
    result = finder.anonymize_with_faces(SCENE.image, cover=[LEFT], cover_only=True)
    assert np.array_equal(result.image, apply_masks(SCENE.image, [LEFT]))
    assert len(result.faces) == len(result.kept) == 0
    assert (result.faces.width, result.faces.height) == (640, 400)
    assert result.faces.backend


def test_what_is_to_be_covered_is_covered_also_where_it_is_to_be_kept(finder: Any) -> None:
    result = finder.anonymize(SCENE.image, keep=[LEFT], cover=[LEFT], cover_only=True)
    assert not same_inside(result, SCENE.image, LEFT)


def test_a_search_of_the_result_finds_what_was_not_covered(finder: Any) -> None:
    png = encode(SCENE.image, "png")
    result = finder.anonymize_with_faces(png, cover=[LEFT], cover_only=True, verify=0)
    (face,) = result.verification.residual
    assert not result.verification.clean
    assert abs(np.array(face.box) - RIGHT).max() < 15
    assert (result.verification.rounds, tuple(result.verification.covered)) == (0, ())
    only_left = apply_masks(SCENE.image, [LEFT])
    assert np.array_equal(decode(result.image).pixels, only_left), "it only looks"


def test_what_is_left_is_covered_until_the_result_is_clean(finder: Any) -> None:
    png = encode(SCENE.image, "png")
    result = finder.anonymize_with_faces(png, cover=[LEFT], cover_only=True, verify=True)
    assert result.verification.clean
    assert result.verification.rounds >= 1
    assert len(result.verification.covered) >= 1
    pixels = decode(result.image).pixels
    assert not same_inside(pixels, SCENE.image, RIGHT)
    assert len(finder.detect(result.image, profile="privacy")) == 0


def test_a_blur_that_leaves_a_face_is_followed_by_stronger_masks(finder: Any) -> None:
    weak = {"method": "blur", "kernel": 0.3, "margin": 0.0}
    result = finder.anonymize_with_faces(SCENE.image, verify=0, **weak)
    assert not result.verification.clean, "the blur is not weak enough for this test"
    result = finder.anonymize_with_faces(SCENE.image, verify=4, **weak)
    assert result.verification.clean
    assert len(finder.detect(result.image, profile="privacy")) == 0


def test_a_face_that_was_kept_is_not_held_against_the_result(finder: Any) -> None:
    result = finder.anonymize_with_faces(SCENE.image, keep=[RIGHT], verify=True)
    assert len(result.kept) == 1
    assert result.verification.clean
    assert same_inside(result.image, SCENE.image, RIGHT)


def test_a_result_of_lossy_files_is_searched_as_it_is_returned(finder: Any) -> None:
    jpeg = encode(SCENE.image, "jpeg", quality=40)
    result = finder.anonymize_with_faces(jpeg, quality=30, keep=[LEFT, RIGHT], verify=0)
    found = finder.detect(result.image, profile="privacy")
    assert len(result.kept) == 2
    assert result.verification.clean
    assert len(found) >= 2


def test_without_verify_nothing_is_said_of_the_result(finder: Any) -> None:
    assert finder.anonymize_with_faces(SCENE.image).verification is None
    assert finder.anonymize_with_faces(SCENE.image, verify=False).verification is None


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"cover": [(900, 0, 950, 20)]}, InvalidImage, "outside"),
        ({"cover": [(5, 0, 1, 20)]}, InvalidOption, "cover"),
        ({"keep": [(float("nan"), 0, 1, 20)]}, InvalidOption, "keep"),
        ({"verify": 9}, InvalidOption, "0 to 4"),
        ({"verify": True, "method": "box"}, InvalidOption, "covers nothing"),
    ],
)
def test_bad_regions_are_refused_and_no_picture_comes_back(
    finder: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        finder.anonymize(SCENE.image, **options)


def test_searching_the_result_is_no_waiting(server: ServerProcess) -> None:
    with unface.Client(server.target) as client:
        png = encode(SCENE.image, "png")
        timings = client.anonymize_with_faces(png, verify=True).faces.timings_ms
    assert timings["verify"] > 0
    assert timings["queue"] < timings["verify"] + timings["detect"]


def test_frames_of_a_stream_have_regions_too(server: ServerProcess) -> None:
    with unface.Client(server.target) as client:
        frames = [SCENE.image, SCENE.image]
        answers = list(client.anonymize_stream(frames, keep=[RIGHT], verify=True))
    for answer in answers:
        assert not isinstance(answer, Exception)
        assert len(answer.kept) == 1
        assert answer.verification is not None
        assert answer.verification.clean


def test_many_at_once_get_each_their_own_answer(server: ServerProcess) -> None:
    """Cover-only pictures are in batches with others, and searches of results between them."""
    from concurrent.futures import ThreadPoolExecutor

    with unface.Client(server.target) as client, ThreadPoolExecutor(8) as pool:

        def call(number: int) -> Any:
            if number % 2:
                return client.anonymize_with_faces(SCENE.image, cover=[SIGN], cover_only=True)
            return client.anonymize_with_faces(SCENE.image, keep=[LEFT], verify=True)

        for number, result in enumerate(pool.map(call, range(24))):
            assert len(result.faces) == (0 if number % 2 else 1)
            assert (result.verification is None) == bool(number % 2)


def test_thresholds_that_let_everything_through_are_the_operators_to_allow(
    server: ServerProcess,
) -> None:
    with unface.Client(server.target) as client:
        assert len(client.detect(SCENE.image, thresholds=(0.6, 0.7, 0.05))) >= 2
        with pytest.raises(InvalidOption, match=r"rnet_threshold is 0\.01; .* takes 0\.05"):
            client.detect(SCENE.image, thresholds=(0.6, 0.01, 0.7))
    with Local().detector as detector:  # one's own machine is one's own
        detector.detect(SCENE.image, unface.DetectOptions(thresholds=(0.6, 0.01, 0.01)))
