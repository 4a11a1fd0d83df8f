"""The `unface` command as a person types it: real processes, real files."""

from __future__ import annotations

import functools
import json
import os
import signal
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from unface.anonymize import decode
from unface.kernels.library import instruction_set

FACE = (177, 63, 264, 170)  # the astronaut's, in the photo that scikit-image ships


def unface(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unface.command", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    astronaut = Image.fromarray(data.astronaut())
    astronaut.save(folder / "one.jpg", quality=98)
    astronaut.save(folder / "deep" / "TWO.PNG")
    astronaut.save(folder / "deep" / "er" / "three.webp")
    Image.fromarray(data.coffee()).save(folder / "coffee.jpeg")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def face_is_gone(before: bytes, after: bytes) -> bool:
    x1, y1, x2, y2 = FACE
    a, b = decode(before).pixels[y1:y2, x1:x2], decode(after).pixels[y1:y2, x1:x2]
    return a.shape == b.shape and bool(np.abs(a.astype(int) - b).mean() > 10)


def test_detect_lists_each_face(photos: Path) -> None:
    result = unface("detect", photos / "one.jpg")
    assert result.returncode == 0
    assert "512 x 512  1 face" in result.stdout


def test_json_is_one_line_for_each_picture_with_the_documented_fields(
    photos: Path, runtime: str
) -> None:
    result = unface("detect", photos, "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(r["image"]).name for r in records] == [
        "coffee.jpeg", "one.jpg", "TWO.PNG", "three.webp"
    ]  # fmt: skip
    record = records[1]
    assert set(record) == {"image", "width", "height", "faces", "backend", "precision"}
    assert (record["width"], record["height"]) == (512, 512)
    assert (record["backend"], record["precision"]) == (runtime, "fp32")
    (face,) = record["faces"]
    assert np.abs(np.array(face["box"]) - FACE).max() < 8
    assert list(face["landmarks"]) == ["left_eye", "right_eye", "nose", "mouth_left", "mouth_right"]
    assert face["landmarks"]["left_eye"][0] < face["landmarks"]["right_eye"][0]
    assert 0.7 < face["score"] <= 1
    assert records[0]["faces"] == []


def test_anonymize_keeps_the_tree_and_covers_every_face(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = unface("anonymize", photos, "-o", out)
    assert result.returncode == 0, result.stderr
    assert "4 of 4 pictures anonymized, 3 faces" in result.stderr
    written = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    assert written == ["coffee.jpeg", "deep/TWO.PNG", "deep/er/three.webp", "one.jpg"]
    for name in ("one.jpg", "deep/TWO.PNG", "deep/er/three.webp"):
        assert face_is_gone((photos / name).read_bytes(), (out / name).read_bytes())


def test_a_single_file_may_be_given_its_own_output_name(photos: Path, tmp_path: Path) -> None:
    result = unface("anonymize", photos / "one.jpg", "-o", tmp_path / "clean.jpg")
    assert result.returncode == 0
    assert face_is_gone((photos / "one.jpg").read_bytes(), (tmp_path / "clean.jpg").read_bytes())


def test_a_bad_file_is_reported_and_the_rest_is_done(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes((photos / "one.jpg").read_bytes()[:5000])
    (photos / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    result = unface("anonymize", photos, "-o", tmp_path / "out")
    assert result.returncode == 1
    assert "broken.jpg" in result.stderr
    assert "phone.heic" in result.stderr
    assert "4 of 6 pictures anonymized, 3 faces, 2 FAILED" in result.stderr
    assert not list((tmp_path / "out").rglob("*broken*"))
    assert not list((tmp_path / "out").rglob("*heic*"))


def test_a_bad_file_has_its_line_of_json_too(photos: Path) -> None:
    (photos / "a.jpg").write_bytes(b"")
    lines = unface("detect", photos / "a.jpg", "--json").stdout.splitlines()
    assert "error" in json.loads(lines[0])
    assert "faces" not in json.loads(lines[0])


def test_the_input_is_never_overwritten_unless_told(photos: Path) -> None:
    before = (photos / "one.jpg").read_bytes()
    for out in (photos, photos / "one.jpg"):
        result = unface("anonymize", photos / "one.jpg", "-o", out, "--force")
        assert result.returncode == 1
        assert "is the input itself" in result.stderr
        assert (photos / "one.jpg").read_bytes() == before
    os.link(photos / "one.jpg", photos / "linked.jpg")
    assert unface(
        "anonymize", photos / "one.jpg", "-o", photos / "linked.jpg", "--force"
    ).returncode
    assert (photos / "one.jpg").read_bytes() == before


def test_in_place_overwrites_the_input_and_keeps_its_permissions(photos: Path) -> None:
    before = (photos / "one.jpg").read_bytes()
    (photos / "one.jpg").chmod(0o640)
    assert unface("anonymize", photos / "one.jpg", "--in-place").returncode == 0
    assert face_is_gone(before, (photos / "one.jpg").read_bytes())
    assert stat.S_IMODE((photos / "one.jpg").stat().st_mode) == 0o640


def test_an_earlier_result_is_kept_unless_forced(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean.jpg"
    out.write_bytes(b"earlier")
    refused = unface("anonymize", photos / "one.jpg", "-o", out)
    assert refused.returncode == 1
    assert "--force" in refused.stderr
    assert out.read_bytes() == b"earlier"
    assert unface("anonymize", photos / "one.jpg", "-o", out, "--force").returncode == 0
    assert out.read_bytes() != b"earlier"


def test_results_inside_the_input_folder_are_not_taken_as_input(photos: Path) -> None:
    out = photos / "clean"
    assert unface("anonymize", photos, "-o", out).returncode == 0
    again = unface("anonymize", photos, "-o", out, "--force")
    assert "4 of 4 pictures" in again.stderr


def test_two_pictures_never_share_a_result(photos: Path, tmp_path: Path) -> None:
    (photos / "one.png").write_bytes((photos / "deep" / "TWO.PNG").read_bytes())
    result = unface("anonymize", photos, "-o", tmp_path / "out", "--format", "webp")
    assert result.returncode == 1
    assert "is already the result of" in result.stderr


def test_nothing_is_left_behind_when_the_result_cannot_be_written(
    photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    result = unface("anonymize", photos / "one.jpg", "-o", tmp_path / "file" / "x")
    assert result.returncode == 1
    assert "cannot be written" in result.stderr
    full = Path("/dev/full")
    if full.exists():
        result = unface("anonymize", photos / "one.jpg", "-o", "/dev/full/x.jpg")
        assert result.returncode == 1


def test_format_and_quality_are_obeyed(photos: Path, tmp_path: Path) -> None:
    result = unface(
        "anonymize", photos / "one.jpg", "-o", tmp_path, "--format", "webp", "--quality", 20
    )
    assert result.returncode == 0, result.stderr
    assert decode((tmp_path / "one.webp").read_bytes()).format == "webp"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "pixelate"], "mosaic"),
        (["--margin", "9"], "0 to 2"),
        (["--quality", "0"], "quality"),
        (["--profile", "wild"], "accurate"),
        (["--min-face", "3"], "12 pixels"),
        (["--thresholds", "0.5,0.5"], "three numbers"),
        (["--threads", "0"], "threads"),
        (["--precision", "fp8"], "fp32"),
        (["--device", "tpu"], "auto, cpu, gpu"),
        (["--server", "localhost:1", "--threads", "2"], "server's to choose"),
        (["--server", "localhost:1", "--device", "cpu"], "server's to choose"),
    ],
)
def test_a_bad_option_says_what_is_accepted(
    photos: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = unface("anonymize", photos / "one.jpg", "-o", tmp_path / "o.jpg", *arguments)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "o.jpg").exists()


def test_a_missing_path_is_wrong_usage(tmp_path: Path) -> None:
    result = unface("detect", tmp_path / "absent.jpg")
    assert result.returncode == 2
    assert "does not exist" in result.stderr


def test_a_folder_without_pictures_is_not_a_success(tmp_path: Path) -> None:
    result = unface("detect", tmp_path)
    assert result.returncode == 1
    assert "0 of 0 pictures" in result.stderr


def test_an_absent_server_is_said_and_how_to_start_one(photos: Path) -> None:
    result = unface("detect", photos, "--server", "127.0.0.1:9", "--timeout", "2")
    assert result.returncode == 1
    assert "127.0.0.1:9" in result.stderr
    assert "unface serve" in result.stderr
    assert "Traceback" not in result.stderr


def test_info_names_backend_engines_and_versions(runtime: str) -> None:
    facts = json.loads(unface("info", "--json").stdout)
    assert facts["backend"] == runtime
    assert facts["precision"] == "fp32"
    # Three networks in five precisions for LiteRT, in two for the core.
    assert Counter(Path(file).suffix for file in facts["engines"]) == {".tflite": 15, ".npz": 6}
    assert facts["libraries"]["numpy"] == np.__version__
    assert (facts["kernels"] == "none") is (runtime == "tflite")


def test_info_says_which_instructions_the_core_uses(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line.split() for line in unface("info").stdout.splitlines()]
    assert ["kernels", instruction_set()] in lines
    if runtime == "native":
        monkeypatch.setenv("UNFACE_KERNELS", "avx2")
        lines = [line.split() for line in unface("info").stdout.splitlines()]
        assert ["kernels", "avx2"] in lines
        assert ["backend", "native"] in lines


def test_info_names_the_gpu_or_says_why_there_is_none() -> None:
    facts = json.loads(unface("info", "--device", "cpu", "--json").stdout)
    assert (facts["device"], facts["device_reason"]) == ("CPU", "device is cpu")
    result = unface("info", "--device", "gpu", "--json")
    facts = json.loads(result.stdout)
    assert (facts["device"] == "CPU") is ("device_reason" in facts)
    assert (facts["device"] == "CPU") is ("NO GPU IN USE" in result.stderr)
    assert (facts["device"] == "CPU") is (facts["backend"] != "cuda")


def test_a_gpu_that_was_asked_for_and_is_missing_is_said_and_the_picture_done(photos: Path) -> None:
    result = unface("detect", photos / "one.jpg", "--device", "gpu", "--json")
    record = json.loads(result.stdout)
    assert len(record["faces"]) == 1
    assert (record["backend"] != "cuda") is ("NO GPU IN USE, the CPU serves" in result.stderr)


def test_int8_engines_find_the_face_too(photos: Path, runtime: str) -> None:
    result = unface("detect", photos / "one.jpg", "--precision", "int8", "--json")
    record = json.loads(result.stdout)
    assert (record["backend"], record["precision"]) == (runtime, "int8")
    assert len(record["faces"]) == 1


def test_file_names_need_not_be_text(photos: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \n.jpg")
    (photos / "one.jpg").rename(photos / name)
    result = unface("anonymize", photos, "-o", tmp_path / "out", "--json", encoding="utf-8")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 4
    assert (tmp_path / "out" / name).exists()


def test_in_place_reaches_the_picture_behind_a_link(photos: Path, tmp_path: Path) -> None:
    real = tmp_path / "real.jpg"
    (photos / "one.jpg").rename(real)
    before = real.read_bytes()
    (photos / "one.jpg").symlink_to(real)
    assert unface("anonymize", photos / "one.jpg", "--in-place").returncode == 0
    assert (photos / "one.jpg").is_symlink()
    assert face_is_gone(before, real.read_bytes())


def test_pipes_in_a_folder_are_passed_over_and_broken_links_named(photos: Path) -> None:
    os.mkfifo(photos / "pipe.jpg")
    (photos / "broken.jpg").symlink_to(photos / "nowhere.jpg")
    result = unface("detect", photos)
    assert result.returncode == 1
    assert "broken.jpg cannot be read" in result.stderr
    assert "4 of 5 pictures" in result.stderr


def test_a_file_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "big.jpg").open("wb") as file:
        file.truncate(1 << 40)  # sparse: a terabyte that is not there
    result = unface("detect", tmp_path / "big.jpg")
    assert result.returncode == 1
    assert "the limit is 67108864 bytes" in result.stderr


def test_a_run_that_is_stopped_leaves_no_half_written_file(photos: Path, tmp_path: Path) -> None:
    for index in range(60):
        (photos / f"{index}.png").write_bytes((photos / "deep" / "TWO.PNG").read_bytes())
    out = tmp_path / "out"
    command = [sys.executable, "-m", "unface.command", "anonymize", str(photos), "-o", str(out)]
    # A shell's background jobs, this test among them, may have been told to ignore Ctrl-C.
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=listen,
    )
    while not out.exists() or len(list(out.iterdir())) < 3:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert b"Traceback" not in stderr
    for path in out.iterdir():
        assert not path.name.startswith(".unface")
        decode(path.read_bytes())


def two_faces(folder: Path) -> Path:
    """Write a picture of two astronauts beside each other."""
    path = folder / "two.png"
    astronaut = data.astronaut()
    Image.fromarray(np.concatenate([astronaut, astronaut], axis=1)).save(path)
    return path


def test_a_face_is_kept_and_a_place_covered(tmp_path: Path) -> None:
    source, target = two_faces(tmp_path), tmp_path / "out.png"
    result = unface(
        *("anonymize", source, "-o", target, "--keep", "177,63,264,170"),
        *("--cover", "400,400,480,480", "--method", "solid", "--json"),
    )
    assert result.returncode == 0, result.stderr
    record = json.loads(result.stdout)
    assert (len(record["faces"]), len(record["kept"])) == (1, 1)
    before, after = np.asarray(Image.open(source)), np.asarray(Image.open(target))
    assert (after[63:170, 177:264] == before[63:170, 177:264]).all()
    assert (after[400:480, 400:480] == 0).all()
    assert (after[80:150, 512 + 190 : 512 + 250] == 0).all()


def test_verify_names_the_faces_that_are_left_and_fails(tmp_path: Path) -> None:
    source, target = two_faces(tmp_path), tmp_path / "out.png"
    only_left = ("anonymize", source, "-o", target, "--cover-only", "--cover", "150,40,290,190")
    result = unface(*only_left, "--verify-rounds", "0")
    assert result.returncode == 1
    assert "a face may be LEFT:  " in result.stderr
    assert "1 of 1 picture anonymized, 0 faces, faces LEFT in 1" in result.stderr
    result = unface(*only_left, "--verify", "--force")
    assert result.returncode == 0, result.stderr
    assert "found in the result and covered" in result.stdout
    assert "LEFT" not in result.stderr


@pytest.mark.parametrize("box", ["1,2,3", "1,2,3,x", ""])
def test_what_is_no_box_is_wrong_usage(tmp_path: Path, box: str) -> None:
    result = unface("anonymize", two_faces(tmp_path), "-o", tmp_path / "out.png", "--cover", box)
    assert result.returncode == 2
    assert "--cover" in result.stderr


def test_a_picture_that_a_box_does_not_touch_fails_alone(tmp_path: Path, photos: Path) -> None:
    two_faces(photos)
    result = unface("anonymize", photos, "-o", tmp_path / "out", "--cover", "900,10,1000,60")
    assert result.returncode == 1
    assert "lies outside" in result.stderr
    assert (tmp_path / "out" / "two.png").exists()
    assert not (tmp_path / "out" / "one.jpg").exists()


def test_the_name_of_an_output_says_its_format(tmp_path: Path) -> None:
    source, target = two_faces(tmp_path), tmp_path / "out.webp"
    assert unface("anonymize", source, "-o", target).returncode == 0
    assert decode(target.read_bytes()).format == "webp"
    result = unface("anonymize", source, "-o", tmp_path / "out.jpg", "--format", "png")
    assert result.returncode == 2
    assert "out.jpg is no name for png" in result.stderr
    result = unface("anonymize", source, "-o", tmp_path / "out.gif")
    assert result.returncode == 2
    assert "JPEG, PNG or WebP" in result.stderr
    assert not (tmp_path / "out.gif").exists()


def test_covering_nothing_is_no_anonymization(tmp_path: Path) -> None:
    result = unface("anonymize", two_faces(tmp_path), "-o", tmp_path / "out.png", "--cover-only")
    assert result.returncode == 2
    assert "--cover" in result.stderr


def test_a_box_to_keep_that_meets_no_face_is_told(tmp_path: Path) -> None:
    source, target = two_faces(tmp_path), tmp_path / "out.png"
    result = unface(
        *("anonymize", source, "-o", target, "--verify"),
        *("--keep", "177,63,264,170", "--keep", "0,0,40,40"),
    )
    assert result.returncode == 0
    assert "1 of --keep met no face" in result.stderr
    assert "1 face  result searched: no face" in result.stdout


def test_the_package_is_the_command_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unface", "--version"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "unface")
