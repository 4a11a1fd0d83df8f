from __future__ import annotations

from collections.abc import Iterator

import pytest
from scenes import crowd, found

from unface.engines.cascades import Cascades
from unface.errors import InvalidOption
from unface.mtcnn.options import DetectOptions, detect_options


@pytest.fixture(scope="module")
def cascades(arithmetic: str) -> Iterator[Cascades]:
    """With the core, and without it."""
    opened = Cascades("fp32", threads=2)
    assert opened.backend == ("native" if arithmetic == "the core" else "tflite")
    yield opened
    opened.close()


def test_options_choose_the_engines_and_the_answer_says_which(cascades: Cascades) -> None:
    scene = crowd(3, 2, 50)
    for profile, precision in (("accurate", "fp32"), ("fast", "int8"), ("privacy", "fp32")):
        faces = cascades.detect(scene.image, detect_options(profile))
        assert (faces.backend, faces.precision) == (cascades.backend, precision)
        assert found(scene, faces.boxes) == len(scene.faces)


def test_options_that_name_no_engines_get_the_default(cascades: Cascades) -> None:
    image = crowd(1, 1, 50).image
    assert cascades.detect(image, DetectOptions()).precision == "fp32"
    assert Cascades("int8").detect(image, DetectOptions()).precision == "int8"


def test_engines_that_are_not_there_are_named(cascades: Cascades) -> None:
    with pytest.raises(InvalidOption, match="there are"):
        cascades.detect(crowd(1, 1, 50).image, DetectOptions(precision="int4"))
    with pytest.raises(InvalidOption, match="there are"):
        Cascades("int4")
