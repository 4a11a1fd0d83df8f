from __future__ import annotations

import asyncio
import gc
import io
import json
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unface.errors import Overloaded
from unface.v1 import unface_pb2 as pb
from unface.web.archives import MOST_ARCHIVES, Archive, Archives, Zip, zipped
from unface.web.outcomes import REPORT, covered
from unface.web.problems import Gone
from unface.web.responses import CutOff

LARGE = bytes(range(256)) * 8192  # 2 MiB


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        return await asyncio.wait_for(work(), 20)

    return asyncio.run(inside())


async def joined(pieces: AsyncIterator[memoryview]) -> bytes:
    return b"".join([bytes(piece) async for piece in pieces])


def opened(whole: bytes) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(whole))
    assert archive.testzip() is None
    return archive


async def hand(archive: Archive, name: str, content: bytes = b"x", beside: bytes = b"") -> str:
    answer = pb.AnonymizeResponse()
    return await archive.hand(name, content, beside, lambda stored: covered(name, stored, answer))


def reported(archive: zipfile.ZipFile) -> list[str]:
    """Return under which names the report has files in the ZIP."""
    return [file["stored"] for file in json.loads(archive.read(REPORT))["files"]]


# --- ZIP ------------------------------------------------------------------------------------------


@given(st.dictionaries(st.text("abcé照 (2).jpg", min_size=1), st.binary(max_size=500), max_size=6))
def test_files_come_out_as_they_went_in(files: dict[str, bytes]) -> None:
    archive = opened(run(lambda: joined(zipped([*files.items()]))))
    assert {name: archive.read(name) for name in archive.namelist()} == files


def test_every_header_has_size_and_checksum_so_that_it_can_be_read_as_it_comes() -> None:
    async def headers() -> bytes:
        return b"".join(await Zip().add("large.jpg", LARGE))

    head = run(headers)
    assert head[:4] == b"PK\3\4"
    assert int.from_bytes(head[6:8], "little") & 0x08 == 0  # no data descriptor
    assert int.from_bytes(head[22:26], "little") == len(LARGE)
    assert head[30:39] == b"large.jpg"
    assert head[39:] == LARGE


def test_files_may_be_read_by_their_owner_and_not_run() -> None:
    (found,) = opened(run(lambda: joined(zipped([("a", b"x")])))).infolist()
    assert found.external_attr >> 16 == 0o644
    assert found.compress_type == zipfile.ZIP_STORED


def test_a_large_file_comes_in_small_pieces() -> None:
    async def sizes() -> list[int]:
        return [len(piece) async for piece in zipped([("a", LARGE)])]

    assert max(run(sizes)) <= 256 << 10


def test_a_zip_that_is_given_up_says_nothing_when_it_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", said.append)

    async def work() -> None:
        pieces = zipped([("a", b"x"), ("b", b"x")])
        await anext(pieces)
        circle: list[Any] = [pieces.ag_frame.f_locals["archive"]]
        circle.append(circle)  # forgotten in no order, as after an error
        await pieces.aclose()

    run(work)
    gc.collect()
    assert not said


# --- archives that grow ---------------------------------------------------------------------------


def test_an_archive_is_downloaded_while_files_come_in() -> None:
    async def work() -> bytes:
        archive = Archives().open()
        download = asyncio.ensure_future(joined(archive.download()))
        for name in ("a.jpg", "a.jpg"):
            await archive.place()
            await hand(archive, name, LARGE)
            archive.leave()
        await hand(archive, "b.jpg", b"x", b"{}")
        await archive.close()
        return await download

    archive = opened(run(work))
    assert archive.namelist() == ["a.jpg", "a (2).jpg", "b.jpg", "b.jpg.audit.json", REPORT]
    assert reported(archive) == ["a.jpg", "a (2).jpg", "b.jpg"]


def test_a_file_is_handed_over_once_it_is_sent_and_not_before() -> None:
    async def work() -> None:
        archive = Archives().open()
        handing = asyncio.ensure_future(hand(archive, "a.jpg", LARGE))
        await asyncio.sleep(0.05)
        assert not handing.done()  # nobody downloads
        download = archive.download()
        await anext(download)
        await asyncio.sleep(0.05)
        assert not handing.done()  # not all of it is sent
        pieces = asyncio.ensure_future(joined(download))
        assert await handing == "a.jpg"
        await archive.close()
        await pieces

    run(work)


def test_only_two_files_are_under_way_at_once() -> None:
    async def work() -> None:
        archive = Archives().open()
        await archive.place()
        await archive.place()
        third = asyncio.ensure_future(archive.place())
        await asyncio.sleep(0.05)
        assert not third.done()
        archive.leave()
        await third
        archive.end()

    run(work)


