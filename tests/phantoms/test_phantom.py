"""The phantoms are data for tests, so their own tests ask for anatomy: what lies where, and how bright it is."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from anatogen.data.prepare import PrepareSettings, fingerprint, prepare
from anatogen.data.sources import open_source
from anatogen.data.sources.phantom import COHORTS, detect
from anatogen.errors import SettingsError
from anatogen.phantoms.ct_organ import Patient
from anatogen.phantoms.shapes import Canvas, coverage, ellipsoid, grow_tree, smooth_field
from anatogen.seeds import derive_seed
from anatogen.volume import Volume, same_grid

CT, MRI = "phantom:ct-organ", "phantom:breast-mri"
LIVER, BLADDER, LUNGS, KIDNEYS, BONE = 1, 2, 3, 4, 5
BREAST, VESSELS, GLAND = 1, 2, 3


@cache
def patient(location: str, number: int) -> tuple[Volume, Volume]:
    return open_source(location).cases[number].load()


def places(labels: Volume, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """RAS millimetres (N, 3) of the voxels of `mask`: to the patient's right, to anterior, to superior is positive."""
    return np.argwhere(mask) @ labels.affine[:3, :3].T + labels.affine[:3, 3]


@pytest.mark.parametrize(
    ("location", "names", "channel"),
    [
        (CT, ("liver", "bladder", "lungs", "kidneys", "bone"), "CT"),
        (MRI, ("breast", "blood vessels", "fibroglandular tissue"), "T1 MRI"),
    ],
)
def test_the_cohort_is_declared_as_what_it_is(location: str, names: tuple[str, ...], channel: str) -> None:
    source = open_source(location)
    assert source.schema.names == names and source.channels == (channel,)
    assert len(source.cases) == 40 == len({case.patient for case in source.cases})
    assert all(case.id.startswith("phantom-") and case.split is None for case in source.cases)
    assert (
        "phantom" in source.notice.lower() and "not evidence" in source.notice and "drawn by a program" in source.notice
    )


@pytest.mark.parametrize("location", [CT, MRI])
def test_a_patient_depends_on_seed_and_number_alone(location: str) -> None:
    forwards, backwards = open_source(location + "?patients=3"), open_source(location + "?seed=0&patients=5")
    second = [a.array for a in backwards.cases[2].load()]
    backwards.cases[0].load()
    assert backwards.cases[2].id == forwards.cases[2].id
    for a, b in zip(second, forwards.cases[2].load(), strict=True):
        assert np.array_equal(a, b.array)
    assert not np.array_equal(second[0], backwards.cases[1].load()[0].array)
    other = open_source(location + "?patients=3&seed=1")
    assert not np.array_equal(second[0], other.cases[2].load()[0].array)
    assert fingerprint(other) != fingerprint(forwards)


@pytest.mark.parametrize("location", [CT, MRI])
@pytest.mark.parametrize("number", range(4))
def test_every_case_is_a_sound_pair(location: str, number: int) -> None:
    image, labels = patient(location, number)
    assert same_grid(image, labels) and image.array.dtype == np.int16 and labels.array.dtype == np.uint8
    assert set(np.unique(labels.array)) == set(range(open_source(location).schema.count))
    assert np.allclose(image.affine @ [*(np.array(image.grid) - 1) / 2, 1], [0, 0, 0, 1])


@pytest.mark.parametrize("number", range(4))
def test_hounsfield_units_are_those_of_the_tissues(number: int) -> None:
    image, labels = patient(CT, number)
    medians = [float(np.median(image.array[labels.array == value])) for value in range(6)]
    air, liver, bladder, lungs, kidneys, bone = medians
    assert air < -950 and -920 < lungs < -780
    assert -10 < bladder < 90 and 40 < liver < 130 and 20 < kidneys < 220
    assert 250 < bone < 1200 and bone > max(liver, kidneys, bladder)
    assert image.array.min() >= -1024 and image.array.max() <= 3071
    inside = ndimage.binary_erosion(labels.array == LIVER, iterations=3)
    assert 4 < image.array[inside].std() < 45  # noise and texture
    beside = np.corrcoef(image.array[:-1][inside[1:]], image.array[1:][inside[1:]])[0, 1]
    assert beside > 0.2  # the noise has grain


