"""The file: what is in it, what leaves it, and what happens when it cannot be used."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from unface.errors import SealError, UnfaceError
from unface.quality import store as store_module
from unface.quality.places import Crop, Place, Report, Window
from unface.quality.store import Store, StoreError, crop_context
from unface.quality.trials import Outcome, Pairs, Trial
from unface.sealing import new_key, unseal

KEY = bytes(range(32))
DAY = 86400.0
PLACES = (Place("missed", 10.5, 20, 30, 40), Place("false", 0, 0, 5, 5.25))


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def report(request_id: str = "abc", places: tuple[Place, ...] = PLACES) -> Report:
    return Report(request_id, "fast", 640, 480, places)


def crop(data: bytes, place: int = 0) -> Crop:
    return Crop(place, Window(1, 2, 3, 4), data)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with Store(tmp_path / "quality.db", days=30, clock=clock) as opened:
        yield opened


def test_a_report_comes_back_as_it_went_in(store: Store, clock: Clock) -> None:
    number = store.add_report(report())
    unknown = Report("", "", None, None, PLACES[:1])
    store.add_report(unknown)
    first, second = store.reports()
    assert first == Report("abc", "fast", 640, 480, PLACES, number, clock.now)
    assert (second.width, second.height, second.places) == (None, None, PLACES[:1])


def test_a_crop_opens_with_the_key_as_the_crop_of_its_place_alone(store: Store) -> None:
    first = store.add_report(report(), [crop(b"face", 1)], KEY)
    second = store.add_report(report(), [crop(b"another", 1)], KEY)
    (sealed,) = store.crops(first)
    assert (sealed.place, sealed.window) == (1, Window(1, 2, 3, 4))
    assert unseal(sealed.sealed, KEY, crop_context(first, 1)) == b"face"
    for key, context in (
        (new_key(), crop_context(first, 1)),
        (KEY, crop_context(second, 1)),
        (KEY, crop_context(first, 0)),
    ):
        with pytest.raises(SealError):
            unseal(sealed.sealed, key, context)


def test_nothing_of_a_crop_is_in_the_file_in_the_clear(store: Store) -> None:
    store.add_report(report(), [crop(b"a face that nobody may see" * 20)], KEY)
    assert b"nobody may see" not in store.path.read_bytes()


def test_a_crop_without_a_good_key_is_not_stored(store: Store) -> None:
    with pytest.raises(SealError):
        store.add_report(report(), [crop(b"face")])
    assert store.reports() == []


def test_the_file_is_its_owners_alone(store: Store) -> None:
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


def test_old_reports_and_counts_go_and_newer_ones_stay(store: Store, clock: Clock) -> None:
    trial = Trial("fast", 0.5)
    store.add_report(report("old"), [crop(b"face")], KEY)
    store.put_counts(trial, [Outcome(int(clock.now // 60), "a", "x", 1)], [Pairs(1)])
    clock.now += 20 * DAY
    store.add_report(report("newer"), [crop(b"face")], KEY)
    store.put_counts(trial, [Outcome(int(clock.now // 60), "a", "x", 2)], [])
    clock.now += 15 * DAY
    store.sweep()
    assert [r.request_id for r in store.reports()] == ["newer"]
    ((_, outcomes, pairs),) = store.trials()
    assert ([o.answers for o in outcomes], pairs) == ([2], [])


def test_old_reports_go_when_a_report_comes_and_when_the_file_is_opened(
    tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "quality.db"
    with Store(path, days=1, clock=clock) as store:
        store.add_report(report("first"))
        clock.now += 2 * DAY
        store.add_report(report("second"))
        assert [r.request_id for r in store.reports()] == ["second"]
    clock.now += 2 * DAY
    with Store(path, clock=clock) as store:  # whoever only looks deletes nothing
        assert len(store.reports()) == 1
    with Store(path, days=1, clock=clock) as store:
        assert store.reports() == []


def test_what_was_deleted_is_nowhere_in_the_file(store: Store, clock: Clock) -> None:
    number = store.add_report(report("request-that-was"), [crop(os.urandom(200_000))], KEY)
    (sealed,) = store.crops(number)
    pieces = [sealed.sealed[at : at + 64] for at in range(0, 200_000, 3000)]
    before = store.path.read_bytes()
    assert sum(piece in before for piece in pieces) > 60  # else what follows shows nothing
    clock.now += 31 * DAY
    store.sweep()
    after = store.path.read_bytes()
    assert not any(piece in after for piece in pieces)
    assert b"request-that-was" not in after
    assert [path.name for path in store.path.parent.iterdir()] == ["quality.db"]


def test_delete_takes_the_named_reports_with_their_crops(store: Store) -> None:
    first, second = (store.add_report(report(), [crop(b"face")], KEY) for _ in range(2))
    assert store.delete([first, 99]) == 1
    assert [r.id for r in store.reports()] == [second]
    assert store.crop_counts() == {second: 1}


def test_numbers_are_never_given_twice(store: Store) -> None:
    first = store.add_report(report())
    store.delete([first])
    assert store.add_report(report()) > first


def test_the_file_stays_below_its_limit_and_the_oldest_reports_go(tmp_path: Path) -> None:
    with Store(tmp_path / "quality.db", max_bytes=400_000) as store:
        for _ in range(20):
            newest = store.add_report(report(), [crop(os.urandom(60_000))], KEY)
        kept = [r.id for r in store.reports()]
        assert kept == list(range(newest - len(kept) + 1, newest + 1))
        assert 3 <= len(kept) <= 6
        assert store.path.stat().st_size < 500_000
        assert set(store.crop_counts()) == set(kept)


def test_one_report_beyond_the_limit_is_still_kept(tmp_path: Path) -> None:
    with Store(tmp_path / "quality.db", max_bytes=100_000) as store:
        store.add_report(report())
        number = store.add_report(report(), [crop(os.urandom(200_000))], KEY)
        assert [r.id for r in store.reports()] == [number]


def test_counts_of_a_minute_replace_this_writers_and_add_to_the_others(tmp_path: Path) -> None:
    path, trial = tmp_path / "quality.db", Trial("fast", 0.25, shadow=True)
    with Store(path) as one, Store(path) as other:
        one.put_counts(trial, [Outcome(7, "a", "accurate", 1)], [Pairs(7, 1)])
        one.put_counts(trial, [Outcome(7, "a", "accurate", 3)], [Pairs(7, 4)])
        outcome = Outcome(7, "a", "accurate", 10, 1, 2.5, 30, 27.5)
        outcome.latencies.update({3: 4, 5: 6})
        other.put_counts(trial, [outcome], [Pairs(7, 5, 6, 7, 8, 9.5, 1.5, 2.5)])
        ((read, outcomes, pairs),) = one.trials()
    assert read == trial
    assert sorted(o.answers for o in outcomes) == [3, 10]
    assert outcome in outcomes
    assert sorted(p.pictures for p in pairs) == [4, 5]
    assert Pairs(7, 5, 6, 7, 8, 9.5, 1.5, 2.5) in pairs


def test_several_processes_and_threads_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "quality.db"
    code = (
        "import sys\nfrom unface.quality.places import *\nfrom unface.quality.store import Store\n"
        "with Store(sys.argv[1]) as store:\n    for n in range(20):\n"
        "        store.add_report(Report('r', '', None, None, (Place('missed', 0, 0, 1, 1),)))\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(3)]
    with Store(path) as store, ThreadPoolExecutor(4) as threads:
        list(threads.map(store.add_report, [report()] * 20))
        assert [child.wait(60) for child in children] == [0, 0, 0]
        reports = store.reports()
    assert len(reports) == len({r.id for r in reports}) == 80


def test_opening_a_second_time_leaves_the_locks_of_the_first_alone(tmp_path: Path) -> None:
    path = tmp_path / "quality.db"
    with Store(path) as store, store._transaction():
        reader = threading.Thread(target=lambda: Store(path, create=True).close())
        # Another opening must wait; closing any descriptor of the file would drop the lock.
        code = (
            "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], timeout=0)\n"
            "try:\n    c.execute('BEGIN IMMEDIATE')\nexcept sqlite3.OperationalError as e:\n"
            "    print(e)\n"
        )
        reader.start()
        shown = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
        assert "locked" in shown.stdout
    reader.join()


# What cannot be used --------------------------------------------------------------------------


def test_a_locked_file_is_an_error_that_says_so_and_passes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.05)
    with pytest.raises(StoreError, match="is locked"):
        Store(store.path)
    other.execute("COMMIT")
    other.close()
    store.add_report(report())
    assert len(store.reports()) == 1


def test_a_full_disk_is_an_error_that_says_so_and_half_a_report_is_not_kept(store: Store) -> None:
    store.add_report(report())
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StoreError, match="full"):
        store.add_report(report(), [crop(os.urandom(100_000))], KEY)
    assert len(store.reports()) == 1
    store.add_report(report())


def test_a_file_that_may_not_grow_is_an_error_and_the_store_goes_on(tmp_path: Path) -> None:
    """As a disk that is full, by the kernel's own word."""
    code = (
        "import os, resource, signal, sys\nfrom unface.quality.places import *\n"
        "from unface.quality.store import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "store = Store(sys.argv[1])\n"
        "report = Report('r', '', None, None, (Place('missed', 0, 0, 1, 1),))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
        "crop = Crop(0, Window(0, 0, 1, 1), os.urandom(300_000))\n"
        "try:\n    store.add_report(report, [crop], bytes(32))\n"
        "except StoreError as error:\n    print('refused:', error)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "store.add_report(report, [crop], bytes(32))\nprint(len(store.reports()))\n"
    )
    assert resource.RLIM_INFINITY
    shown = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "quality.db")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "refused:" in shown.stdout
    assert shown.stdout.splitlines()[-1] == "1"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no database at all, but some text of a certain length" * 40, "not a database"),
        (None, "is not a file of unface's"),
    ],
)
def test_another_kind_of_file_is_refused_and_left_alone(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "other.db"
    if content is None:
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE mine (x)")
        other.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=said):
        Store(path, days=1)
    assert path.read_bytes() == before


def test_a_file_of_a_newer_unface_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "quality.db"
    Store(path).close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 9")
    other.close()
    with pytest.raises(StoreError, match="form 9, this unface knows form 1"):
        Store(path)


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "quality.db"
    with Store(path) as store:
        for _ in range(50):
            store.add_report(report())
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="cannot be used"), Store(path) as store:
        store.reports()


@pytest.mark.parametrize(("create", "said"), [(False, "is not there"), (True, "cannot be made")])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, create: bool, said: str) -> None:
    path = tmp_path / "nowhere" / "quality.db"
    with pytest.raises(StoreError, match=f"nowhere/quality.db {said}"):
        Store(path, create=create)
    assert not path.parent.exists()


def test_every_error_of_the_store_is_one_of_unface(tmp_path: Path) -> None:
    store = Store(tmp_path / "quality.db")
    store.close()
    with pytest.raises(UnfaceError):
        store.reports()
