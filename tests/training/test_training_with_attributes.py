"""A network that is told attributes: learned, dropped, resumed, started from, refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import yaml

from anatogen.conditioning.attributes import AttributeSchema, Categorical, Numeric
from anatogen.conditioning.encode import Condition
from anatogen.data.attribute_table import with_attributes
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.errors import AnatogenError, ModelError, SettingsError
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.generation.sample_set import SampleSet
from anatogen.model import Denoiser, DenoiserConfig, load_denoiser
from anatogen.networks.hourglass import HourglassConfig
from anatogen.training.config import build_settings
from anatogen.training.denoiser_task import DenoiserTask
from anatogen.training.train import train
from anatogen.training.warm_start import start_from
from conftest import SMALL, write_nnunet

LOOKS = ("bright", "dark")
NETWORK = HourglassConfig(width=16, smallest=4)
SCHEMA = AttributeSchema(
    attributes=(
        Categorical(name="look", levels=LOOKS),
        Numeric(name="age", mean=60, std=10, low=40, high=80),
    )
)


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Balls of which every second patient's are dark on bright ground; the label maps say nothing of it."""
    folder = tmp_path_factory.mktemp("looks")
    raw, lines = write_nnunet(folder / "raw", cases=16), ["case,look"]
    for number in range(16):
        look, path = LOOKS[number % 2], raw / "imagesTr" / f"ball_{number:03d}_0000.nii.gz"
        lines.append(f"ball_{number:03d},{look}")
        if look == "dark":
            image = nibabel.load(path)
            inverted = (900 - np.asarray(image.dataobj)).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(inverted, image.affine), path)
    (folder / "table.csv").write_text("\n".join(lines))
    source = with_attributes(open_source(str(raw)), folder / "table.csv")
    return prepare(source, folder / "data", PrepareSettings(size=(24, 20), workers=1))


