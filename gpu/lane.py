"""A lane: a stream, the memory one picture needs on its way, and the graph of all its work.

Nothing waits for the host between the picture going up and the faces coming down. Lists have a
fixed capacity; the device counts on when one is full, and the picture is done again with more room.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from unface.errors import EngineError
from unface.gpu.arrays import ResidentImage
from unface.gpu.device import Device, Graph, HostMemory, Memory, Recorder, close_all
from unface.gpu.networks import DeviceNetworks
from unface.gpu.plan import CHANNELS, BeyondDevice, Plan
from unface.gpu.tables import (
    CANDIDATE,
    COUNTERS,
    FACE,
    FRAME,
    HIT,
    LANE,
    LEVEL,
    MOST_CANDIDATES,
    PATCH,
    SQUARE,
    TILE,
)
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.team import ALONE, Team, shares

FIRST_CANDIDATES = 2048
FIRST_HITS = 32768
FACES_AT_ONCE = 256  # come down with the counters; more need a second copy
HALVINGS_ALONE = 3  # by a launch each; one block does the smaller ones
SMALL = 1 << 20  # bytes; sharing less among threads takes longer than copying it
RESULT_BYTES = COUNTERS.itemsize + FACES_AT_ONCE * FACE.itemsize


@dataclass(frozen=True)
class Sizes:
    """What a lane has room for; a bucket of pictures shares one, and its graph."""

    image: int = 0  # bytes
    halvings: int = 0  # bytes
    canvas: int = 0  # pixels
    cells: int = 0
    levels: int = 0
    tiles: int = 0
    patches: int = 0
    hits: int = 0
    candidates: int = 0

    def grown(self, plan: Plan) -> Sizes:
        """Return room for a plan too, in powers of two, so that few buckets serve all pictures."""
        wanted = Sizes(
            plan.width * plan.height * CHANNELS,
            plan.halving_bytes,
            plan.canvas_pixels,
            plan.cells,
            len(plan.levels),
            len(plan.tiles),
            len(plan.patches),
            self.hits,
            self.candidates,
        )
        pairs = zip(astuple(self), astuple(wanted), strict=True)
        return Sizes(*(have if want <= have else _power_of_two(want) for have, want in pairs))

    def beyond(self, limit: Sizes) -> bool:
        """Return whether pictures or lists are larger than another's."""
        return (
            self.image > limit.image or self.hits > limit.hits or self.candidates > limit.candidates
        )


KEPT = Sizes(image=1 << 28, hits=1 << 20, candidates=1 << 14)  # what a lane holds on to


