"""A folder through a GPU: several pictures at once, and all as one after the other."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from failing_gpus import Socket, needs_the_simulator
from PIL import Image
from skimage import data

import unface.engines.shelf
from unface import batch
from unface.anonymize import decode
from unface.batch import Job
from unface.command import main
from unface.errors import InvalidImage
from unface.folders import Found
from unface.local import Local
from unface.mtcnn.faces import Faces

FACE = np.ascontiguousarray(data.astronaut()[20:220:2, 120:320:2])  # 100 x 100
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Socket:
    needs_the_simulator()
    socket = Socket()
    monkeypatch.setattr("unface.gpu.cuda.open_cuda", socket.open)
    monkeypatch.setattr(unface.engines.shelf, "cores", lambda: 4)
    return socket


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([*map(str, arguments), "--min-face", "40"])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve pictures; of three nothing can be read."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(9):
        image = Image.fromarray(np.roll(FACE, 3 * number, axis=1))
        image.save(folder / f"{number}{('.png', '.jpg', '.webp')[number % 3]}")
    (folder / "3b.jpg").write_bytes((folder / "1.jpg").read_bytes()[:300])
    (folder / "5b.png").write_bytes(b"")
    (folder / "7b.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    return folder


def one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MOST_AT_ONCE", 1)


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files below a folder, hidden ones too."""
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