@pytest.mark.parametrize("number", range(4))
def test_organs_lie_where_they_lie_in_people(number: int) -> None:
    _, labels = patient(CT, number)
    organ = {value: places(labels, labels.array == value) for value in range(1, 6)}
    centre = {value: at.mean(axis=0) for value, at in organ.items()}
    assert centre[LIVER][0] > 20  # to the patient's right
    assert centre[LUNGS][2] > centre[LIVER][2] > centre[BLADDER][2]
    top_of_right_dome = organ[LIVER][:, 2].max()
    assert organ[LUNGS][:, 2].min() < top_of_right_dome < centre[LUNGS][2] + 20  # the dome rises into the lung
    assert organ[KIDNEYS][:, 2].min() > organ[BLADDER][:, 2].max()
    assert centre[KIDNEYS][1] < centre[LIVER][1] and centre[KIDNEYS][1] < centre[BLADDER][1]  # retroperitoneal
    assert (organ[LUNGS][:, 0] < 0).mean() == pytest.approx(0.5, abs=0.15)


def test_bone_is_a_skeleton() -> None:
    _, labels = patient(CT, 1)
    bone = places(labels, labels.array == BONE)
    _, heights = np.unique(bone[:, 2].round(3), return_counts=True)
    assert len(heights) == labels.grid[2]  # bone in every axial slice
    spine = np.abs(bone[:, 0]) < 35
    assert (bone[spine][:, 1] < 0).mean() > 0.7  # the spine is behind
    lungs = places(labels, labels.array == LUNGS)
    chest = bone[(bone[:, 2] > lungs[:, 2].min()) & (bone[:, 2] < lungs[:, 2].max())]
    assert np.abs(chest[:, 0]).max() > np.abs(lungs[:, 0]).max()  # the ribs enclose the lungs


def test_patients_differ() -> None:
    volumes, spacings = [], []
    for number in range(10):
        _, labels = patient(CT, number)
        millilitres = np.prod(labels.spacing_mm) / 1000
        volumes.append(np.bincount(labels.array.ravel(), minlength=6)[1:] * millilitres)
        spacings.append(labels.spacing_mm)
    liver, bladder, lungs, kidney, bone = np.array(volumes).T
    assert 800 < np.median(liver) < 2000 and 2000 < np.median(lungs) < 6000 and 180 < np.median(kidney) < 450
    for organ in (liver, bladder, lungs, kidney, bone):
        assert organ.min() > 0 and organ.std() / organ.mean() > 0.1
    assert bladder.max() / bladder.min() > 4
    assert len(set(spacings)) == 10


def test_some_patients_have_one_kidney() -> None:
    def sides(number: int) -> tuple[bool, bool]:
        return Patient.draw(np.random.default_rng(derive_seed("phantom", "ct-organ", 0, number))).kidneys

    both = [sides(number) for number in range(1, 401)]
    assert 10 < sum(both_there != (True, True) for both_there in both) < 60
    assert (False, False) not in both
    for left, right in ((True, False), (False, True), (True, True)):
        number = both.index((left, right)) + 1
        _, labels = open_source(f"{CT}?patients={number}").cases[-1].load()
        to_right = places(labels, labels.array == KIDNEYS)[:, 0]
        assert (to_right < -20).any() == left and (to_right > 20).any() == right


@pytest.mark.parametrize("number", range(4))
def test_breasts_hang_from_the_chest_wall(number: int) -> None:
    image, labels = patient(MRI, number)
    breast = places(labels, labels.array > 0)
    assert (breast[:, 0] < 0).mean() == pytest.approx(0.5, abs=0.15)  # two of them
    lungs_side = image.array[labels.array == 0]
    air, fat, vessel, gland = (
        np.median(v) for v in (lungs_side, *(image.array[labels.array == value] for value in (BREAST, VESSELS, GLAND)))
    )
    assert image.array.min() >= 0 and air < fat < min(gland, vessel)
    first = np.array([places(labels, labels.array == value)[:, 1].max() for value in (BREAST, VESSELS, GLAND)])
    assert first[0] >= first[1:].max() - 3  # skin and fat in front of what is inside
    body = places(labels, image.array > 0.5 * fat)
    assert np.median(breast[:, 1]) > np.median(body[:, 1])  # anterior


def test_breasts_differ_in_density_vessels_and_intensity_units() -> None:
    shares, gains = [], []
    for number in range(20):
        image, labels = patient(MRI, number)
        counts = np.bincount(labels.array.ravel(), minlength=4)[1:]
        shares.append(counts / counts.sum())
        gains.append(np.median(image.array[labels.array == BREAST]))
    _, vessels, gland = np.array(shares).T
    assert gland.min() < 0.05 and gland.max() > 0.25
    assert vessels.min() > 0 and vessels.max() > 3 * vessels.min()
    assert max(gains) > 4 * min(gains)


