from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest_calls import BOUNDARY, file, form, text

from unface.errors import ImageTooLarge, InvalidOption, Overloaded
from unface.web.problems import RequestTimeout, UnsupportedMediaType
from unface.web.uploads import (
    FORM,
    MAX_FIELD,
    MAX_FIELDS,
    ClientLeft,
    Form,
    Held,
    Part,
    Upload,
    boundary_of,
    check_declared,
)


def parts(whole: bytes, cuts: list[int] | None = None, files: int = 9) -> list[Part]:
    """Return the parts of a form that comes in pieces."""
    taken = Form(BOUNDARY.encode(), 1000, files)
    places = [0, *sorted(cut % (len(whole) + 1) for cut in cuts or []), len(whole)]
    found = [part for start, end in pairwise(places) for part in taken.feed(whole[start:end])]
    taken.finish()
    return found


contents = st.binary(max_size=100) | st.lists(
    st.sampled_from([b"\r", b"\n", b"-", b"--", b"\r\n--", BOUNDARY.encode()[:-1], b"a"])
).map(b"".join)


@given(st.lists(contents, max_size=5), st.lists(st.integers(0, 5000), max_size=20))
def test_files_come_as_they_were_sent_however_the_form_is_cut(
    sent: list[bytes], cuts: list[int]
) -> None:
    found = parts(form(text("profile", "fast"), *map(file, sent)), cuts)
    assert found[0].text == "fast"
    assert [bytes(part.content) for part in found[1:]] == sent
    assert [part.size for part in found[1:]] == [len(content) for content in sent]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_any_bytes_are_a_form_or_refused(sent: bytes, cuts: list[int]) -> None:
    for whole in (sent, form(sent), form(file(b"x"), sent)):
        with suppress(InvalidOption, UnsupportedMediaType):
            parts(whole, cuts)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('name="image"; filename="a b.jpg"', "a b.jpg"),
        ("name=image; filename=a.jpg", "a.jpg"),
        ('NAME="image"; FileName="a.jpg"', "a.jpg"),
        ('name="image"; filename="照片.jpg"', "照片.jpg"),
        ('name="image"; filename=""', ""),
        (r'name="image"; filename="a\"b.jpg"', 'a"b.jpg'),
    ],
)
def test_names_of_files_come_as_browsers_write_them(header: str, name: str) -> None:
    part = f"Content-Disposition: form-data; {header}\r\n\r\nx".encode()
    (found,) = parts(form(part))
    assert (found.name, found.file_name) == ("image", name)


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        (b"", "ends before its last boundary"),
        (b"no form", "cannot be read"),
        (form(file(b"x"))[:-6], "ends before its last boundary"),
        (form(file(b"x"), end=b""), "ends before its last boundary"),
        (form(b"X-Other: 1\r\n\r\nx"), "has no name"),
        (form(b"\r\nx"), "has no name"),
        (form(b'Content-Disposition: attachment; name="a"\r\n\r\nx'), "has no name"),
        (form(b"Content-Disposition: form-data\r\n\r\nx"), "has no name"),
        (form(file(b"x", field="photo")), "a file is in the field 'photo'"),
        (form(file(b"x", more='Content-Disposition: form-data; name="y"\r\n')), "two headers"),
        (form(*[text("a", "b")] * (MAX_FIELDS + 1)), f"more than {MAX_FIELDS} fields"),
        (form(*[file(b"")] * 10), "more than 9 files"),
        (form(text("a", "x" * (MAX_FIELD + 1))), f"'a' is longer than {MAX_FIELD} bytes"),
        (form(file(b"x", more="X: " + "y" * 9000 + "\r\n")), "header size exceeded"),
        (form(file(b"x", more="".join(f"X{n}: y\r\n" for n in range(9)))), "header count exceeded"),
    ],
)
def test_what_is_no_form_or_one_of_too_much_is_refused(whole: bytes, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        parts(whole)


def test_what_is_no_form_is_not_quoted_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    for whole in (b"SECRET", form(b"SECRET"), form(file(b"x", more="X" * 9000))):
        with pytest.raises(InvalidOption):
            parts(whole)
    assert caplog.text == ""


def test_one_file_is_said_to_be_one() -> None:
    with pytest.raises(InvalidOption, match="more than one file in `image`"):
        parts(form(file(b"x"), file(b"y")), files=1)


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "gzip"])
def test_a_part_that_is_encoded_is_refused(encoding: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="Content-Transfer-Encoding"):
        parts(form(file(b"x", more=f"Content-Transfer-Encoding: {encoding}\r\n")))
    assert parts(form(file(b"x", more="Content-Transfer-Encoding: Binary\r\n")))


def test_a_form_within_a_form_is_a_file_and_not_looked_into() -> None:
    inner = form(file(b"inner")).replace(BOUNDARY.encode(), b"other")
    (found,) = parts(form(file(inner, more="Content-Type: multipart/mixed; boundary=other\r\n")))
    assert found.content == inner