class Watch:
    """Counts how many pictures are anonymized at once, each a little late."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.most = self.begun = 0
        self._lock, honest = threading.Lock(), Local.anonymize_with_faces

        def anonymize(local: Local, image: Path, **options: object) -> object:
            with self._lock:
                self.now, self.begun = self.now + 1, self.begun + 1
                self.most = max(self.most, self.now)
            try:
                time.sleep(0.01)
                return honest(local, image, **options)  # type: ignore[call-overload]
            finally:
                with self._lock:
                    self.now -= 1

        monkeypatch.setattr(Local, "anonymize_with_faces", anonymize)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("more", [(), ("--json",), ("--format", "png", "--method", "blur")])
def test_files_reports_and_code_are_those_of_one_after_the_other(
    photos: Path, run: Run, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    watch, out = Watch(monkeypatch), photos.parent / "out"
    code, stdout, stderr = run("anonymize", photos, "-o", out, *more)
    assert code == 1
    assert "9 of 12 pictures anonymized, 9 faces, 3 FAILED" in stderr
    assert 1 < watch.most <= 4
    written = files_in(out)
    assert len(written) == 9
    for name, content in written.items():
        before = next(path for path in photos.iterdir() if path.stem == Path(name).stem)
        assert (decode(content).pixels != decode(before.read_bytes()).pixels).mean() > 0.02
    one_after_the_other(monkeypatch)
    watch.most = 0
    again = photos.parent / "again"
    assert (code, stdout, stderr) == run("anonymize", photos, "-o", again, *more)
    assert watch.most == 1
    assert files_in(again) == written


@pytest.mark.usefixtures("gpu")
def test_detect_lists_them_in_order_with_what_failed_in_its_place(
    photos: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run("detect", photos, "--json")
    records = [json.loads(line) for line in result[1].splitlines()]
    assert [Path(r["image"]).name for r in records] == sorted(p.name for p in photos.iterdir())
    assert sum("error" in r for r in records) == 3
    assert {r.get("backend") for r in records} == {"cuda", None}
    one_after_the_other(monkeypatch)
    assert run("detect", photos, "--json") == result


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("first", ["good", "bad"])
def test_of_two_pictures_with_one_result_the_first_good_one_gives_it(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    Watch(monkeypatch)
    folder, out = tmp_path / "two", tmp_path / "out"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(np.roll(FACE, number, axis=1)).save(folder / f"{number}.jpg")
        Image.fromarray(np.roll(FACE, 9, axis=0)).save(folder / f"{number}.png")
        if first == "bad":
            (folder / f"{number}.jpg").write_bytes(b"no picture")
    code, _, stderr = run("anonymize", folder, "-o", out, "--format", "webp")
    assert code == 1
    assert ("is already the result of" in stderr) is (first == "good")
    assert sorted(files_in(out)) == [f"{n}.webp" for n in range(4)]
    assert "4 of 8 pictures" in stderr
    one_after_the_other(monkeypatch)
    again = tmp_path / "again"
    assert run("anonymize", folder, "-o", again, "--format", "webp")[0] == 1
    assert files_in(again) == files_in(out)


@pytest.mark.usefixtures("gpu")
def test_earlier_results_and_inputs_are_kept_as_ever(photos: Path, run: Run) -> None:
    out, before = photos.parent / "out", files_in(photos)
    out.mkdir()
    (out / "4.jpg").write_bytes(b"earlier")
    code, _, stderr = run("anonymize", photos, "-o", out)
    assert code == 1
    assert "--force overwrites it" in stderr
    assert "8 of 12" in stderr
    assert (out / "4.jpg").read_bytes() == b"earlier"
    code, _, stderr = run("anonymize", photos, "-o", photos, "--force")
    assert code == 1
    assert stderr.count("is the input itself") == 12
    assert files_in(photos) == before


@pytest.mark.usefixtures("gpu")
def test_in_place_every_picture_is_covered_once(
    photos: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "link.png").symlink_to("0.png")
    copy = photos.parent / "copy"
    copy.mkdir()
    for path in photos.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "link.png").unlink()
    (copy / "link.png").symlink_to("0.png")
    run("anonymize", photos, "--in-place")
    one_after_the_other(monkeypatch)
    run("anonymize", copy, "--in-place")
    assert files_in(photos) == files_in(copy)
    assert (photos / "link.png").is_symlink()


@pytest.mark.usefixtures("gpu")
def test_an_option_that_is_wrong_for_all_stops_all(
    photos: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, out = Watch(monkeypatch), photos.parent / "out"
    code, stdout, stderr = run("anonymize", photos, "-o", out, "--quality", "0")
    assert (code, stdout) == (2, "")
    assert "quality" in stderr
    assert watch.begun < 12  # the others were not begun
    assert watch.now == 0
    assert not out.exists() or files_in(out) == {}


def test_a_gpu_that_goes_in_the_middle_costs_no_picture(
    gpu: Socket, photos: Path, run: Run, backend: str
) -> None:
    with_all = photos.parent / "with"
    run("anonymize", photos, "-o", with_all)
    gpu.fail_at = len(gpu.calls) - 80  # of some 20 for each picture
    out = photos.parent / "out"
    code, stdout, stderr = run("anonymize", photos, "-o", out, "--json")
    records = [json.loads(line) for line in stdout.splitlines()]
    assert {r["backend"] for r in records if "faces" in r} == {"cuda", backend}
    assert code == 1
    assert "9 of 12 pictures anonymized, 9 faces, 3 FAILED" in stderr
    assert sorted(files_in(out)) == sorted(files_in(with_all))
    assert gpu.devices[-1].closed == 1


def test_the_cpu_takes_one_picture_at_a_time(
    photos: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(monkeypatch)
    code, _, stderr = run("anonymize", photos, "-o", photos.parent / "out", "--device", "cpu")
    assert (code, watch.most) == (1, 1)
    assert "9 of 12" in stderr


@pytest.mark.usefixtures("gpu")
def test_ctrl_c_finishes_what_is_under_way_and_begins_nothing_more(
    photos: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, out = Watch(monkeypatch), photos.parent / "out"
    for number in range(40):
        Image.fromarray(np.roll(FACE, number, axis=0)).save(photos / f"z{number}.png")

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "_report", interrupted)
    code, _, stderr = run("anonymize", photos, "-o", out)
    assert (code, watch.now) == (130, 0)
    assert "stopped" in stderr
    assert 0 < len(files_in(out)) <= watch.begun < 20
    for content in files_in(out).values():
        assert decode(content).pixels.shape == FACE.shape


# The order -----------------------------------------------------------------------------------


def jobs(count: int) -> list[Job]:
    return [Job(Found(Path(str(n)), Path(str(n))), Path(str(n))) for n in range(count)]


@pytest.mark.parametrize("threads", [1, 3])
def test_answers_come_in_order_whoever_is_first(threads: int) -> None:
    def work(job: Job) -> Faces:
        number = int(job.found.path.name)
        time.sleep(0.02 if number % 3 == 0 else 0)
        if number == 4:
            raise InvalidImage("4")
        return number  # type: ignore[return-value]

    answers: list[object] = []
    for found, answer in batch._answers(jobs(10), work, threads):
        try:
            answers.append(answer())
        except InvalidImage as error:
            answers.append(str(error))
        assert str(answers[-1]) == found.path.name
    assert answers == [0, 1, 2, 3, "4", 5, 6, 7, 8, 9]


def test_no_more_is_begun_than_the_reports_leave_room_for() -> None:
    begun: list[str] = []

    def work(job: Job) -> Faces:
        begun.append(job.found.path.name)
        return len(begun)  # type: ignore[return-value]

    answers: Iterator[object] = batch._answers(jobs(100), work, 3)
    next(answers)
    time.sleep(0.05)
    assert len(begun) <= 3 * batch.AHEAD
    answers.close()  # type: ignore[attr-defined]
    assert len(begun) <= 3 * batch.AHEAD
