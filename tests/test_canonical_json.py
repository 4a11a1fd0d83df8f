"""Against the examples of RFC 8785 and of its author's test data, and against Python's own JSON."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unface.canonical_json import canonical, parse

# RFC 8785, appendix B
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}
DOCUMENTS = {
    # RFC 8785, section 3.2.2
    r"""{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
         "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
         "literals": [null, true, false]}""": (
        r'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        r'"string":"€$\u000f\nA' + r"'B\"\\\\\"/" + '"}'
    ),
    # RFC 8785, section 3.2.3
    r"""{"\u20ac": "Euro Sign", "\r": "Carriage Return",
         "\ufb33": "Hebrew Letter Dalet With Dagesh", "1": "One",
         "\ud83d\ude00": "Emoji: Grinning Face",
         "\u0080": "Control",
         "\u00f6": "Latin Small Letter O With Diaeresis"}""": (
        r'{"\r":"Carriage Return","1":"One","'
        + "\x80"
        + '":"Control","ö":"Latin Small Letter O With Diaeresis","€":"Euro Sign",'
        '"\U0001f600":"Emoji: Grinning Face","\ufb33":"Hebrew Letter Dalet With Dagesh"}'
    ),
    r"""{"1": {"f": {"f": "hi","F": 5}, "\n": 56.0}, "10": {}, "": "empty", "a": {},
         "111": [{"e": "yes","E": "no"}], "A": {}}""": (
        r'{"":"empty","1":{"\n":56,"f":{"F":5,"f":"hi"}},"10":{},"111":[{"E":"no","e":"yes"}],'
        '"A":{},"a":{}}'
    ),
    r'{"Unnormalized Unicode": "A\u030a", "\u007f": [ ]}': (
        '{"Unnormalized Unicode":"A\u030a","\x7f":[]}'
    ),
    "[-0, -0.0, 0e9, 1.0, 20.00, 1e5, 0.70900]": "[0,0,0,1,20,100000,0.709]",
}
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("bits", NUMBERS)
def test_numbers_are_written_as_the_rfc_writes_them(bits: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical(number) == NUMBERS[bits].encode()
    assert parse(NUMBERS[bits].encode()) == number


@pytest.mark.parametrize("text", DOCUMENTS)
def test_documents_are_written_as_the_rfc_writes_them(text: str) -> None:
    assert canonical(parse(text.encode())).decode() == DOCUMENTS[text]


@given(values)
def test_what_is_written_reads_the_same_and_is_written_the_same_again(value: Any) -> None:
    written = canonical(value)
    assert json.loads(written, parse_int=float) == value == parse(written)
    assert canonical(parse(written)) == written


@given(values)
def test_layout_and_the_order_of_names_make_no_difference(value: Any) -> None:
    loose = json.dumps(value, indent=3, ensure_ascii=True)
    assert canonical(parse(loose.encode())) == canonical(value)
    turned = json.loads(loose, object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert canonical(turned) == canonical(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_shorter_number_would_do(number: float) -> None:
    written = canonical(number).decode()
    assert float(written) == number
    digits = [c for c in written.partition("e")[0] if c.isdigit()]
    assert len("".join(digits).strip("0")) <= 17


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        2**53,
        -(2**53),
        10**400,
        "\ud800",
        {"\udfff": 1},
        {1: 2},
        b"bytes",
        {1, 2},
        [object()],
    ],
)
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical(value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"{} {}", "no JSON"),
        (b"{'a': 1}", "no JSON"),
        (b'{"a": 1,}', "no JSON"),
        (b"[1] // yes", "no JSON"),
        (b"01", "no JSON"),
        (b"\xef\xbb\xbf{}", "no JSON"),  # a byte order mark
        (b'"\n"', "no JSON"),
        (b"NaN", "NaN is no number"),
        (b"[-Infinity]", "-Infinity is no number"),
        (b"1e999", "beyond a double"),
        (b"-" + b"9" * 400, "beyond a double"),
        (b'{"a": 1, "a": 1}', "twice"),
        (b'{"a": {"b": 1, "\\u0062": 2}}', "twice"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"[" * 1_000_000, "too deep"),
        (b'{"a":' * 1_000_000, "too deep"),
    ],
)
def test_what_is_not_strictly_json_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(data)


def test_a_number_of_a_million_digits_takes_no_time() -> None:
    """`int` of it would take minutes in older Pythons."""
    with pytest.raises(ValueError, match="beyond a double"):
        parse(b"9" * 4_000_000)
    assert parse(b"0." + b"0" * 4_000_000 + b"1") == 0
