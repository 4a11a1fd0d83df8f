"""Who is next: two priorities, and within each a fair share for every client, counted in pixels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from unface.server.jobs import BULK, INTERACTIVE, Job

WEIGHTS = {INTERACTIVE: 8.0, BULK: 1.0}  # of the pixels, while both wait


@dataclass(eq=False)
class _Client:
    """One client's jobs of one priority; `start` is the virtual time of its first one."""

    start: float = 0.0
    jobs: deque[Job] = field(default_factory=deque)


class _Share:
    """Clients that share in turn: start-time fair queuing (Goyal, Vin and Cheng, 1996).

    Every client has a virtual time that grows by the cost of what was taken from it. The least
    goes first. One that comes anew begins at the time of the others: it neither waits for what
    they had before, nor may it save up.
    """

    def __init__(self) -> None:
        self.start = 0.0  # of this share among others
        self._virtual = 0.0
        self._clients: dict[str, _Client] = {}

    def __bool__(self) -> bool:
        return bool(self._clients)

    def push(self, job: Job) -> None:
        if job.client not in self._clients:
            self._clients[job.client] = _Client(self._virtual)
        self._clients[job.client].jobs.append(job)

    def heads(self) -> Iterator[Job]:
        """Return the first job of each client, in the order of their turns."""
        for client in sorted(self._clients.values(), key=lambda client: client.start):
            yield client.jobs[0]

    def following(self, client: str, skip: int) -> Iterator[Job]:
        """Return a client's jobs in order, from one on."""
        return islice(self._clients[client].jobs, skip, None)

    def take(self, job: Job) -> None:
        """Take out a client's first job."""
        client = self._clients[job.client]
        client.jobs.popleft()
        self._virtual = max(self._virtual, client.start)
        client.start += job.cost
        self._leave_if_done(job.client)

    def remove(self, job: Job) -> None:
        """Take out a job that is not to be done."""
        self._clients[job.client].jobs.remove(job)
        self._leave_if_done(job.client)

    def _leave_if_done(self, name: str) -> None:
        client = self._clients[name]
        if not client.jobs:
            # What it was given beyond its turn is forgotten: so is the client, or they would
            # pile up. A flood never empties its queue, and so never profits.
            del self._clients[name]


class FairQueue:
    """The jobs that wait. Belongs to one thread; takes time in proportion to the clients."""

    def __init__(self) -> None:
        self._shares = {name: _Share() for name in WEIGHTS}
        self._virtual = 0.0
        self._size = 0
        self.cost = 0  # of all together
        self.pixels = 0

    def __len__(self) -> int:
        return self._size

    def push(self, job: Job) -> None:
        """Add a job at the end of its client's."""
        share = self._shares[job.priority]
        if not share:
            share.start = max(share.start, self._virtual)
        share.push(job)
        self._count(job, 1)

    def first(self) -> Job | None:
        """Return the job whose turn it is."""
        return next(self._in_turn(), None)

    def alike(self, first: Job, most: int, fits: Callable[[list[Job], Job], bool]) -> list[Job]:
        """Return the first job and up to `most - 1` of the same bucket that clients have next.

        `fits(chosen, job)` says whether one more may join. Nothing is taken out. Jobs of the other
        priority join as well: it costs nobody a turn.
        """
        chosen = [first]
        taken = {(first.priority, first.client): 1}
        for job in self._in_turn():
            key = (job.priority, job.client)
            for mate in self._following(key, taken.get(key, 0)):
                if len(chosen) == most or mate.bucket != first.bucket or not fits(chosen, mate):
                    break
                chosen.append(mate)
        return chosen

    def take(self, job: Job) -> None:
        """Take out a client's first job; the client and the priority have had a turn."""
        share = self._shares[job.priority]
        self._virtual = max(self._virtual, share.start)
        share.start += job.cost / WEIGHTS[job.priority]
        share.take(job)
        self._count(job, -1)

    def remove(self, job: Job) -> None:
        """Take out a job that is not to be done."""
        self._shares[job.priority].remove(job)
        self._count(job, -1)

    def _in_turn(self) -> Iterator[Job]:
        for share in sorted(filter(bool, self._shares.values()), key=lambda share: share.start):
            yield from share.heads()

    def _following(self, key: tuple[str, str], skip: int) -> Iterator[Job]:
        return self._shares[key[0]].following(key[1], skip)

    def _count(self, job: Job, sign: int) -> None:
        self._size += sign
        self.cost += sign * job.cost
        self.pixels += sign * job.pixels
