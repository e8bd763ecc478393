import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from anatogen.conditioning.encode import Condition
from anatogen.errors import ModelError
from anatogen.model import (
    AboutModel,
    DatasetOrigin,
    Denoiser,
    DenoiserConfig,
    load_denoiser,
    read_about,
    save_denoiser,
)
from anatogen.networks.contract import Network
from anatogen.networks.hourglass import HourglassConfig
from anatogen.networks.paper_unet import PaperUNetConfig
from anatogen.sampling import SamplingSettings

CLASSES = (("liver", "#E69F00"), ("bone", "#56B4E9"))


def config(**changes: object) -> DenoiserConfig:
    base = {"image_channels": 1, "size": (16, 16), "classes": CLASSES, "network": HourglassConfig(width=8)}
    return DenoiserConfig.model_validate({**base, **changes})


def condition(size: tuple[int, ...] = (16, 16)) -> Condition:
    labels = torch.randint(0, 3, (2, *size), generator=torch.Generator().manual_seed(0))
    return Condition.of(labels, torch.tensor([[True, True], [True, False]]))


def stirred(denoiser: Denoiser) -> None:
    """Weights away from their quiet start."""
    generator = torch.Generator().manual_seed(0)
    for p in denoiser.parameters():
        torch.nn.init.normal_(p, std=0.1, generator=generator)


@pytest.mark.parametrize("path", ["flow", "ddpm"])
@pytest.mark.parametrize("target", ["x0", "eps", "v", "edm"])
@pytest.mark.parametrize("encoding", ["onehot", "index", "none"])
@pytest.mark.parametrize("size", [(16, 16), (8, 16, 8), (13, 7), (5, 9, 3)])
def test_one_contract_for_all(path: str, target: str, encoding: str, size: tuple[int, ...]) -> None:
    denoiser = Denoiser(config(path=path, target=target, encoding=encoding, size=size))
    x = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(0))
    x0 = denoiser(x, torch.tensor([0.3, 0.9]), condition(size))
    assert x0.shape == x.shape and torch.isfinite(x0).all()


@pytest.mark.parametrize("size", [(61, 97), (28, 30), (80, 200), (9, 20, 31)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_size_and_channels(size: tuple[int, ...], channels: int) -> None:
    """What comes out at a size is the middle of what comes out of the mirrored input."""
    network = HourglassConfig(width=8, blocks=1, attention_up_to=4)
    denoiser = Denoiser(config(size=size, image_channels=channels, target="x0", network=network))
    stirred(denoiser)
    x = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1))
    t, asked = torch.tensor([0.3, 0.9]), condition(size)
    found, padding = denoiser(x, t, asked), denoiser.padding(size)
    whole = Denoiser(config(size=padding.padded, image_channels=channels, target="x0", network=network))
    whole.load_state_dict(denoiser.state_dict())
    expected = whole(padding.pad(x), t, asked.resized(padding.pad))
    assert found.shape == x.shape and expected.shape[2:] == padding.padded != size
    assert found.std() > 0.01 and torch.equal(found, padding.crop(expected))


def test_odd_sizes_of_the_papers_network() -> None:
    network = PaperUNetConfig(channels=(32, 32, 64), layers_per_block=1)
    denoiser = Denoiser(config(size=(21, 30), encoding="index", network=network, path="ddpm", target="eps"))
    x = torch.randn(2, 1, 21, 30, generator=torch.Generator().manual_seed(0))
    assert denoiser.padding((21, 30)).padded == (24, 32)
    assert denoiser(x, torch.tensor([0.3, 0.9]), condition((21, 30))).shape == x.shape


class OfLabels(Network):
    """A network that needs no planes, and has a use for regions and attributes."""

    multiples = (4, 4)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        labels: Tensor,
        states: Tensor,
        region: Tensor | None = None,
        vector: Tensor | None = None,
    ) -> Tensor:
        assert region is not None and vector is not None and x.shape[2:] == labels.shape[1:] == region.shape[1:]
        return (labels + 10 * region)[:, None] + vector[:, :1, None, None] + 0 * x


def test_a_network_without_planes_sees_the_whole_condition() -> None:
    denoiser = Denoiser(config(size=(6, 7), target="x0"))
    denoiser.network = OfLabels()
    labels = torch.randint(0, 3, (2, 6, 7), generator=torch.Generator().manual_seed(0))
    region = torch.zeros(labels.shape, dtype=torch.uint8)
    region[:, :3] = 1
    asked = Condition.of(labels, torch.ones(2, 2, 2, dtype=torch.bool), region, torch.tensor([[0.25], [0.5]]))
    found = denoiser(torch.zeros(2, 1, 6, 7), torch.tensor([0.3, 0.9]), asked)
    assert torch.equal(found[:, 0], labels + 10 * region + torch.tensor([0.25, 0.5])[:, None, None])


