from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unface.web.names import (
    MAX_BYTES,
    MAX_CHARACTERS,
    Names,
    cleaned,
    disposition,
    with_suffix,
)

UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
ODD = './\\:*?"<>|%$~ \0\n\r\u202e\u200f\ufeff'
names = st.text(max_size=300) | st.lists(
    st.sampled_from([*ODD, "..", "CON", "nul.", "jpg", "é", "😀"])
).map("".join)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("photo.jpg", "photo.jpg"),
        ("Ferien am Meer 2.JPG", "Ferien am Meer 2.JPG"),
        ("照片.png", "照片.png"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("C:\\Users\\me\\photo.jpg", "photo.jpg"),
        ("C:photo.jpg", "C_photo.jpg"),
        ("a/b\\c/d.jpg", "d.jpg"),
        ("..", "picture"),
        ("", "picture"),
        ("/", "picture"),
        ("...", "picture"),
        (".htaccess", "htaccess"),
        ("photo.jpg.", "photo.jpg"),
        ("photo\0.jpg", "photo.jpg"),
        ("photo\r\nSet-Cookie: a.jpg", "photo  Set-Cookie_ a.jpg"),
        ("photo\u202egpj.exe", "photogpj.exe"),
        ("<script>alert(1)<\\script>.jpg", "script_.jpg"),
        ("<img src=x onerror=alert(1)>.jpg", "_img src=x onerror=alert(1)_.jpg"),
        ("CON", "_CON"),
        ("con.jpg", "_con.jpg"),
        ("LPT1.tar.gz", "_LPT1.tar.gz"),
        ("com¹.txt", "_com¹.txt"),
        ("console.jpg", "console.jpg"),
        ("e\u0301.jpg", "é.jpg"),
        ("a" * 300 + ".jpeg", "a" * 115 + ".jpeg"),
        ("photo." + "x" * 300, ("photo." + "x" * 300)[:120]),
    ],
)
def test_what_is_left_of_a_name(sent: str, kept: str) -> None:
    assert cleaned(sent) == kept


@given(names)
def test_no_name_leads_anywhere_or_shows_as_another(sent: str) -> None:
    name = cleaned(sent)
    assert name
    assert not set(name) & set('/\\:*?"<>|\0')
    assert not {unicodedata.category(character) for character in name} & UNSEEN
    assert name[0] not in ". "
    assert name[-1] not in ". "
    assert len(name) <= MAX_CHARACTERS
    assert len(name.encode()) <= MAX_BYTES
    assert unicodedata.is_normalized("NFC", name)
    assert cleaned(name) == name


@given(names, st.sampled_from(["jpeg", "png", "webp"]))
def test_a_suffix_fits_the_format_and_the_name_stays_short(sent: str, format: str) -> None:
    name = with_suffix(cleaned(sent), format)
    assert name.lower().endswith(
        {"jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"), "png": ".png", "webp": ".webp"}[format]
    )
    assert len(name) <= MAX_CHARACTERS
    assert len(name.encode()) <= MAX_BYTES
    assert with_suffix(name, format) == name


@pytest.mark.parametrize(
    ("name", "format", "expected"),
    [
        ("a.JPG", "jpeg", "a.JPG"),
        ("a.jfif", "jpeg", "a.jfif"),
        ("a.png", "jpeg", "a.jpg"),
        ("a.webp", "png", "a.png"),
        ("picture", "webp", "picture.webp"),
        ("holiday.v2", "png", "holiday.v2.png"),
        ("photo.exe", "jpeg", "photo.exe.jpg"),
    ],
)
def test_the_suffix_of_another_format_is_replaced_and_any_other_kept(
    name: str, format: str, expected: str
) -> None:
    assert with_suffix(name, format) == expected


def test_a_name_that_is_taken_gets_a_number() -> None:
    taken = Names("report.json")
    assert [taken.take(name) for name in ("a.jpg", "a.jpg", "A.JPG", "report.json", "b")] == [
        "a.jpg",
        "a (2).jpg",
        "A (3).JPG",
        "report (2).json",
        "b",
    ]


def test_what_lies_beside_a_file_is_taken_too() -> None:
    taken = Names()
    assert taken.take("a.jpg.audit.json") == "a.jpg.audit.json"
    assert taken.take("a.jpg", ".audit.json") == "a (2).jpg"
    assert taken.take("a (2).jpg.audit.json") == "a (2).jpg.audit (2).json"


def test_equal_names_are_counted_on_and_not_from_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def counted(start: int) -> Iterator[int]:
        for number in count(start):
            tried.append(number)
            yield number

    monkeypatch.setattr("unface.web.names.count", counted)
    taken = Names()
    assert len({taken.take("a.jpg") for _ in range(1000)}) == 1000
    assert tried == [*range(1, 1001)]


def test_of_a_long_name_only_the_end_is_looked_at() -> None:
    assert cleaned("a/" + "b" * 1020 + ".jpg") == "b" * 116 + ".jpg"
    hostile = "a" + "\u0300" * 500_000 + "\u0327" * 500_000 + ".jpg"  # would take hours
    assert cleaned(hostile).endswith(".jpg")


@given(st.lists(names.map(cleaned), max_size=20))
def test_no_two_files_have_one_name(sent: list[str]) -> None:
    taken = Names()
    given_names = [taken.take(name).casefold() for name in sent]
    assert len(set(given_names)) == len(sent)


@given(names)
def test_a_disposition_is_one_header_that_names_one_file(sent: str) -> None:
    header = disposition(cleaned(sent))
    assert header.isascii()
    assert header.isprintable()
    assert header.startswith('attachment; filename="')
    assert header.count('"') == 2