@pytest.fixture(scope="module")
def learned_run(looks: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = ["network.width=8", "network.blocks=1", "training.batch_size=8", "training.learning_rate=4e-3"]
    values += ["training.steps=250", "training.ema_decay=0.95", "conditioning.attributes=[look, position]"]
    values += ["diffusion.time_mean=1.5"]  # more of the highest noise, at which the attribute decides
    settings = build_settings(values=values)
    return train(looks, tmp_path_factory.mktemp("runs") / "run", settings, device="cpu")


def brightness(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How much brighter the ball is than its ground, in [-2, 2], for each image."""
    pairs = zip(images[:, 0], labels, strict=True)
    return np.array([image[label > 0].mean() - image[label == 0].mean() for image, label in pairs])


@pytest.mark.slow
def test_what_is_asked_for_is_what_is_made(looks: PreparedDataset, learned_run: Path) -> None:
    generator, rows = Generator.load(learned_run, device="cpu"), []
    for look in LOOKS:  # of a few patients each; no more are in the test split
        own = [row for row in looks.split("train") if looks.attributes_of(row)["look"] == look]
        rows += [row for row in own if (looks.load([row]).labels > 0).sum() > 60][::8][:3]
    batch, bright = looks.load(rows), np.array([True] * 3 + [False] * 3)
    labels = batch.labels.numpy()
    assert ((brightness(batch.images.numpy(), labels) > 0) == bright).all()  # so they are in the data
    for look, sign in zip(LOOKS, (1, -1), strict=True):
        made = np.stack([generator.sample(each, attributes={"look": look}, steps=8)[0] for each in labels])
        assert (sign * brightness(made, labels) > 0.3).mean() > 0.8, look
    asked = requests_from_dataset(looks, rows, looks.schema.states())  # each with the values of its own case
    own = np.stack([image for _, image in generator.generate(asked)])
    assert ((brightness(own, labels) > 0) == bright).mean() > 0.8


@pytest.mark.slow
def test_sample_by_the_command_line(cli: Callable[..., tuple[int, str, str]], looks: PreparedDataset, learned_run: Path, tmp_path: Path) -> None:  # fmt: skip
    base = ("sample", learned_run, "--masks", looks.folder, "--count", 4, "--steps", 4, "--device", "cpu")
    code, _, err = cli(*base, "--out", tmp_path / "dark", "--attribute", "look=dark", "--attribute", "position=unknown")
    assert code == 0, err
    samples = SampleSet.open(tmp_path / "dark")
    assert samples.header.request.attributes == {"look": "dark", "position": "unknown"}
    assert all(line.attributes == {"look": "dark"} for line in samples.entries)
    line = samples.entries[0]
    again = Generator.load(learned_run, device="cpu").sample(
        samples.label_map(line), attributes=line.attributes, seeds=[line.seed], steps=4
    )
    assert np.abs(again[0] - samples.image(line)).max() < 1e-3
    code, _, err = cli(*base, "--out", tmp_path / "dark", "--attribute", "look=bright")
    assert code == 2 and "dark" in err and "bright" in err and len(err.splitlines()) == 1  # sets are not mixed
    code, _, err = cli(*base, "--out", tmp_path / "own")
    assert code == 0, err
    own = SampleSet.open(tmp_path / "own")
    assert own.header.request.attributes is None
    looks_of = {row.case: looks.attributes_of(row)["look"] for row in looks.rows}
    assert all(
        each.attributes is not None and each.attributes["look"] == looks_of[str(each.case)] for each in own.entries
    )
    for asked, said in (
        ("look=grey", "no value 'grey'. Known: bright, dark"),
        ("looks=dark", "Did you mean 'look'"),
        ("position=2", "was 0 to 1 in training, got 2"),
    ):
        code, _, err = cli(*base, "--out", tmp_path / "bad", "--attribute", asked)
        assert code == 2 and said in err and len(err.splitlines()) == 1 and not (tmp_path / "bad").exists()
    for path, lines in (
        (learned_run, ("attribute look: bright, dark", "attribute position: 0 to 1")),
        (looks.folder, ("attribute look: bright, dark (16 cases)",)),
    ):
        code, out, _ = cli("info", path)
        assert code == 0 and all(each in out for each in lines)


@pytest.mark.slow
def test_real_images_are_translated(cli: Callable[..., tuple[int, str, str]], looks: PreparedDataset, learned_run: Path, tmp_path: Path) -> None:  # fmt: skip
    """Each image beside its real one, nearer to it the less it was noised; the settings are recorded."""
    base = ("translate", learned_run, "--images", looks.folder, "--device", "cpu", "--attribute", "look=dark")
    apart = []
    for strength in (0.05, 0.95):
        out = tmp_path / str(strength)
        code, _, err = cli(*base, "--out", out, "--strength", strength)
        assert code == 0, err
        samples = SampleSet.open(out)
        assert len(samples.entries) == len(looks.split("test"))
        for line in samples.entries:
            assert line.noised_to == round(1000 * strength) and line.attributes is not None
            assert line.attributes["look"] == "dark" and line.real is not None
        pairs = [(samples.image(line), samples.real_image(line)) for line in samples.entries]
        apart.append(np.mean([np.abs(made - real).mean() for made, real in pairs]))
    assert apart[0] < 0.5 * apart[1]
    code, _, err = cli(*base, "--out", tmp_path / "0.95", "--strength", "0.5")
    assert code == 2 and "noised_to" in err  # another strength is another set


@pytest.mark.slow
def test_similar_images_obey_attributes(cli: Callable[..., tuple[int, str, str]], looks: PreparedDataset, learned_run: Path, tmp_path: Path) -> None:  # fmt: skip
    """From the same noise, each image a little similar to its real one: dark ones are darker than bright ones."""
    shown = []
    for look in LOOKS:
        words = ("interpolate", learned_run, "--masks", looks.folder, "--similarity", 0.02, "--count", 3, "--steps", 4)
        code, _, err = cli(*words, "--device", "cpu", "--attribute", f"look={look}", "--out", tmp_path / look)
        assert code == 0, err
        samples = SampleSet.open(tmp_path / look)
        assert all(line.attributes is not None and line.attributes["look"] == look for line in samples.entries)
        shown.append(brightness(samples.images(), samples.labels()))
    assert (shown[0] > shown[1]).all()


def test_a_model_without_attributes_refuses_them(cli: Callable[..., tuple[int, str, str]], run_folder: Path, dataset_folder: Path, tmp_path: Path) -> None:  # fmt: skip
    base = ("sample", run_folder, "--masks", dataset_folder, "--device", "cpu", "--out", tmp_path / "out")
    code, _, err = cli(*base, "--attribute", "look=dark")
    assert code == 2 and "takes no attributes" in err and not (tmp_path / "out").exists()
    with pytest.raises(SettingsError, match="takes no attributes"):
        Generator.load(run_folder, device="cpu").sample(np.zeros((32, 32), np.int64), attributes={"look": "dark"})
    assert '"attributes"' not in (run_folder / "model.json").read_text()


# ---- training


class Killed(BaseException):
    pass


def test_resumed_bit_for_bit(looks: PreparedDataset, tmp_path: Path) -> None:
    values = [*SMALL, "training.steps=10", "training.checkpoint_every=4", "live.previews=false"]
    values += ["conditioning.attributes=[look, position, 'volume:core']", "conditioning.attribute_dropout=0.3"]
    settings = build_settings(values=values)
    whole = train(looks, tmp_path / "whole", settings, device="cpu")
    calls = iter(range(100))

    def progress(share: float, text: str) -> None:
        if next(calls) == 7:
            raise Killed

    with pytest.raises(Killed):
        train(looks, tmp_path / "broken", settings, device="cpu", progress=progress)
    broken = train(looks, tmp_path / "broken", None, device="cpu", resume=True)
    assert (whole / "model.safetensors").read_bytes() == (broken / "model.safetensors").read_bytes()
    other = build_settings(values=[*values, "conditioning.attribute_dropout=0"])
    assert (train(looks, tmp_path / "other", other, device="cpu") / "model.safetensors").read_bytes() != (
        whole / "model.safetensors"
    ).read_bytes()
    assert yaml.safe_load((whole / "config.yaml").read_text())["conditioning"]["attributes"] == [
        "look", "position", "volume:core",
    ]  # fmt: skip
    denoiser, _ = load_denoiser(whole)
    assert denoiser.config.attributes is not None and denoiser.config.attributes.size == 3 + 2 + 2


def test_the_first_step_is_that_without_attributes(looks: PreparedDataset) -> None:
    """The map from attributes starts at zero, and all other weights are drawn as without it."""
    plain, told = (
        DenoiserTask(looks, build_settings(values=[*SMALL, *more]), torch.device("cpu")).denoiser
        for more in ((), ("conditioning.attributes=[look]",))
    )
    weights = dict(told.named_parameters())
    assert not weights.pop("network.from_vector.weight").any()
    assert all(torch.equal(weights.pop(name), value) for name, value in plain.named_parameters()) and not weights


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            ["conditioning.attributes=[look, sex]"],
            "no attribute 'sex'. Known: look, position, volume:ball, volume:core",
        ),
        (["conditioning.attributes=[look]", "network.name=paper_unet"], "paper_unet takes no attributes"),
        (["conditioning.attributes=['volume:ball']", "augment.scale=0.1"], "augment.scale would change the volumes"),
        (["conditioning.attribute_dropout=2", "conditioning.attributes=[look]"], "attribute_dropout"),
    ],
)
def test_refused_before_anything_is_written(looks: PreparedDataset, tmp_path: Path, values: list[str], said: str) -> None:  # fmt: skip
    with pytest.raises(AnatogenError) as caught:
        train(looks, tmp_path / "run", build_settings(values=["training.steps=1", *values]), device="cpu")
    assert said in str(caught.value) and not (tmp_path / "run").exists()


def test_other_systems_refuse_them(cli: Callable[..., tuple[int, str, str]], looks: PreparedDataset, tmp_path: Path) -> None:  # fmt: skip
    base = ("train", looks.folder, "--steps", 1, "--device", "cpu", "--out", tmp_path / "run")
    code, _, err = cli(*base, "--model", "spade", "--set", "conditioning.attributes=[look]")
    assert code == 2 and "conditioning.attributes is not applicable to the model spade" in err


# ---- the network


def denoiser(schema: AttributeSchema | None, size: tuple[int, ...] = (16, 16)) -> Denoiser:
    """With weights that are all in use."""
    classes = tuple((name, "#000000") for name in "ab")
    config = DenoiserConfig(image_channels=1, size=size, classes=classes, encoding="embedding", network=NETWORK, attributes=schema)  # fmt: skip
    torch.manual_seed(0)
    made = Denoiser(config).placed(torch.device("cpu")).eval()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    return made.requires_grad_(False)


@pytest.mark.parametrize("size", [(16, 16), (8, 16, 16)], ids=["2d", "3d"])
def test_unknown_is_as_if_nothing_were_told(size: tuple[int, ...]) -> None:
    model, labels = denoiser(SCHEMA, size), torch.randint(0, 3, (3, *size))
    x, t, given = torch.randn(3, 1, *size), torch.tensor([0.2, 0.5, 0.8]), torch.ones(3, 2, dtype=torch.bool)
    vector = SCHEMA.vectors(SCHEMA.codes([{"look": "dark"}, {"age": 75}, {}]))
    told, plain = Condition.of(labels, given, vector=vector), Condition.of(labels, given)
    assert torch.allclose(model(x, t, told.without_attributes()), model(x, t, plain))
    difference = (model(x, t, told) - model(x, t, plain)).abs().amax(dim=tuple(range(1, x.ndim)))
    assert (difference[:2] > 1e-3).all() and difference[2] < 1e-6
    tiled = model.under(told, tile=tuple(side // 2 for side in size))(x, t)
    assert (
        tiled - model.under(told.without_attributes(), tile=tuple(side // 2 for side in size))(x, t)
    ).abs().max() > 1e-3
    with pytest.raises(ModelError, match="does not take these attributes"):
        denoiser(None, size)(x, t, told)


def test_attributes_are_matched_by_name_level_and_unit(tmp_path: Path) -> None:
    ours = AttributeSchema(
        attributes=(
            Numeric(name="age", mean=50, std=20, low=10, high=90),  # another cohort: the same years, another standard
            Numeric(name="weight", mean=70, std=10, low=40, high=120),
            Categorical(name="look", levels=("dark", "grey", "bright")),
        )
    )
    old, new = denoiser(SCHEMA), denoiser(ours)
    start_from(new, old, tmp_path)
    x, t = torch.randn(4, 1, 16, 16), torch.full((4,), 0.5)
    labels, given = torch.randint(0, 3, (4, 16, 16)), torch.ones(4, 2, dtype=torch.bool)
    items = [{"look": "dark", "age": 75}, {"look": "bright"}, {"age": 41}, {}]
    a, b = (
        model(x, t, Condition.of(labels, given, vector=schema.vectors(schema.codes(items))))
        for model, schema in ((old, SCHEMA), (new, ours))
    )
    assert torch.allclose(a, b, atol=1e-5)
    assert not torch.allclose(a, old(x, t, Condition.of(labels, given)), atol=1e-3)
    heavy = ours.vectors(ours.codes([{**item, "weight": 110} for item in items]))
    assert torch.allclose(new(x, t, Condition.of(labels, given, vector=heavy)), b, atol=1e-5)  # not learned yet
    for one, other in ((denoiser(ours), denoiser(None)), (denoiser(None), denoiser(SCHEMA))):
        start_from(one, other, tmp_path)  # with attributes from without, and the other way round
        assert torch.allclose(
            one(x, t, Condition.of(labels, given)), other(x, t, Condition.of(labels, given)), atol=1e-5
        )
