from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scenes import astronaut, compose, crowd

from unface.calibration import samples as samples_module
from unface.calibration.samples import (
    BANDS,
    FEW_FACES,
    FEW_IMAGES,
    KINDS,
    LIGHTS,
    PER_IMAGE,
    SHAPES,
    SURENESS,
    Samples,
    find_images,
    harvest,
    read_images,
    read_samples,
    write_samples,
)
from unface.errors import InvalidImage, InvalidOption
from unface.mtcnn import Cascade, Network, Networks
from unface.mtcnn.canvas import plan_pages
from unface.mtcnn.network import FloatArray, UInt8Array
from unface.mtcnn.pyramid import pyramid_levels

NETWORKS = ("pnet", "rnet", "onet")


def test_samples_are_what_the_networks_are_given(cascade: Cascade) -> None:
    images = [astronaut(), crowd(6, 4, 30).image, np.zeros((8, 8, 3), np.uint8)]
    samples = harvest(images, cascade.networks)
    for name, side in (("pnet", 256), ("rnet", 24), ("onet", 48)):
        array = getattr(samples, name)
        assert array.dtype == np.uint8
        assert array.shape[1:] == (side, side, 3)
        assert 2 <= len(array) <= 2 * PER_IMAGE[name]
    assert samples.images == 3
    again = harvest(images, cascade.networks)
    assert all((getattr(samples, n) == getattr(again, n)).all() for n in NETWORKS)
    assert again.faces == samples.faces


@pytest.mark.parametrize("images", [[], [np.zeros((60, 60, 3), np.uint8)]])
def test_pictures_without_faces_cannot_calibrate(
    images: list[UInt8Array], cascade: Cascade
) -> None:
    with pytest.raises(InvalidImage, match="no face"):
        harvest(images, cascade.networks)


class _Spy:
    """A network that remembers what it was shown."""

    def __init__(self, network: Network) -> None:
        self.network, self.max_batch = network, network.max_batch
        self.shown: list[UInt8Array] = []

    def __call__(self, images: UInt8Array) -> dict[str, FloatArray]:
        self.shown += list(images.copy())
        return self.network(images)

    def close(self) -> None:
        pass


def test_samples_are_byte_for_byte_what_a_detection_shows_the_networks(cascade: Cascade) -> None:
    image = compose(700, 500, [(10, 10, 26), (200, 10, 60), (380, 10, 150)]).image
    networks = cascade.networks
    spies = {name: _Spy(getattr(networks, name)) for name in NETWORKS}
    Cascade(Networks(**spies, backend="tflite", precision="fp32")).detect(image)
    samples = harvest([image], networks)
    for name in ("rnet", "onet"):
        shown = {crop.tobytes() for crop in spies[name].shown}
        assert {crop.tobytes() for crop in getattr(samples, name)} <= shown
    # Between its tiles, where no cell counts, a page of a detection has what an earlier one left.
    pages = list(zip(tiled_pages(700, 500), spies["pnet"].shown, strict=True))
    for sample in samples.pnet:
        assert any(
            all((sample[part] == page[part]).all() for part in parts) for parts, page in pages
        )


def tiled_pages(width: int, height: int) -> list[list[tuple[slice, slice]]]:
    """Return the rows and columns of the tiles of each page."""
    return [
        [(slice(t.page_y, t.page_y + t.height), slice(t.page_x, t.page_x + t.width)) for t in tiles]
        for tiles in plan_pages(tuple(pyramid_levels(width, height, 20, 0.709)))
    ]


def test_the_seed_decides_which_samples_are_kept(cascade: Cascade) -> None:
    image = crowd(8, 6, 30).image
    one, two = (harvest([image], cascade.networks, seed) for seed in (1, 2))
    assert one.rnet.shape == two.rnet.shape == (PER_IMAGE["rnet"], 24, 24, 3)
    assert (one.rnet != two.rnet).any()


# --- strata ---------------------------------------------------------------------------------------


def relit(image: UInt8Array, gain: float, shift: float) -> UInt8Array:
    return np.clip(image * gain + shift, 0, 255).round().astype(np.uint8)


def test_dark_bright_and_back_lit_faces_are_counted_as_such(cascade: Cascade) -> None:
    portrait = astronaut()
    dark, bright = relit(portrait, 0.25, 0), relit(portrait, 0.5, 130)
    head = relit(portrait[0:260, 90:350], 0.3, 10)
    back_lit = np.full((520, 620, 3), 235, np.uint8)
    back_lit[130:390, 180:440] = head
    for image, light in ((portrait, "evenly lit"), (dark, "dark"), (bright, "bright")):
        faces = harvest([image], cascade.networks).faces
        assert faces[light] == sum(faces.get(other, 0) for other in LIGHTS) == 1, light
    assert harvest([back_lit], cascade.networks).faces["back-lit"] >= 1