def test_what_still_comes_is_in_the_archive_that_is_being_closed() -> None:
    async def work() -> bytes:
        archive = Archives().open()
        download = asyncio.ensure_future(joined(archive.download()))
        await archive.place()
        closing = asyncio.ensure_future(archive.close())
        await asyncio.sleep(0.05)
        with pytest.raises(Gone, match="closed"):
            await archive.close()
        await hand(archive, "a.jpg", b"x")
        archive.leave()
        await closing
        return await download

    assert opened(run(work)).namelist() == ["a.jpg", REPORT]


def test_a_file_whose_client_left_before_it_was_sent_is_not_sent() -> None:
    async def work() -> bytes:
        archive = Archives().open()
        left = asyncio.ensure_future(hand(archive, "left.jpg"))
        other = asyncio.ensure_future(hand(archive, "other.jpg"))
        await asyncio.sleep(0.05)
        left.cancel()
        await asyncio.wait((left,))
        download = asyncio.ensure_future(joined(archive.download()))
        await other
        await archive.close()
        return await download

    archive = opened(run(work))
    assert archive.namelist() == ["other.jpg", REPORT]
    assert reported(archive) == ["other.jpg"]


def test_a_file_whose_client_left_while_it_was_sent_is_in_the_zip_and_in_its_report() -> None:
    async def work() -> bytes:
        archive = Archives().open()
        leaving = asyncio.ensure_future(hand(archive, "a.jpg", LARGE))
        download = archive.download()
        first = bytes(await anext(download))
        leaving.cancel()
        await asyncio.wait((leaving,))
        rest = asyncio.ensure_future(joined(download))
        await archive.close()
        return first + await rest

    archive = opened(run(work))
    assert archive.namelist() == ["a.jpg", REPORT]
    assert reported(archive) == ["a.jpg"]


def test_it_ends_whole_though_who_closed_it_has_left() -> None:
    async def work() -> bytes:
        archive = Archives().open()
        await archive.place()
        closing = asyncio.ensure_future(archive.close())
        await asyncio.sleep(0.05)
        closing.cancel()
        download = asyncio.ensure_future(joined(archive.download()))
        await hand(archive, "a.jpg")
        archive.leave()
        return await download

    assert opened(run(work)).namelist() == ["a.jpg", REPORT]


def test_an_archive_that_is_ended_breaks_off_within_a_file() -> None:
    async def work() -> None:
        archive = Archives().open()
        handing = asyncio.ensure_future(hand(archive, "a.jpg", LARGE))
        download = archive.download()
        await anext(download)
        archive.end()
        with pytest.raises(CutOff):
            await anext(download)
        with pytest.raises(Gone):
            await handing

    run(work)


def test_an_archive_is_downloaded_once() -> None:
    async def work() -> None:
        archive = Archives().open()
        archive.download()
        with pytest.raises(Gone, match="downloaded already"):
            archive.download()
        archive.end()

    run(work)


async def ended(archive: Archive) -> None:
    """Check that everything says that an archive has ended."""
    for call in (archive.place, archive.close, lambda: hand(archive, "a", b"x")):
        with pytest.raises(Gone):
            await call()


def test_a_download_that_goes_away_ends_it() -> None:
    async def work() -> None:
        archives = Archives()
        archive = archives.open()
        handing = asyncio.ensure_future(hand(archive, "a.jpg", LARGE))
        download = archive.download()
        await anext(download)
        await download.aclose()  # type: ignore[attr-defined]
        with pytest.raises(Gone):
            await handing
        with pytest.raises(Gone):
            archives.find(archive.id)
        await ended(archive)

    run(work)


def test_a_quiet_archive_ends_and_its_download_is_broken() -> None:
    async def work() -> None:
        archives = Archives(quiet_seconds=0.1)
        archive = archives.open()
        with pytest.raises(CutOff):
            await joined(archive.download())
        await ended(archive)
        lonely = archives.open()  # nobody downloads it
        with pytest.raises(Gone):
            await hand(lonely, "a.jpg", b"x")

    run(work)


def test_an_archive_is_not_quiet_while_a_file_is_worked_on() -> None:
    async def work() -> bytes:
        archive = Archives(quiet_seconds=0.2).open()
        download = asyncio.ensure_future(joined(archive.download()))
        with archive.working():
            await asyncio.sleep(0.5)
        await hand(archive, "a.jpg", b"x")
        await archive.close()
        return await download

    assert opened(run(work)).namelist() == ["a.jpg", REPORT]


def test_there_are_only_so_many_and_no_id_is_like_another() -> None:
    async def work() -> None:
        archives = Archives()
        found = [archives.open() for _ in range(MOST_ARCHIVES)]
        assert len({archive.id for archive in found}) == MOST_ARCHIVES
        assert all(len(archive.id) == 32 for archive in found)
        with pytest.raises(Overloaded) as error:
            archives.open()
        assert error.value.retry_ms
        found[0].end()
        assert archives.find(archives.open().id)
        archives.close()
        for archive in found:
            with pytest.raises(Gone):
                archives.find(archive.id)

    run(work)
