import json
import math
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from anatogen.data.foreign_maps import Window, bring, maps_from_dataset
from anatogen.data.matching import given_states, match_classes, parse_renames
from anatogen.data.placement import typical_spacing
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, SettingsError
from anatogen.labels import ClassStates, LabelSchema
from anatogen.model import ModelSpec

# ---- classes


def test_names_come_first_then_names_up_to_case_and_separators() -> None:
    ours = LabelSchema.from_names(["liver", "Left Kidney", "spleen", "aorta"])
    theirs = LabelSchema.from_names(["spleen", "bone", "left_kidney", "liver", "LIVER"])
    match = match_classes(ours, theirs)
    assert match.matched == ("liver", "Left Kidney", "spleen")
    assert match.missing == ("aorta",)
    assert match.unknown == ("bone", "LIVER")
    assert match.table.tolist() == [0, 3, 0, 2, 1, 0]
    assert match.apply(np.array([[0, 1, 2], [3, 4, 5]])).tolist() == [[0, 3, 0], [2, 1, 0]]
    assert match.summary() == (
        "classes matched: liver, Left Kidney (theirs: left_kidney), spleen; free, because the label maps lack them: "
        "aorta; left out, because the model lacks them: bone, LIVER"
    )


def test_renames_merge_parts_and_go_before_names() -> None:
    ours = LabelSchema.from_names(["kidneys", "liver", "spleen"])
    theirs = LabelSchema.from_names(["left kidney", "right kidney", "liver", "hepar+", "spleen"])
    renames = parse_renames(["kidneys = left kidney + right kidney", "liver=hepar+"])
    match = match_classes(ours, theirs, renames)
    assert match.table.tolist() == [0, 1, 1, 0, 2, 3]
    assert match.unknown == ("liver",)
    assert given_states(match, ["left kidney", "right kidney", "spleen"]) == ClassStates((True, False, True))
    assert given_states(match, ["left kidney", "hepar+", "liver"]) == ClassStates((False, True, False))


def test_a_class_that_is_renamed_away_leaves_its_namesake_free() -> None:
    ours = LabelSchema.from_names(["tumour", "lesion"])
    match = match_classes(ours, LabelSchema.from_names(["lesion"]), {"tumour": "lesion"})
    assert (match.matched, match.missing, match.table.tolist()) == (("tumour",), ("lesion",), [0, 1])


@pytest.mark.parametrize(
    ("renames", "message"),
    [
        ({"livr": "hepar"}, "the model has no class 'livr'. Did you mean 'liver'?"),
        ({"liver": "hepr"}, "the label maps have no class 'hepr'. Did you mean 'hepar'?"),
        ({"liver": "hepar", "spleen": "lien+hepar"}, "'hepar' is matched with both 'liver' and 'spleen'"),
        ({"liver": "+"}, "'liver=+' matches nothing"),
        (
            None,
            "(hepar, lien) matches one of the model's (liver, spleen). Match them with --rename, for instance "
            "--rename 'OURS=THEIRS'.",
        ),
    ],
)
def test_wrong_matches_name_the_hint(renames: dict[str, str] | None, message: str) -> None:
    ours, theirs = LabelSchema.from_names(["liver", "spleen"]), LabelSchema.from_names(["hepar", "lien"])
    with pytest.raises(SettingsError) as caught:
        match_classes(ours, theirs, renames)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_alike_offers_the_nearest_pair() -> None:
    ours, theirs = (
        LabelSchema.from_names(["bone", "livers"]),
        LabelSchema.from_names(["skin", "Liver tissue", "liver-"]),
    )
    with pytest.raises(SettingsError, match="--rename 'livers=liver-'"):
        match_classes(ours, theirs)


def test_two_ways_to_match_are_refused_until_one_is_said() -> None:
    ours, theirs = LabelSchema.from_names(["left lung"]), LabelSchema.from_names(["Left-Lung", "left_lung"])
    with pytest.raises(SettingsError, match="in several ways. Choose one, for instance --rename 'left lung=Left-Lung'"):
        match_classes(ours, theirs)
    assert match_classes(ours, theirs, {"left lung": "left_lung"}).table.tolist() == [0, 0, 1]
    with pytest.raises(SettingsError, match="in several ways"):
        match_classes(theirs, ours)


@pytest.mark.parametrize("texts", [["liver"], ["=liver"], ["liver="], ["liver=a", "liver=b"]])
def test_renames_that_say_nothing(texts: list[str]) -> None:
    with pytest.raises(SettingsError, match="Write|expected OURS=THEIRS"):
        parse_renames(texts)


