"""The SQLite file of reports and trials. Blocking: call it on a thread, never in an event loop.

Several processes may use one file on a local disk: each change is a transaction of its own, and
one waits for another. SQLite's rollback journal, not its write-ahead log, in which what was deleted
would live on; `secure_delete` overwrites deleted rows with zeros (sqlite.org/pragma.html).
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from unface.errors import UnfaceError
from unface.quality.places import Crop, Place, Report, Window
from unface.quality.schema import APPLICATION_ID, SCHEMA, VERSION
from unface.quality.trials import Outcome, Pairs, Trial
from unface.sealing import seal

BUSY_SECONDS = 5.0  # how long to wait for another process
MAX_BYTES = 1 << 30  # of the file; beyond it the oldest reports go, with their crops
DAY = 86400.0
OLDEST_SQLITE = (3, 37)  # has STRICT tables


class StoreError(UnfaceError):
    """The file of reports and trials cannot be read or written, or is another kind of file."""


class SealedCrop(NamedTuple):
    """A stored crop: the number of its place, where it lies, and its PNG file, sealed."""

    place: int
    window: Window
    sealed: bytes


def crop_context(report_id: int, place: int) -> bytes:
    """Return what a crop is sealed for: it opens as the crop of this place alone."""
    return f"unface crop of report {report_id}, place {place}".encode()


class Store:
    """An open file of reports and trials; safe to use from several threads.

    A file that is not there is made, readable by its owner alone, unless `create` says no. Reports
    and counts older than `days` are deleted when it is opened, with each report and by `sweep`;
    None keeps them. `max_bytes` bounds the file, see `MAX_BYTES`. Everything raises `StoreError`.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        days: float | None = None,
        create: bool = True,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is here; 3.37 or newer is needed")
        self.path = Path(path)
        self._days, self._max_bytes, self._clock = days, max_bytes, clock
        self._lock = threading.Lock()
        self._writer = secrets.randbits(63)  # whose counts of a minute are whose
        self._claim_file(create)
        with self._explained():
            self._connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare(create)
            self.sweep()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; calling anything afterwards is an error."""
        with self._lock:
            self._connection.close()

    # reports ---------------------------------------------------------------------------------

    def add_report(self, report: Report, crops: Sequence[Crop] = (), key: bytes = b"") -> int:
        """Store a report and its crops, sealed with a key of 32 bytes; returns its number."""
        with self._transaction() as connection:
            self._delete_old(connection)
            id = connection.execute(
                "INSERT INTO reports (request_id, time, profile, width, height)"
                " VALUES (?, ?, ?, ?, ?)",
                (report.request_id, self._clock(), report.profile, report.width, report.height),
            ).lastrowid
            assert id is not None  # noqa: S101  an INSERT has one
            connection.executemany(
                "INSERT INTO places VALUES (?, ?, ?, ?, ?, ?, ?)",
                ((id, number, *place) for number, place in enumerate(report.places)),
            )
            connection.executemany(
                "INSERT INTO crops VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    (id, c.place, *c.window, seal(c.png, key, crop_context(id, c.place)))
                    for c in crops
                ),
            )
            self._make_room(connection, id)
        return id

    def reports(self) -> list[Report]:
        """Return all reports, the oldest first."""
        with self._transaction("DEFERRED") as connection:
            places: dict[int, list[Place]] = {}
            for id, *place in connection.execute(
                "SELECT report_id, kind, x1, y1, x2, y2 FROM places ORDER BY report_id, place"
            ):
                places.setdefault(id, []).append(Place(*place))
            return [
                Report(request_id, profile, width, height, tuple(places[id]), id, time)
                for id, request_id, time, profile, width, height in connection.execute(
                    "SELECT id, request_id, time, profile, width, height FROM reports ORDER BY id"
                )
            ]

    def crops(self, report_id: int) -> list[SealedCrop]:
        """Return the crops of a report, in the order of its places."""
        with self._transaction("DEFERRED") as connection:
            rows = connection.execute(
                "SELECT place, x, y, width, height, sealed FROM crops WHERE report_id = ?"
                " ORDER BY place",
                (report_id,),
            )
            return [SealedCrop(place, Window(*w), sealed) for place, *w, sealed in rows]

    def crop_counts(self) -> dict[int, int]:
        """Return how many crops each report has, of those that have any."""
        with self._transaction("DEFERRED") as connection:
            rows = connection.execute("SELECT report_id, count(*) FROM crops GROUP BY report_id")
            return dict(rows.fetchall())

    def delete(self, report_ids: Iterable[int]) -> int:
        """Delete reports with all that belongs to them; returns how many there were."""
        with self._transaction() as connection:
            return connection.executemany(
                "DELETE FROM reports WHERE id = ?", ((id,) for id in report_ids)
            ).rowcount

    # trials ----------------------------------------------------------------------------------

    def put_counts(self, trial: Trial, outcomes: Sequence[Outcome], pairs: Sequence[Pairs]) -> None:
        """Write the counts of minutes; this store's earlier ones of the same minute go."""
        key = (trial.profile, trial.share, trial.shadow)
        with self._transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO trials VALUES (NULL, ?, ?, ?)", key)
            (id,) = connection.execute(
                "SELECT id FROM trials WHERE profile = ? AND share = ? AND shadow = ?", key
            ).fetchone()
            minutes = [(*list(vars(o).values())[:-1], json.dumps(o.latencies)) for o in outcomes]
            connection.executemany(
                "INSERT OR REPLACE INTO minutes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ((id, self._writer, *row) for row in minutes),
            )
            connection.executemany(
                "INSERT OR REPLACE INTO pairs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ((id, self._writer, *vars(p).values()) for p in pairs),
            )

    def trials(self) -> list[tuple[Trial, list[Outcome], list[Pairs]]]:
        """Return each trial, the oldest first, with the counts of all its writers by minute."""
        with self._transaction("DEFERRED") as connection:
            rows = connection.execute("SELECT * FROM trials ORDER BY id").fetchall()
            return [
                (Trial(profile, share, bool(shadow)), *_counts(connection, id))
                for id, profile, share, shadow in rows
            ]

    # the file --------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Delete what is older than `days`."""
        if self._days is not None:
            with self._transaction() as connection:
                self._delete_old(connection)

    def _delete_old(self, connection: sqlite3.Connection) -> None:
        if self._days is None:
            return
        oldest = self._clock() - self._days * DAY
        connection.execute("DELETE FROM reports WHERE time < ?", (oldest,))
        for table in ("minutes", "pairs"):
            connection.execute(f"DELETE FROM {table} WHERE minute < ?", (int(oldest // 60),))  # noqa: S608

    def _make_room(self, connection: sqlite3.Connection, newest: int) -> None:
        """Delete the oldest reports while the file holds too much, but not the newest."""
        while _bytes_used(connection) > self._max_bytes:
            deleted = connection.execute(
                "DELETE FROM reports WHERE id = (SELECT min(id) FROM reports) AND id < ?", (newest,)
            )
            if not deleted.rowcount:
                return

    def _claim_file(self, create: bool) -> None:
        """Make the file if need be.

        A file that is there is not opened: closing it again would drop the locks that SQLite holds
        on it elsewhere in this process (sqlite.org/howtocorrupt.html, 2.2).
        """
        if not create and not self.path.is_file():
            raise StoreError(f"{self.path} is not there; name the server's quality_file")
        try:
            if create:
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise StoreError(f"{self.path} cannot be made: {error.strerror}") from error

    def _prepare(self, create: bool) -> None:
        """Set up the connection, and the tables of a new file."""
        with self._explained():
            self._connection.execute("PRAGMA secure_delete = ON").fetchall()
            self._connection.execute("PRAGMA foreign_keys = ON")
        with self._transaction("IMMEDIATE" if create else "DEFERRED") as connection:
            ours, version, filled = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("application_id", "user_version", "schema_version")
            )
            if not (ours or version or filled) and create:
                for statement in SCHEMA.split(";"):
                    connection.execute(statement)
            elif ours != APPLICATION_ID:
                raise StoreError(f"{self.path} is not a file of unface's reports and trials")
            elif version != VERSION:
                raise StoreError(
                    f"{self.path} has tables of form {version}, this unface knows form {VERSION}: "
                    "use the unface that wrote it, or another file"
                )

    @contextmanager
    def _transaction(
        self, kind: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE"
    ) -> Iterator[sqlite3.Connection]:
        """Do all or nothing; `DEFERRED` for what only reads."""
        with self._lock, self._explained():
            self._connection.execute(f"BEGIN {kind}")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.rollback()
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:  # "database is locked", "... or disk is full", "malformed"
            raise StoreError(f"{self.path} cannot be used: {error}") from error


def _counts(connection: sqlite3.Connection, trial_id: int) -> tuple[list[Outcome], list[Pairs]]:
    """Return what was counted of a trial, by minute; the columns are the fields, after a key."""
    outcomes, pairs = (
        connection.execute(f"SELECT * FROM {table} WHERE trial_id = ? ORDER BY minute", (trial_id,))  # noqa: S608
        for table in ("minutes", "pairs")
    )
    counted = []
    for _, _, *row, latencies in outcomes:
        outcome = Outcome(*row)
        outcome.latencies.update({int(bin): n for bin, n in json.loads(latencies).items()})
        counted.append(outcome)
    return counted, [Pairs(*row) for _, _, *row in pairs]


def _bytes_used(connection: sqlite3.Connection) -> int:
    """Return the size of all pages that hold something; SQLite uses the others again."""
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