def test_magnitude_noise_is_rician() -> None:
    """In air the magnitude of complex Gaussian noise has mean over standard deviation sqrt(pi / (4 - pi)) = 1.91."""
    image, _ = patient(MRI, 0)
    air = image.array[:, :8, :].astype(float)  # in front of the patient
    assert air.mean() / air.std() == pytest.approx(1.91, abs=0.1)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("phantom:ct-organs", "Did you mean 'phantom:ct-organ'"),
        ("phantom:", "Did you mean 'phantom:ct-organ' or 'phantom:breast-mri'"),
        ("phantom:ct-organ?patient=3", "Did you mean 'patients'"),
        ("phantom:ct-organ?patients=", "patients is '', not a whole number"),
        ("phantom:ct-organ?patients=many", "not a whole number"),
        ("phantom:ct-organ?patients=-3", "not a whole number"),
        ("phantom:ct-organ?patients=2.5", "not a whole number"),
        ("phantom:ct-organ?patients=0", "0 patients are out of range"),
        ("phantom:ct-organ?patients=1000000", "1000000 patients are out of range"),
        ("phantom:ct-organ?patients=" + "9" * 5000, "not a whole number"),
        ("phantom:ct-organ?patients=²", "not a whole number"),
        ("phantom:ct-organ?seed=1&seed=2", "'seed' is given twice"),
        ("phantom:ct-organ?patients", "not a whole number"),
        ("phantom:ct-organ?=3", "no setting ''"),
    ],
)
def test_bad_locations(location: str, message: str) -> None:
    assert detect(location)
    with pytest.raises(SettingsError) as caught:
        open_source(location)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_count_is_what_was_asked_for() -> None:
    assert len(open_source("phantom:breast-mri?patients=7&seed=3").cases) == 7
    assert len(open_source("phantom:breast-mri?").cases) == 40
    assert not detect("some/folder/phantom")


@pytest.mark.parametrize("name", COHORTS)
def test_prepared_data_say_that_they_are_a_phantom(name: str, tmp_path: Path) -> None:
    source = open_source(f"phantom:{name}?patients=4")
    dataset = prepare(source, tmp_path / "out", PrepareSettings((64, 64)))
    assert dataset.info.notice == source.notice
    assert all(row.id.startswith("phantom-") for row in dataset.rows)
    assert {row.split for row in dataset.rows} == {"train", "heldout", "val", "test"}
    if name == "ct-organ":  # as it is displayed: the liver in the picture's left half, above the spine's row
        shown = [dataset.load([row]).labels[0].numpy() for row in dataset.rows]
        liver = [np.argwhere(s == LIVER)[:, 1].mean() for s in shown if (s == LIVER).sum() > 30]
        assert np.mean(liver) < 30


def canvas(spacing: float = 2.0) -> Canvas:
    grid = (40, 40, 40)
    return Canvas.blank(grid, (spacing,) * 3, (0.0, 0.0, 0.0), 0.0, [np.zeros(grid, np.float32)] * 3)


def test_solids_have_their_volumes_and_views_paint_on_the_whole() -> None:
    whole = canvas()
    part = whole.around((5.0, -4.0, 3.0), 16.0)
    assert part.values.size < whole.values.size
    part.paint(ellipsoid(part, (5.0, -4.0, 3.0), (12.0, 9.0, 15.0), (0.4, -0.3, 0.7)) < 1, 7.0, 2)
    assert (whole.labels == 2).sum() * 8 == pytest.approx(4 / 3 * np.pi * 12 * 9 * 15, rel=0.03)
    assert set(np.unique(whole.values)) == {0.0, 7.0} and ((whole.values == 7) == (whole.labels == 2)).all()


def test_tubes_fill_what_a_cylinder_fills() -> None:
    rng = np.random.default_rng(0)
    tree = grow_tree(rng, (-30.0, 0.0, 0.0), (1.0, 0.0, 0.0), length=40, radius=4, generations=1, wander=0)
    filled = coverage(rng, canvas(), [tree])
    length = np.linalg.norm(tree.end - tree.start, axis=1).sum()
    assert filled.max() <= 1 and filled.sum() * 8 == pytest.approx(np.pi * 16 * length, rel=0.2)
    many = grow_tree(rng, (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), length=10, radius=2, generations=4)
    assert len(many.radius) == 3 * (1 + 2 + 4 + 8) and many.radius.min() == pytest.approx(2 * 0.75**3)


def test_smooth_fields_are_smooth_and_of_unit_variance() -> None:
    field = smooth_field(np.random.default_rng(0), (120, 120, 120), (2.0, 2.0, 2.0), 12.0)
    assert abs(field.mean()) < 0.1 and field.std() == pytest.approx(1, abs=0.1)
    assert np.abs(np.diff(field, axis=1)).std() < 0.3
    far = np.corrcoef(field[:-40].ravel(), field[40:].ravel())[0, 1]
    assert abs(far) < 0.1