def test_undeclared_values_are_refused() -> None:
    match = match_classes(LabelSchema.from_names(["liver"]), LabelSchema.from_names(["liver"]))
    with pytest.raises(DataError, match="contains label 7, but only classes 0 to 1 are declared"):
        match.apply(np.array([0, 7]))


# ---- geometry


def ball(
    shape: tuple[int, ...], spacing: tuple[float, ...], radius: float, centre: tuple[float, ...] = ()
) -> np.ndarray:
    """A ball of `radius` mm around `centre` (mm from the grid's middle) in a shell of twice that radius, on a grid."""
    axes = [(np.arange(n) + 0.5 - n / 2) * s for n, s in zip(shape, spacing)]
    place = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) - np.array(centre or (0.0,) * len(shape))
    distance = np.linalg.norm(place, axis=-1)
    return 2 * (distance < radius).astype(np.int64) + ((distance >= radius) & (distance < 2 * radius))


def middle_mm(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """The centre of `mask` in mm from the grid's middle."""
    return (np.argwhere(mask).mean(axis=0) + 0.5 - np.array(mask.shape) / 2) * spacing


@pytest.mark.parametrize(
    ("shape", "spacing", "to"),
    [
        ((90, 120), (1.0, 1.0), (1.5, 1.5)),
        ((90, 121), (1.0, 0.7), (2.0, 2.0)),
        ((64, 64), (2.0, 2.0), (1.0, 1.3)),
        ((40, 30), (3.1, 4.0), (1.2, 1.2)),
    ],
)
def test_a_disc_keeps_its_area_and_its_place(
    shape: tuple[int, int], spacing: tuple[float, float], to: tuple[float, float]
) -> None:
    areas, moves = [], []
    for centre in np.random.default_rng(0).uniform(-4, 4, (12, 2)):  # a single disc's area hangs on how the grids meet
        labels = ball(shape, spacing, 16, tuple(centre))
        brought, _ = bring(labels, spacing, (96, 96), to)
        assert brought.shape == (96, 96) and brought.dtype == np.int64
        for mask, drawn, radius in ((brought == 2, labels == 2, 16), (brought > 0, labels > 0, 32)):
            areas.append(mask.sum() * to[0] * to[1] / (math.pi * radius**2))
            moves.append(middle_mm(mask, to) - middle_mm(drawn, spacing))
    assert np.all(np.abs(np.mean(moves, axis=0)) < 0.25 * np.array(to))
    assert np.mean(areas) == pytest.approx(1, abs=0.03)
    assert np.ptp(areas) < 0.12


def test_a_ball_keeps_its_volume() -> None:
    spacing, to = (2.5, 1.0, 1.0), (1.5, 1.5, 1.5)
    brought, _ = bring(ball((20, 60, 50), spacing, 10), spacing, (40, 40, 40), to)
    assert (brought > 0).sum() * 1.5**3 == pytest.approx(4 / 3 * math.pi * 20**3, rel=0.03)
    assert np.abs(middle_mm(brought == 2, to)).max() < 0.25


@pytest.mark.parametrize(("own", "to"), [(2.7, 1.0), (1.0, 1.7), (1.0, 2.0)])
def test_outlines_are_truer_than_nearest_neighbours(own: float, to: float) -> None:
    spacing, rough, blocky = (own, own), 0, 0
    for radius in np.linspace(12, 20, 9):
        n, m = round(96 / own), round(96 / to)
        labels, true = ball((n, n), spacing, radius, (0.3, 0.1)), ball((m, m), (to, to), radius, (0.3, 0.1))
        index = np.floor((np.arange(m) + 0.5 - m / 2) * to / own + n / 2).astype(int).clip(0, n - 1)
        rough += (bring(labels, spacing, (m, m), (to, to))[0] != true).sum()
        blocky += (labels[np.ix_(index, index)] != true).sum()
    assert rough < 0.9 * blocky


def test_equal_shares_neither_grow_nor_shrink_a_wall() -> None:
    kept = 0
    for column in (4, 5):
        labels = np.zeros((16, 16), int)
        labels[:, column] = 1
        kept += bring(labels, (1.0, 1.0), (8, 8), (2.0, 2.0))[0].sum() * 4
    assert kept == 2 * 16


def test_the_same_geometry_changes_nothing() -> None:
    labels = np.random.default_rng(0).integers(0, 5, (20, 31))
    brought, window = bring(labels, (0.8, 1.2), (20, 31), (0.8, 1.2004))
    assert np.array_equal(brought, labels)
    assert (window.scale, window.offset) == ((1, 1), (0, 0))


def test_equal_pixels_are_moved_not_resampled() -> None:
    labels = np.random.default_rng(0).integers(1, 5, (7, 10))
    brought, _ = bring(labels, (1, 1), (12, 8), (1, 1), most_cut=1)
    assert np.array_equal(brought[2:9], labels[:, 1:9])
    assert not brought[:2].any() and not brought[9:].any()


def test_anatomy_off_the_middle_is_brought_into_view() -> None:
    labels = ball((100, 100), (1.0, 1.0), 5, (0.0, 35.0))
    brought, window = bring(labels, (1.0, 1.0), (40, 40), (1.0, 1.0))
    assert (brought > 0).sum() == (labels > 0).sum()
    assert middle_mm(brought > 0, (1, 1)).tolist() == [0, 0]
    assert window.reach == [(30, 70), (65, 105)]  # moved along the axis that needs it


def test_a_stray_pixel_does_not_move_the_view() -> None:
    labels = ball((100, 100), (1.0, 1.0), 9)
    labels[0, 0] = 1
    brought, window = bring(labels, (1.0, 1.0), (40, 40), (1.0, 1.0))
    assert window.reach == [(30, 70), (30, 70)]
    assert (brought > 0).sum() == (labels > 0).sum() - 1


def test_anatomy_that_does_not_fit_is_refused_or_shrunk() -> None:
    labels = ball((100, 80), (1.0, 1.0), 20)
    with pytest.raises(DataError) as caught:
        bring(labels, (1.0, 1.0), (32, 32), (2.0, 2.0))
    message = str(caught.value)
    assert "measures 80 x 80 mm, but the model's images 64 x 64 mm" in message
    assert "% of it would be cut off (at most 1 % may be). Shrink it with --fit pad" in message and "\n" not in message
    shrunk, window = bring(labels, (1.0, 1.0), (32, 32), (2.0, 2.0), fit="pad")
    assert window.scale == (2.5, 2.5)
    assert (shrunk > 0).sum() * 2.5**2 == pytest.approx(math.pi * 40**2, rel=0.03)
    share = (
        1 - (bring(labels, (1.0, 1.0), (32, 32), (2.0, 2.0), most_cut=1)[0] > 0).sum() * 4 / (labels > 0).sum()
    ) * 100
    assert float(message.split(", so ")[1].split(" %")[0]) == pytest.approx(share, abs=1)


def test_pad_shrinks_nothing_that_fits() -> None:
    labels = ball((50, 50), (1.0, 1.0), 10)
    for fit in ("crop", "pad"):
        assert bring(labels, (1.0, 1.0), (64, 64), (1.0, 1.0), fit=fit)[1].scale == (1, 1)


@pytest.mark.parametrize("spacings", [(None, (1.0, 1.0)), ((1.0, 1.0), None), (None, None)])
def test_unknown_pixel_sizes_keep_the_aspect_ratio(spacings: Sequence[tuple[float, float] | None]) -> None:
    wide = bring(np.ones((50, 100), int), spacings[0], (40, 40), spacings[1])[0]
    assert wide[10:30].all() and not wide[:10].any() and not wide[30:].any()
    small = bring(np.ones((10, 20), int), spacings[0], (40, 40), spacings[1])[0]
    assert small.sum() == 200 and small[15:25, 10:30].all()


def test_an_empty_map_stays_empty() -> None:
    assert not bring(np.zeros((9, 9), int), (1.0, 1.0), (16, 16), (0.3, 0.3))[0].any()


@pytest.mark.parametrize(
    ("shape", "spacing", "message"), [((4, 9, 9), (1.0, 1.0, 1.0), "--dim"), ((9, 9), (0.0, 1.0), "invalid pixel size")]
)
def test_geometry_without_sense(shape: tuple[int, ...], spacing: tuple[float, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        bring(np.ones(shape, int), spacing, (9, 9), (1.0, 1.0))


def test_a_window_counts_several_maps_of_one_grid() -> None:
    counts = np.array([[0, 8, 0, 2]])
    window = Window.plan(counts, (1, 1), (1, 2), (1, 1), most_cut=0.5)
    assert window.cut(counts) == pytest.approx(0.2)


# ---- data sets


def write_elsewhere(
    folder: Path, spacing: tuple[float, float, float], annotated: dict[str, list[str]] | None = None
) -> Path:
    """Two cases whose core and ball (both of known size in mm) bear other values and names, with a surplus class."""
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    shape = tuple(round(80 / s) for s in spacing)
    for name, centre in (("a", (0.0, 0.0, 0.0)), ("b", (20.0, 0.0, 0.0))):
        drawn = ball(shape, spacing, 8, centre)
        labels = np.array([0, 3, 1])[drawn].astype(np.uint8)  # shell 3, core 1
        labels[:2, :2] = 2
        affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
        image = (labels * 100).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(image, affine), folder / "imagesTr" / f"{name}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels, affine), folder / "labelsTr" / f"{name}.nii.gz")
    description = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "CORE": 1, "corner": 2, "outer_shell": 3},
        "numTraining": 2,
        "file_ending": ".nii.gz",
        **({"annotated_classes": annotated} if annotated else {}),
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def prepared(raw: Path, out: Path, size: tuple[int, ...], axis: str = "axial") -> PreparedDataset:
    return prepare(open_source(str(raw)), out, PrepareSettings(size, axis, shares={"train": 1.0}, keep_names=True))


OURS = LabelSchema.from_names(["outer shell", "vessel", "core"])


def test_maps_of_another_data_set(tmp_path: Path) -> None:
    raw = write_elsewhere(
        tmp_path / "raw", (1.0, 1.0, 4.0), {"a": ["CORE", "corner", "outer_shell"], "b": ["outer_shell"]}
    )
    theirs = prepared(raw, tmp_path / "theirs", (96, 96))
    rows = theirs.split("train")
    found = list(maps_from_dataset(theirs, rows, ModelSpec(OURS, (40, 40), "axial", (1.25, 1.25))))
    assert {(row.case, states) for row, _, states in found} == {
        ("a", ClassStates((True, False, True))),
        ("b", ClassStates((True, False, False))),
    }
    # Only slices that show a given class: the shell reaches 16 mm either way in slices of 4 mm; b's core is not drawn.
    heights = {"a": set(), "b": set()}
    for row, labels, _ in found:
        z = (row.slice + 0.5 - 10) * 4
        heights[row.case].add(z)
        outer = 256 - z**2
        core = max(0.0, 64 - z**2)
        shell = outer - core
        assert labels.shape == (40, 40) and labels.dtype == np.int64
        assert set(np.unique(labels)) <= ({0, 1, 3} if row.case == "a" else {0, 1})
        assert (labels == 1).sum() * 1.25**2 == pytest.approx(math.pi * shell, rel=0.06)
        if row.case == "a" and core:
            assert (labels == 3).sum() * 1.25**2 == pytest.approx(math.pi * core, rel=0.1)
            assert np.abs(middle_mm(labels > 0, (1.25, 1.25))).max() < 0.2
    assert heights["a"] == heights["b"] == {-14, -10, -6, -2, 2, 6, 10, 14}


def test_all_slices_of_a_case_are_cut_alike_whichever_are_asked_for(tmp_path: Path) -> None:
    theirs = prepared(write_elsewhere(tmp_path / "raw", (1.0, 1.0, 4.0)), tmp_path / "theirs", (96, 96))
    rows = [row for row in theirs.rows if row.case == "b"]
    every = list(maps_from_dataset(theirs, rows, ModelSpec(OURS, (32, 32), "axial", (1.0, 1.0))))
    middles = [middle_mm(labels > 0, (1.0, 1.0)) for _, labels, _ in every]
    assert np.abs(middles).max() < 0.2  # b lies 20 mm off the middle, and would be cut there
    one = next(maps_from_dataset(theirs, [every[0][0]], ModelSpec(OURS, (32, 32), "axial", (1.0, 1.0))))
    assert np.array_equal(one[1], every[0][1])


def test_empty_maps_are_kept_on_demand_and_missed_where_none_is_left(tmp_path: Path) -> None:
    theirs = prepared(write_elsewhere(tmp_path / "raw", (1.0, 1.0, 4.0)), tmp_path / "theirs", (96, 96))
    corners = [row for row in theirs.rows if row.slice == 0]
    assert len(corners) == 2
    kept = list(maps_from_dataset(theirs, corners, ModelSpec(OURS, (40, 40), "axial", (1.25, 1.25)), keep_empty=True))
    assert [labels.any() for _, labels, _ in kept] == [False, False]
    with pytest.raises(DataError, match="none of the label maps contains outer shell or core"):
        list(maps_from_dataset(theirs, corners, ModelSpec(OURS, (40, 40), "axial", (1.25, 1.25))))


def test_volumes_of_another_data_set(tmp_path: Path) -> None:
    theirs = prepared(write_elsewhere(tmp_path / "raw", (2.0, 2.0, 4.0)), tmp_path / "theirs", (24, 40, 40))
    spacing = typical_spacing(theirs)
    assert spacing == pytest.approx((4.0, 2.0, 2.0))
    found = list(maps_from_dataset(theirs, theirs.rows, ModelSpec(OURS, (20, 20, 20), "volume", (2.5, 2.5, 2.5))))
    assert [row.case for row, _, _ in found] == ["a", "b"]
    for _, labels, states in found:
        assert states == ClassStates((True, False, True))
        assert (labels > 0).sum() * 2.5**3 == pytest.approx(4 / 3 * math.pi * 16**3, rel=0.04)


def test_a_case_that_does_not_fit_is_named(tmp_path: Path) -> None:
    theirs = prepared(write_elsewhere(tmp_path / "raw", (1.0, 1.0, 4.0)), tmp_path / "theirs", (96, 96))
    with pytest.raises(DataError, match=r"theirs: case a: the labelled anatomy measures 32 x 32 mm, .* 16 x 16 mm"):
        list(maps_from_dataset(theirs, theirs.rows, ModelSpec(OURS, (16, 16), "axial", (1.0, 1.0))))
    shrunk = maps_from_dataset(theirs, theirs.rows, ModelSpec(OURS, (16, 16), "axial", (1.0, 1.0)), fit="pad")
    assert max(labels.sum() for _, labels, _ in shrunk) > 0


def test_pixel_sizes_are_the_items_own(tmp_path: Path) -> None:
    raw = write_elsewhere(tmp_path / "raw", (1.0, 2.0, 4.0))
    # Sagittal slices are 20 pixels of 4 mm by 40 of 2 mm; at 20 x 20 they are shrunk by two.
    assert typical_spacing(prepared(raw, tmp_path / "large", (48, 48), "sagittal")) == pytest.approx((4.0, 2.0))
    assert typical_spacing(prepared(raw, tmp_path / "small", (20, 20), "sagittal")) == pytest.approx((8.0, 4.0))


def test_pictures_have_no_known_pixel_size_nor_axis(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
    mask = np.zeros((60, 90), np.uint8)
    mask[10:50, 20:70] = 1
    Image.fromarray(mask).save(tmp_path / "raw" / "masks" / "one.png")
    Image.fromarray(mask * 200).save(tmp_path / "raw" / "images" / "one.png")
    source = open_source(str(tmp_path / "raw"), classes=["core"])
    theirs = prepare(source, tmp_path / "theirs", PrepareSettings(size=(90, 90), shares={"train": 1.0}))
    assert typical_spacing(theirs) is None
    ((_, labels, states),) = maps_from_dataset(theirs, theirs.rows, ModelSpec(OURS, (30, 30), "sagittal", (4.0, 4.0)))
    assert states == ClassStates((False, False, True))
    assert (labels == 3).sum() == pytest.approx(40 * 50 / 9, rel=0.1)


def test_other_axes_and_dimensions_are_refused(tmp_path: Path) -> None:
    theirs = prepared(write_elsewhere(tmp_path / "raw", (1.0, 1.0, 4.0)), tmp_path / "theirs", (96, 96))
    with pytest.raises(
        SettingsError, match="axial slices, but the model generates coronal ones. Prepare it again with --axis coronal"
    ):
        maps_from_dataset(theirs, theirs.rows, ModelSpec(OURS, (40, 40), "coronal", (1.0, 1.0)))
    with pytest.raises(
        SettingsError, match="slices, but the model generates whole volumes. Prepare it again with --dim 3"
    ):
        maps_from_dataset(theirs, theirs.rows, ModelSpec(OURS, (40, 40, 40), "volume", (1.0, 1.0, 1.0)))
    with pytest.raises(SettingsError, match="no class of the label maps"):
        maps_from_dataset(
            theirs, theirs.rows, ModelSpec(LabelSchema.from_names(["liver"]), (40, 40), "axial", (1.0, 1.0))
        )