def test_measured_statistics_are_the_best_linear_guess() -> None:
    """Of images that are nothing but their mean, a network that says nothing gives back just that, for each channel."""
    denoiser = Denoiser(config(image_channels=2, data_mean=(-0.5, 0.25), data_std=(0.01, 0.3)))
    mean = torch.tensor([-0.5, 0.25])[None, :, None, None].expand(2, 2, 16, 16)
    t = torch.tensor([0.3, 0.9])
    x0 = denoiser(denoiser.path.alpha(t)[:, None, None, None] * mean, t, condition())
    assert torch.allclose(x0, mean, atol=1e-6)


def test_statistics_that_do_not_fit_the_channels() -> None:
    with pytest.raises(ValueError, match="2 channels"):
        config(image_channels=2, data_mean=(0.0, 0.0, 0.0))


def test_saved_and_loaded(tmp_path: Path) -> None:
    denoiser = Denoiser(config())
    for p in denoiser.parameters():
        torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(0))
    save_denoiser(tmp_path, denoiser.config, denoiser.state_dict(), AboutModel(steps=3))
    again, about = load_denoiser(tmp_path)
    x, t = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3, 0.9])
    assert about.steps == 3 and again.schema.names == ("liver", "bone")
    assert torch.equal(denoiser(x, t, condition()), again(x, t, condition()))


@pytest.mark.parametrize("damage", ["nothing there", "no weights", "torn weights", "torn json", "other network"])
def test_damaged_runs(tmp_path: Path, damage: str) -> None:
    run = tmp_path / "run"
    if damage != "nothing there":
        run.mkdir()
        denoiser = Denoiser(config())
        save_denoiser(run, denoiser.config, denoiser.state_dict())
    if damage == "no weights":
        (run / "model.safetensors").unlink()
    if damage == "torn weights":
        (run / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:500])
    if damage == "torn json":
        (run / "model.json").write_text('{"denoiser": ')
    if damage == "other network":
        save_denoiser(run, config(network=HourglassConfig(width=16)), denoiser.state_dict())
    with pytest.raises(ModelError, match=str(run)):
        load_denoiser(run)


def test_what_is_known_of_a_model_is_typed_and_comes_back(tmp_path: Path) -> None:
    about = AboutModel(
        steps=3,
        images=12,
        seconds=1.5,
        finished=False,
        dataset=DatasetOrigin(layout="nnunet", name="Dataset001", fingerprint="ab", licence="CC-BY"),  # type: ignore[call-arg]
        spacing_mm=(1.0, 2.5),
        channels=("CT",),
        sampling=SamplingSettings(clip=None, steps=7),
    )
    denoiser = Denoiser(config())
    save_denoiser(tmp_path, denoiser.config, denoiser.state_dict(), about)
    assert read_about(tmp_path) == about == load_denoiser(tmp_path)[1]
    assert AboutModel.model_validate(about.record()) == about and json.loads(json.dumps(about.record()))
    assert about.record()["sampling"]["clip"] is None  # None is a value there


def test_a_newer_format_is_refused_in_one_line(tmp_path: Path) -> None:
    denoiser = Denoiser(config())
    save_denoiser(tmp_path, denoiser.config, denoiser.state_dict())
    file = tmp_path / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    with pytest.raises(ModelError, match="has format 99, and this version of anatogen reads formats up to") as refused:
        load_denoiser(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["run", "run-paper"])
def test_runs_of_version_0_1_are_read(name: str) -> None:
    folder = Path(__file__).parent / "fixtures" / "format1" / name
    raw = json.loads((folder / "model.json").read_text())["about"]
    about = load_denoiser(folder)[1]
    assert about.record().items() >= {k: v for k, v in raw.items() if k not in ("sampling",)}.items()
    assert about.finished and about.sampling.steps == 4 and about.dataset is not None
    assert about.dataset.fingerprint == raw["dataset"]["fingerprint"]


def test_no_path_and_no_name_of_a_case_is_in_model_json(run_folder: Path, dataset_folder: Path) -> None:
    text = (run_folder / "model.json").read_text()
    assert "ball_0" not in text and str(dataset_folder.parent) not in text
    assert not any(part.startswith(("/", "C:")) for part in re.findall(r'"([^"]*)"', text))