def test_faces_are_counted_by_size_light_and_sureness(cascade: Cascade) -> None:
    image = compose(900, 400, [(10, 10, 24), (120, 10, 50), (330, 10, 130)]).image
    samples = harvest([image], cascade.networks)
    faces = samples.faces
    assert faces.keys() <= set(KINDS)
    assert faces["20-40 px"] >= 1
    assert faces["over 80 px"] >= 1
    counts = [sum(faces.get(kind, 0) for kind in kinds) for kinds in (BANDS, LIGHTS, SURENESS)]
    assert counts[0] == counts[1] == counts[2] == len(cascade.detect(image)) >= 3


def test_rare_strata_are_kept_whole_while_the_usual_ones_are_thinned(
    cascade: Cascade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples_module, "PER_STRATUM", dict.fromkeys(SHAPES, 3))
    usual = [crowd(7, 5, 30).image, crowd(6, 5, 32).image, crowd(6, 4, 34).image]
    dark = relit(astronaut(), 0.25, 0)
    thinned = harvest([*usual, dark], cascade.networks)
    alone = harvest([dark], cascade.networks)
    kept = {crop.tobytes() for crop in thinned.onet}
    shown = {crop.tobytes() for crop in alone.onet}
    assert kept & shown
    # Nothing usual drowned it: every stratum has three at most, so the dark ones weigh much more.
    whole = {len(getattr(thinned, name)) for name in NETWORKS}
    assert max(whole) <= 3 * 4 * 4 * 3
    share = len(kept & shown) / len(kept)
    monkeypatch.undo()
    everything = {crop.tobytes() for crop in harvest([*usual, dark], cascade.networks).onet}
    assert share > len(everything & shown) / len(everything)


def test_one_crowd_does_not_outweigh_the_other_pictures(cascade: Cascade) -> None:
    mob, portrait = crowd(12, 8, 26).image, astronaut()
    both, alone = (harvest(images, cascade.networks) for images in ([mob, portrait], [portrait]))
    for name in ("rnet", "onet"):
        crowded = len(getattr(both, name)) - len(getattr(alone, name))
        assert crowded == PER_IMAGE[name]


def test_doubtful_crops_are_in(cascade: Cascade) -> None:
    samples = harvest([crowd(6, 4, 30).image, astronaut()], cascade.networks)
    logits = cascade.networks.rnet(samples.rnet)["logit"]
    assert (logits < -samples_module.HARD).any()
    assert (logits > samples_module.HARD).any()
    assert (np.abs(logits) < samples_module.HARD).any()


@given(st.lists(st.integers(0, 3), max_size=80), st.integers(1, 9))
def test_a_stratum_keeps_all_it_may_and_only_its_own(strata: list[int], most: int) -> None:
    keeper = samples_module._Strata(most, np.random.default_rng(0))
    for index, stratum in enumerate(strata):
        keeper.add(stratum, np.full((2, 2, 3), index, np.uint8))
    kept = keeper.array((2, 2, 3))[:, 0, 0, 0].tolist()
    assert len(set(kept)) == len(kept)
    by_stratum = [strata[index] for index in kept]
    assert by_stratum == sorted(by_stratum)
    for stratum in set(strata):
        assert by_stratum.count(stratum) == min(most, strata.count(stratum))


def test_late_arrivals_are_kept_as_often_as_early_ones() -> None:
    times = np.zeros(40, int)
    for seed in range(400):
        keeper = samples_module._Strata(10, np.random.default_rng(seed))
        for index in range(40):
            keeper.add(0, np.full((1, 1, 3), index, np.uint8))
        times[keeper.array((1, 1, 3))[:, 0, 0, 0]] += 1
    assert times.sum() == 4000
    assert np.abs(times - 100).max() < 45  # five standard deviations


# --- what is lacking ------------------------------------------------------------------------------


def made(images: int = 3, faces: dict[str, int] | None = None) -> Samples:
    rng = np.random.default_rng(1)
    arrays = {n: rng.integers(0, 256, (2, *s), dtype=np.uint8) for n, s in SHAPES.items()}
    return Samples(**arrays, images=images, faces=faces or {})


def test_enough_pictures_of_all_kinds_lack_nothing() -> None:
    assert made(FEW_IMAGES, dict.fromkeys(KINDS, FEW_FACES)).lacks() == []


def test_what_pictures_lack_is_said_in_sentences() -> None:
    faces = {**dict.fromkeys(KINDS, FEW_FACES), "dark": FEW_FACES - 1}
    assert made(99, faces).lacks() == [
        "99 pictures are few: 100 to 500 are wanted",
        "19 dark faces are few: at least 20 are wanted",
    ]
    everything = made(0).lacks()
    assert len(everything) == 1 + len(KINDS)
    for kind in KINDS:
        assert f"0 {kind} faces are few: at least 20 are wanted" in everything