def test_a_file_that_is_too_large_is_measured_and_not_kept() -> None:
    large, small = parts(form(file(b"x" * 1001), file(b"x" * 1000)))
    assert (large.size, len(large.content)) == (1001, 0)
    assert (small.size, len(small.content)) == (1000, 1000)


def test_text_that_is_no_utf_8_is_refused() -> None:
    (found,) = parts(form(b'Content-Disposition: form-data; name="a"\r\n\r\n\xff'))
    with pytest.raises(InvalidOption, match="'a' is not in UTF-8"):
        assert found.text


@pytest.mark.parametrize(
    "kind", ["image/jpeg", "IMAGE/PNG", "image/anything; q=1", "application/octet-stream", ""]
)
def test_a_picture_is_a_body_of_its_own(kind: str) -> None:
    assert boundary_of(kind) is None


@pytest.mark.parametrize("kind", ["Multipart/Form-Data; boundary=x", FORM + '; boundary="x"'])
def test_a_form_has_a_boundary(kind: str) -> None:
    assert boundary_of(kind) == b"x"


@pytest.mark.parametrize("kind", ["", "; boundary=", "; boundary=" + "x" * 71, "; bound=x"])
def test_a_form_without_a_boundary_is_refused(kind: str) -> None:
    with pytest.raises(InvalidOption, match="boundary of 1 to 70"):
        boundary_of(FORM + kind)


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/json", "application/x-www-form-urlencoded", "multipart/mixed", "x"],
)
def test_other_kinds_are_refused(kind: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="Content-Type is"):
        boundary_of(kind)


def test_a_body_is_refused_by_what_its_headers_say() -> None:
    check_declared({"content-length": "10", "content-encoding": "Identity"}, 10)
    check_declared({}, 10)
    with pytest.raises(ImageTooLarge, match="11 bytes or more; the limit is 10"):
        check_declared({"content-length": "11"}, 10)
    for encoding in ("gzip", "deflate, identity", "br", "x" * 1000):
        with pytest.raises(UnsupportedMediaType, match="Content-Encoding"):
            check_declared({"content-encoding": encoding}, 10)


# --- bodies as they come --------------------------------------------------------------------------


def upload(*pieces: bytes, most: int = 100, held: Held | None = None, ends: bool = True) -> Upload:
    messages = iter(
        [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        + [{"type": "http.request"} if ends else {"type": "http.disconnect"}]
    )

    async def receive() -> Any:
        return next(messages)

    return Upload(receive, most, 10, (held or Held(1 << 20)).share())


async def whole(body: Upload) -> bytes:
    return b"".join([chunk async for chunk in body.chunks()])


def run(work: Callable[[], Any]) -> Any:
    async def inside() -> Any:
        return await work()

    return asyncio.run(inside())


def test_a_body_comes_whole() -> None:
    assert run(lambda: whole(upload(b"a", b"", b"bc"))) == b"abc"
    assert run(lambda: whole(upload())) == b""


def test_a_body_is_refused_as_soon_as_it_is_too_large() -> None:
    async def read() -> None:
        chunks = upload(b"ab", b"cd", b"ef", most=3).chunks()
        assert await anext(chunks) == b"ab"
        with pytest.raises(ImageTooLarge, match="limit is 3 bytes"):
            await anext(chunks)

    run(read)


def test_a_client_that_leaves_is_noticed() -> None:
    with pytest.raises(ClientLeft):
        run(lambda: whole(upload(b"a", ends=False)))


def test_a_body_that_stands_still_is_given_up() -> None:
    async def never() -> Any:
        await asyncio.sleep(60)

    async def read() -> None:
        await whole(Upload(never, 10, 0.05, Held(10).share()))

    with pytest.raises(RequestTimeout, match=r"within 0\.05 s"):
        run(read)


def test_a_slow_body_is_given_up_though_something_comes_all_the_time() -> None:
    async def drip() -> Any:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def read() -> None:
        await whole(Upload(drip, 1000, 0.2, Held(1000).share()))

    with pytest.raises(RequestTimeout):
        run(read)


def test_bytes_of_all_requests_are_bounded_but_one_alone_always_passes() -> None:
    held = Held(10)

    async def read() -> None:
        large = upload(b"x" * 50, held=held)
        assert len(await whole(large)) == 50
        with pytest.raises(Overloaded) as error:
            await whole(upload(b"y", held=held))
        assert error.value.retry_ms

    run(read)
    assert held.total == 50


def test_a_share_gives_back_all_that_it_took() -> None:
    held = Held(10)
    one, other = held.share(), held.share()
    one.take(6)
    other.take(4)
    with pytest.raises(Overloaded):
        other.take(1)
    one.add(-2)
    other.take(2)
    one.release()
    one.release()
    other.release()
    assert held.total == 0
