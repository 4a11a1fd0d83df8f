"""Counts what the arms of a trial do, and writes the counts to the store now and then."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from unface.quality.latencies import bin_of
from unface.quality.store import Store, StoreError
from unface.quality.trials import Agreement, Arm, Outcome, Pairs, Trial

FLUSH_SECONDS = 5.0
MAX_MINUTES = 60  # kept while the store cannot be written to; then the oldest are lost
# The server's own failures. Others are the client's doing, or a refusal that no arm has seen.
ERRORS = frozenset({"DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "UNKNOWN"})

_log = logging.getLogger("unface.quality")


class Trials:
    """The running trial. `observe` and `observe_pair` only count, a thread writes.

    The store becomes this object's: `close` closes it. A store that cannot be written to is logged
    and tried again; nothing here raises because of it.
    """

    def __init__(
        self,
        store: Store,
        trial: Trial,
        *,
        flush_seconds: float = FLUSH_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.trial = trial
        self._store, self._clock = store, clock
        self._outcomes: dict[tuple[int, Arm, str], Outcome] = {}
        self._pairs: dict[int, Pairs] = {}
        self._minute = 0
        self._changed = self._failing = False
        self._counts = threading.Lock()  # held for microseconds
        self._writing = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._flush_regularly, args=(flush_seconds,), name="trials", daemon=True
        )
        self._thread.start()

    def observe(
        self, arm: Arm, profile: str, code: str, seconds: float, scores: Sequence[float]
    ) -> None:
        """Count a request that is over: name of its gRPC status, seconds, scores of its faces."""
        if code != "OK" and code not in ERRORS:
            return
        with self._counts:
            key = (self._now(), arm, profile)
            outcome = self._outcomes.setdefault(key, Outcome(*key))
            if code == "OK":
                outcome.answers += 1
                outcome.seconds += seconds
                outcome.faces += len(scores)
                outcome.scores += sum(scores)
                outcome.latencies[bin_of(seconds)] += 1
            else:
                outcome.errors += 1

    def observe_pair(self, agreement: Agreement, seconds_a: float, seconds_b: float) -> None:
        """Count a picture that both arms have seen, and how long each took for the same work."""
        with self._counts:
            minute = self._now()
            pairs = self._pairs.setdefault(minute, Pairs(minute))
            pairs.pictures += 1
            pairs.matched += agreement.matched
            pairs.only_a += agreement.only_a
            pairs.only_b += agreement.only_b
            pairs.iou += agreement.iou
            pairs.seconds_a += seconds_a
            pairs.seconds_b += seconds_b

    def flush(self) -> None:
        """Write what has been counted. Blocking."""
        with self._writing:
            with self._counts:
                if not self._changed:
                    return
                self._changed, now = False, self._minute
                outcomes = [
                    replace(outcome, latencies=Counter(outcome.latencies))
                    for outcome in self._outcomes.values()
                ]
                pairs = [replace(counted) for counted in self._pairs.values()]
            try:
                self._store.put_counts(self.trial, outcomes, pairs)
            except StoreError as error:
                self._put_off(error)
            else:
                self._failing = False
                self._forget(now)

    def close(self) -> None:
        """Write what is left and close the store. Blocking."""
        self._closed.set()
        self._thread.join()
        self.flush()
        self._store.close()

    def _now(self) -> int:
        """Return the minute that counts; it never goes back, also if the clock does."""
        self._minute = max(self._minute, int(self._clock() // 60))
        self._changed = True
        return self._minute

    def _put_off(self, error: StoreError) -> None:
        if not self._failing:
            _log.warning("the counts of the trial wait in memory: %s", error)
        with self._counts:
            self._failing = self._changed = True
        self._forget(self._minute - MAX_MINUTES)

    def _forget(self, minute: int) -> None:
        """Drop what was counted before a minute."""
        with self._counts:
            self._outcomes = {k: v for k, v in self._outcomes.items() if k[0] >= minute}
            self._pairs = {k: v for k, v in self._pairs.items() if k >= minute}

    def _flush_regularly(self, seconds: float) -> None:
        while not self._closed.wait(seconds):
            self.flush()
