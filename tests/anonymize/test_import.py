import subprocess
import sys

import pytest

import unface.anonymize


def test_importing_the_room_loads_neither_opencv_nor_pillow() -> None:
    code = "import sys, unface.anonymize; print({'cv2', 'PIL'} & set(sys.modules))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "set()"


def test_masking_does_not_load_pillow() -> None:
    code = "import sys; from unface.anonymize import apply_masks; print('PIL' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"


@pytest.mark.parametrize("name", unface.anonymize.__all__)
def test_every_name_offered_is_there(name: str) -> None:
    assert getattr(unface.anonymize, name) is not None
    assert name in dir(unface.anonymize)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        unface.anonymize.nothing  # noqa: B018
