import numpy as np
import pytest
from corpus import BadInput, GoodInput, bad_inputs, odd_but_good_inputs

from unface.anonymize import decode, encode
from unface.errors import InvalidImage


@pytest.mark.parametrize("bad", bad_inputs(), ids=lambda bad: bad.name)
def test_bad_input_is_refused_and_the_message_says_why(bad: BadInput) -> None:
    with pytest.raises(InvalidImage, match=bad.message):
        decode(bad.data)


@pytest.mark.parametrize("good", odd_but_good_inputs(), ids=lambda good: good.name)
def test_odd_but_good_input_decodes_to_upright_rgb(good: GoodInput) -> None:
    picture = decode(good.data, keep_exif=True)
    assert picture.pixels.shape == (good.height, good.width, 3)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous
    assert picture.pixels.flags.writeable


@pytest.mark.parametrize("good", odd_but_good_inputs(), ids=lambda good: good.name)
def test_what_was_decoded_can_be_encoded(good: GoodInput) -> None:
    picture = decode(good.data)
    file = encode(picture.pixels, "png", icc_profile=picture.icc_profile)
    assert np.array_equal(decode(file).pixels, picture.pixels)


def test_corpus_names_are_unique() -> None:
    names = [bad.name for bad in bad_inputs()] + [good.name for good in odd_but_good_inputs()]
    assert len(names) == len(set(names))