# --- files ----------------------------------------------------------------------------------------


def test_samples_survive_the_file(tmp_path: Path) -> None:
    samples = made(5, {"dark": 3, "20-40 px": 7})
    write_samples(samples, tmp_path / "any.name")  # np.savez would add .npz
    again = read_samples(tmp_path / "any.name")
    assert all((getattr(again, n) == getattr(samples, n)).all() for n in NETWORKS)
    assert (again.images, again.faces) == (5, {"dark": 3, "20-40 px": 7})


class Bomb:
    """An object whose unpickling would be seen."""

    exploded = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _explode, ()


def _explode() -> str:
    Bomb.exploded = True
    return "exploded"


def arrays() -> dict[str, NDArray[Any]]:
    samples = made()
    return {**{n: getattr(samples, n) for n in NETWORKS}, "images": np.int64(3)}


def foreign(path: Path, kind: str) -> None:
    fields = arrays()
    if kind == "an array":
        with path.open("wb") as file:
            np.save(file, fields["rnet"])
    elif kind == "a pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif kind == "an archive of texts":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("pnet", "no array")
    elif kind == "text":
        path.write_text("pnet rnet onet")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "a folder":
        path.mkdir()
    elif kind == "cut":
        write_samples(made(), path)
        path.write_bytes(path.read_bytes()[:-200])
    elif kind != "missing":
        changes: dict[str, Any] = {
            "pickled arrays": {"rnet": np.array([Bomb()], object)},
            "pickled counts": {"images": np.array(Bomb(), object)},
            "counts in a list": {"images": np.arange(3)},
            "floats": {"onet": fields["onet"].astype(np.float32)},
            "crops of another size": {"rnet": fields["onet"]},
            "grey crops": {"rnet": fields["rnet"][..., :1]},
            "one crop": {"rnet": fields["rnet"][0]},
            "no crops": {"onet": fields["onet"][:0]},
            "a number": {"pnet": np.uint8(3)},
        }
        fields |= changes.get(kind, {})
        if kind == "a missing network":
            del fields["pnet"]
        if kind == "no count":
            del fields["images"]
        with path.open("wb") as file:
            np.savez(file, allow_pickle=True, **fields)


@pytest.mark.parametrize(
    "kind",
    [
        *("missing", "a folder", "empty", "text", "cut", "an array", "an archive of texts"),
        *("a pickle", "pickled arrays", "pickled counts", "counts in a list", "no count"),
        *("floats", "crops of another size", "grey crops", "one crop", "no crops", "a number"),
        "a missing network",
    ],
)
def test_a_file_that_holds_no_samples_is_refused_and_never_unpickled(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "samples.npz"
    foreign(path, kind)
    with pytest.raises(InvalidOption, match=r"samples\.npz.*write them"):
        read_samples(path)
    assert not Bomb.exploded


def test_the_bomb_would_be_seen() -> None:
    assert pickle.loads(pickle.dumps(Bomb())) == "exploded"  # noqa: S301
    assert Bomb.exploded
    Bomb.exploded = False


@pytest.mark.filterwarnings("ignore")  # of numpy, about headers that it repairs
@given(st.data())
@settings(max_examples=80, deadline=None)
def test_damage_anywhere_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "samples.npz"
    small = made(2, {"dark": 1})
    flat = {n: np.zeros((1, *SHAPES[n]), np.uint8) for n in NETWORKS}
    write_samples(Samples(**flat, images=2, faces=small.faces), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        again = read_samples(path)
    except InvalidOption:
        return
    assert all((getattr(again, n) == flat[n]).all() for n in NETWORKS)


# --- pictures -------------------------------------------------------------------------------------


def test_pictures_of_a_folder_are_read_as_rgb_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    red, blue = (np.full((8, 9, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    cv2.imwrite(str(tmp_path / "more" / "b.png"), red[..., ::-1])
    cv2.imwrite(str(tmp_path / "a.png"), blue[..., ::-1])
    (tmp_path / "notes.txt").write_text("no picture")
    first, second = read_images(find_images([tmp_path]))
    assert (first == blue).all()
    assert (second == red).all()
    one, two, three = read_images(find_images([tmp_path / "more" / "b.png", tmp_path]))
    assert (one == red).all()
    assert (two == blue).all()
    assert (three == red).all()
    assert [file.name for file in find_images([tmp_path])] == ["a.png", "b.png", "notes.txt"]


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="nothing does not exist"):
        find_images([tmp_path, tmp_path / "nothing"])