class Lane:
    """One picture at a time; several lanes have several under way. Not thread-safe.

    `urgent` lanes go before others on the device; `team` copies pictures into pinned memory, which
    one core does no faster than the device is done with them. Raises `DeviceFailure`.
    """

    def __init__(
        self, device: Device, networks: DeviceNetworks, *, urgent: bool, team: Team = ALONE
    ) -> None:
        self.device, self.networks, self._team = device, networks, team
        self.sizes = _first_sizes()
        self._ready = False  # whether all that `sizes` ask for is there
        self.stream = device.stream(urgent=urgent)
        self._memory: dict[str, Memory] = {}
        self._staging: dict[str, HostMemory] = {}
        self._graphs: dict[bool, Graph] = {}
        self._engines: Any = None  # what `networks` keeps for this lane
        self._plan: Plan | None = None  # whose tables are on the device
        self._table = np.zeros((), LANE)

    def submit(self, image: UInt8Array | ResidentImage, plan: Plan) -> None:
        """Begin with a picture, uint8 `[H, W, 3]`; it is copied and may change afterwards.

        One that lies on the device is not: it must stay as it is until `collect` returns.
        """
        if isinstance(image, ResidentImage):
            self.submit_resident(image.pointer, plan)
            return
        self._make_room(plan)
        source = self._staging["image"]
        staged = source.array[: image.size].reshape(image.shape)
        count = self._team.threads if image.size > SMALL else 1

        def stage(rows: tuple[int, int]) -> None:
            staged[slice(*rows)] = image[slice(*rows)]

        self._team.map(stage, shares(len(image), count))
        self.stream.copy(self._memory["image"].pointer, source.pointer, image.size)
        self._begin(plan, self._memory["image"].pointer)

    def submit_resident(self, pointer: int, plan: Plan) -> None:
        """Begin with a picture that lies on the device, RGB without gaps; it must stay there."""
        self._make_room(plan)
        self._begin(plan, pointer)

    def collect(self) -> npt.NDArray[np.void]:
        """Wait for the picture; return its faces, `FACE` `[n]`, or raise.

        Raises `Crowded` when a list was too short and `EngineError` when a network gave values
        that are no numbers.
        """
        self.stream.synchronize()
        result = self._staging["result"].array
        counters = result[: COUNTERS.itemsize].view(COUNTERS)[0]
        if counters["invalid"]:
            raise EngineError("a network gave values that are no numbers; restart, or repair")
        self._check_room(counters)
        size = int(counters["faces"]) * FACE.itemsize
        if size <= RESULT_BYTES - COUNTERS.itemsize:
            return _faces(result[COUNTERS.itemsize :], size)
        many = self._host("faces", size)
        self.stream.copy(many.pointer, self._memory["result"].pointer + COUNTERS.itemsize, size)
        self.stream.synchronize()
        return _faces(many.array, size)

    @property
    def resident(self) -> int:
        """Where the last submitted picture lies on the device."""
        return int(self._frame[0]["pixels"][0])

    def close(self) -> None:
        """Free everything."""
        staging = [memory.close for memory in self._staging.values()]
        self._staging.clear()
        close_all(self.stream.synchronize, self._free, *staging, self.stream.close)

    @property
    def _frame(self) -> npt.NDArray[np.void]:
        """The staged header, `FRAME` `[1]`."""
        frame: npt.NDArray[np.void] = self._staging["frame"].array[: FRAME.itemsize].view(FRAME)
        return frame

    def _begin(self, plan: Plan, pointer: int) -> None:
        frame = self._frame
        frame[0] = plan.frame
        places = [pointer, *(self._memory["halvings"].pointer + o for o in plan.halving_offsets)]
        frame[0]["pixels"][: len(places)] = places
        self.stream.copy(
            self._memory["frame"].pointer, self._staging["frame"].pointer, frame.nbytes
        )
        if plan is not self._plan:
            self._plan = None
            for name in ("levels", "tiles", "patches"):
                table = getattr(plan, name)
                staged = self._host(name, table.nbytes)
                staged.array[: table.nbytes] = table.view(np.uint8)
                self.stream.copy(self._memory[name].pointer, staged.pointer, table.nbytes)
            self._plan = plan
        self.stream.replay(self._graph(plan.across_levels))
        result = self._staging["result"]
        self.stream.copy(result.pointer, self._memory["result"].pointer, RESULT_BYTES)

    def _make_room(self, plan: Plan) -> None:
        """Take more memory when the plan, or what was counted last time, needs it.

        What one huge or crowded picture needed is let go of with the next.
        """
        needed_last = self._ready and self.sizes.beyond(KEPT)
        sizes = (_first_sizes() if needed_last else self.sizes).grown(plan)
        if sizes != self.sizes or not self._ready:
            self._drop()
            self._take(sizes)
            self._ready = True

    def _take(self, sizes: Sizes) -> None:
        lists = {
            "hits": HIT.itemsize * sizes.hits,
            **{f"squares{n}": SQUARE.itemsize * sizes.candidates for n in range(2)},
            **{f"candidates{n}": CANDIDATE.itemsize * sizes.candidates for n in range(3)},
            "landmarks": 40 * sizes.candidates,
            "rivals": sizes.candidates * sizes.candidates // 8,
        }
        wanted = {
            "image": sizes.image,
            "halvings": sizes.halvings,
            "canvas": sizes.canvas * CHANNELS,
            "logits": 4 * sizes.cells,
            "lane": LANE.itemsize,
            "frame": FRAME.itemsize,
            "levels": LEVEL.itemsize * sizes.levels,
            "tiles": TILE.itemsize * sizes.tiles,
            "patches": PATCH.itemsize * sizes.patches,
            "result": COUNTERS.itemsize + FACE.itemsize * max(sizes.candidates, FACES_AT_ONCE),
            **lists,
            **self.networks.lane_memory(sizes.canvas, sizes.candidates),
        }
        for name, size in wanted.items():
            self._memory[name] = self.device.allocate(max(size, 1))
        self.sizes = sizes
        for name, size in (
            ("image", sizes.image),
            ("frame", FRAME.itemsize),
            ("result", RESULT_BYTES),
        ):
            self._host(name, size)
        self._write_table()
        pointers = {name: memory.pointer for name, memory in self._memory.items()}
        room = {"canvas": sizes.canvas, "candidates": sizes.candidates}
        self._engines = self.networks.open_lane(self.stream, pointers, room)

    def _write_table(self) -> None:
        at = {name: memory.pointer for name, memory in self._memory.items()}
        table = self._table
        for name in ("frame", "levels", "tiles", "patches", "canvas", "logits", "hits"):
            table[name] = at[name]
        table["landmarks"], table["rivals"] = at["landmarks"], at["rivals"]
        for name in ("squares", "candidates", "features", "outputs"):
            places = [at.get(f"{name}{n}", 0) for n in range(len(table[name]))]
            table[name] = places
        table["crops"] = at.get("crops", 0)
        table["counters"], table["faces"] = at["result"], at["result"] + COUNTERS.itemsize
        table["weights"] = self.networks.weights
        table["hit_capacity"], table["capacity"] = self.sizes.hits, self.sizes.candidates
        staged = self._host("lane", LANE.itemsize)
        staged.array[: LANE.itemsize] = np.frombuffer(table.tobytes(), np.uint8)
        self.stream.copy(at["lane"], staged.pointer, LANE.itemsize)

    def _graph(self, across_levels: bool) -> Graph:
        if across_levels not in self._graphs:
            self._graphs[across_levels] = self.stream.record(
                lambda recorder: self._work(recorder, across_levels)
            )
        return self._graphs[across_levels]

    def _work(self, recorder: Recorder, across_levels: bool) -> None:
        """All that happens to a picture on the device, in order."""
        lane, wide = self._memory["lane"].pointer, 8 * self.device.multiprocessors
        recorder.clear(self._memory["result"].pointer, COUNTERS.itemsize)
        for times in range(1, HALVINGS_ALONE + 1):
            recorder.launch("halve", wide, 256, lane, times)
        recorder.launch("halve_rest", 1, 1024, lane, HALVINGS_ALONE + 1)
        recorder.launch("fill_canvas", wide, 256, lane)
        self.networks.propose(recorder, lane, self._engines)
        recorder.launch("suppress_cells", 32, 512, lane, int(across_levels))
        if across_levels:
            self._suppress(recorder, lane, 0)
        self.networks.refine(recorder, lane, self._engines)
        self._suppress(recorder, lane, 1)
        self.networks.finish(recorder, lane, self._engines)
        self._suppress(recorder, lane, 2)

    def _suppress(self, recorder: Recorder, lane: int, stage: int) -> None:
        recorder.launch("find_rivals", 2 * self.device.multiprocessors, 256, lane, stage)
        recorder.launch("settle_rivals", 1, 1024, lane, stage)

    def _check_room(self, counters: np.void) -> None:
        """Raise `Crowded` when a list was too short, having noted how much it needs."""
        hits = int(counters["hits"])
        candidates = max(*counters["squares"].tolist(), *counters["candidates"].tolist())
        if hits <= self.sizes.hits and candidates <= self.sizes.candidates:
            return
        if candidates > MOST_CANDIDATES:
            raise BeyondDevice(f"{candidates} candidates are more than a GPU's list holds")
        sizes = replace(
            self.sizes,
            hits=max(self.sizes.hits, _power_of_two(hits)),
            candidates=max(self.sizes.candidates, _power_of_two(candidates)),
        )
        self._drop()
        self.sizes = sizes
        raise Crowded(f"{hits} cells and {candidates} candidates did not fit")

    def _host(self, name: str, size: int) -> HostMemory:
        """Return pinned memory of at least `size` bytes by a name."""
        held = self._staging.get(name)
        if held is None or held.size < size:
            if held is not None:
                self.stream.synchronize()  # it may still be copied from
                del self._staging[name]
                held.close()
            self._staging[name] = self.device.allocate_host(_power_of_two(max(size, 64)))
        return self._staging[name]

    def _drop(self) -> None:
        """Free what belongs to the present sizes."""
        self._ready = False
        if self._memory:
            self.stream.synchronize()
        self._free()

    def _free(self) -> None:
        self._plan = None
        engines, self._engines = self._engines, None
        held = [thing.close for thing in (*self._graphs.values(), *self._memory.values())]
        self._graphs.clear()
        self._memory.clear()
        if engines is not None:
            held.insert(0, lambda: self.networks.close_lane(engines))
        close_all(*held)


def _first_sizes() -> Sizes:
    return Sizes(hits=FIRST_HITS, candidates=FIRST_CANDIDATES)


def _faces(data: UInt8Array, size: int) -> npt.NDArray[np.void]:
    faces: npt.NDArray[np.void] = data[:size].view(FACE).copy()
    return faces


class Crowded(Exception):
    """A list was too short; the lane has taken note, and the picture is to be done again."""


def _power_of_two(size: int) -> int:
    return 1 << max(size - 1, 0).bit_length()
