"""Checkpoints in the authors' layout, written by diffusers itself: in, sampled, out again."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel
from safetensors.torch import save_file

from anatogen.conditioning.encode import Condition
from anatogen.data.store import PreparedDataset
from anatogen.errors import AnatogenError, ModelError
from anatogen.generation.engine import Generator
from anatogen.interop.diffusers import export_checkpoint, import_checkpoint
from anatogen.model import Query, load_denoiser
from anatogen.seeds import derive_seed
from anatogen.training.config import build_settings
from anatogen.training.train import train


def published(folder: Path, channels_in: int = 2, **changes: object) -> UNet2DModel:
    """A small network of the authors' architecture, saved as they do: FOLDER/unet/config.json and weights."""
    torch.manual_seed(0)
    settings: dict[str, object] = {
        "sample_size": 32,
        "in_channels": channels_in,
        "out_channels": 1,
        "layers_per_block": 1,
        "block_out_channels": (32, 32, 64),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    }
    model = UNet2DModel(**{**settings, **changes})  # type: ignore[arg-type]
    model.save_pretrained(folder / "unet", safe_serialization=True)
    return model.eval()


def their_loop(model: UNet2DModel, noise: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
    """The reference implementation's sampling: DDIMScheduler's defaults, 50 steps, the mask as label/255."""
    scheduler = DDIMScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(50)
    image = noise
    with torch.no_grad():
        for t in scheduler.timesteps:
            given = image if labels is None else torch.cat([image, labels[:, None].float() / 255], dim=1)
            image = scheduler.step(model(given, t).sample, t, image).prev_sample
    return image


@pytest.mark.parametrize("guided", [True, False])
def test_ddim_50_gives_what_diffusers_gives(dataset: PreparedDataset, tmp_path: Path, guided: bool) -> None:
    """A network that has learnt a little: one that has not turns a rounding error into another image within 20
    steps.
    """
    values = ["network.channels=[32,32,64]", "network.layers_per_block=1", "training.batch_size=4", "training.warmup_steps=5",
              "training.learning_rate=1e-3", *([] if guided else ["conditioning.encoding=none"])]  # fmt: skip
    settings = build_settings("paper", values=values, training={"steps": 60, "epochs": None})
    trained = load_denoiser(train(dataset, tmp_path / "trained", settings, device="cpu"))[0].network
    folder = tmp_path / "ddim-breast_mri-256-segguided"
    trained.unet.save_pretrained(folder / "unet", safe_serialization=True)  # type: ignore[operator,union-attr]
    model = UNet2DModel.from_pretrained(folder / "unet").eval()

    import_checkpoint(folder, tmp_path / "run", classes=["ball", "core"] if guided else [])
    generator = Generator.load(tmp_path / "run", device="cpu")
    labels = dataset.load(dataset.split("test")[3:4]).labels[0] if guided else torch.zeros(32, 32, dtype=torch.int64)
    seed = 5
    own = torch.randn((1, 32, 32), generator=torch.Generator().manual_seed(derive_seed("sample", seed)))
    path = generator.denoiser.path
    start = own * float(path.sigma(path.times(50, "leading")[0]))  # ours begins with sigma(t) eps
    theirs = their_loop(model, start[None], labels[None] if guided else None)
    request = Query(labels.numpy(), generator.schema.states(), seed)
    [(_, ours)] = list(generator.generate([request]))
    assert generator.settings.solver == "ddim" and generator.settings.steps == 50
    assert np.abs(ours - theirs[0].clamp(-1, 1).numpy()).max() < 1e-4


def test_there_and_back_again(tmp_path: Path) -> None:
    model = published(tmp_path / "published")
    import_checkpoint(tmp_path / "published", tmp_path / "run", classes=["liver", "bone"])
    export_checkpoint(tmp_path / "run", tmp_path / "out")
    again = UNet2DModel.from_pretrained(tmp_path / "out").eval()
    x = torch.randn(2, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(x, 7).sample, again(x, 7).sample)
    assert DDIMScheduler.from_pretrained(tmp_path / "out" / "scheduler").config.num_train_timesteps == 1000


def test_names_as_published(tmp_path: Path) -> None:
    """NAME.safetensors beside its config.json; a file alone is taken for the paper's network."""
    published(tmp_path / "a")
    shutil.copy(
        tmp_path / "a" / "unet" / "diffusion_pytorch_model.safetensors", tmp_path / "ct-segguided-ablated.safetensors"
    )
    shutil.copy(tmp_path / "a" / "unet" / "config.json", tmp_path / "config.json")
    import_checkpoint(tmp_path / "ct-segguided-ablated.safetensors", tmp_path / "run", classes=["liver"])
    assert Generator.load(tmp_path / "run", device="cpu").about.mask_ablation is True
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match="does not fit the network"):
        import_checkpoint(tmp_path / "ct-segguided-ablated.safetensors", tmp_path / "run2", classes=["liver"])


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("no classes", "is segmentation-guided.*--classes"),
        ("classes of none", "is unconditional"),
        ("three planes", "has 4 input channels for 1"),
        ("another class", "is a UNet1DModel"),
        ("class labels", "conditioned on a class label"),
        ("fourier times", "trained on fourier times"),
        ("blocks that take no time", "cannot run"),
        ("settings of tomorrow", "does not know .tomorrow."),
        ("another noise", "another noise.*squaredcos"),
        ("torn weights", "cannot be read as safetensors"),
        ("torn config", "is not valid JSON"),
        ("pickle", "pickled weights"),
        ("nothing", "no .safetensors file"),
        ("nowhere", "does not exist"),
        ("not a unet", "no 'conv_in.weight'"),
    ],
)
def test_bad_checkpoints(tmp_path: Path, problem: str, message: str) -> None:
    folder, classes = tmp_path / "published", ["liver"]
    if problem in ("nothing", "pickle"):
        folder.mkdir()
        if problem == "pickle":
            (folder / "diffusion_pytorch_model.bin").write_bytes(b"x")
    elif problem in ("class labels", "fourier times", "blocks that take no time"):
        changes: dict[str, dict[str, object]] = {
            "class labels": {"num_class_embeds": 3},
            "fourier times": {"time_embedding_type": "fourier"},
            "blocks that take no time": {"down_block_types": ("DownEncoderBlock2D",) * 3},
        }
        published(folder, **changes[problem])
    elif problem != "nowhere":
        published(folder, channels_in={"classes of none": 1, "three planes": 4}.get(problem, 2))
    if problem == "no classes":
        classes = []
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    if problem == "torn weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    config = folder / "unet" / "config.json"
    if problem in ("another class", "settings of tomorrow"):
        change = {"_class_name": "UNet1DModel"} if problem == "another class" else {"tomorrow": 1}
        config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    if problem == "another noise":
        DDIMScheduler(beta_schedule="squaredcos_cap_v2").save_pretrained(folder / "scheduler")
    if problem == "torn config":
        (folder / "unet" / "config.json").write_text("{")
    if problem == "not a unet":
        save_file({"weight": torch.zeros(1)}, weights)
    with pytest.raises(AnatogenError, match=message):
        import_checkpoint(folder, tmp_path / "run", classes=classes)
    assert not (tmp_path / "run").exists()


ANY: dict[str, dict[str, object]] = {
    "diffusers' own defaults": {
        "block_out_channels": (32, 64, 64, 96),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
    "no attention, other groups": {
        "block_out_channels": (24, 40),
        "norm_num_groups": 8,
        "down_block_types": ("DownBlock2D",) * 2,
        "up_block_types": ("UpBlock2D",) * 2,
        "add_attention": False,
        "layers_per_block": 2,
    },
    "resnet sampling, scale and shift": {
        "block_out_channels": (32, 64),
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "resnet_time_scale_shift": "scale_shift",
        "attention_head_dim": None,
        "act_fn": "gelu",
        "freq_shift": 1,
        "flip_sin_to_cos": False,
        "center_input_sample": True,
        "norm_eps": 1e-6,
    },
    "no middle, one level": {
        "block_out_channels": (32,),
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
        "mid_block_type": None,
    },
    "colour": {"in_channels": 4, "out_channels": 3},
}


@pytest.mark.parametrize("name", ANY)
def test_any_unet(name: str, tmp_path: Path) -> None:
    """Whatever shape diffusers wrote: the same predictions, and out again for diffusers."""
    model = published(tmp_path / "published", **ANY[name])
    DDIMScheduler(prediction_type="v_prediction").save_pretrained(tmp_path / "published" / "scheduler")
    import_checkpoint(tmp_path / "published", tmp_path / "run", classes=["liver", "bone"])
    denoiser, _ = load_denoiser(tmp_path / "run")
    assert denoiser.config.target == "v" and denoiser.config.size == (32, 32)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, model.config["out_channels"], 32, 32, generator=generator)
    labels = torch.randint(0, 3, (2, 32, 32), generator=generator)
    condition = Condition.of(labels, torch.ones(2, 2, dtype=torch.bool))
    export_checkpoint(tmp_path / "run", tmp_path / "out")
    again = UNet2DModel.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        seen = torch.cat([x, labels[:, None] / 255], dim=1)
        theirs = model(seen, torch.tensor([7, 900])).sample
        ours = denoiser.network(x, torch.tensor([0.008, 0.901]), condition.labels, condition.states)
        assert theirs.std() > 0.01 and torch.equal(ours, theirs)
        assert torch.equal(again(seen, torch.tensor([7, 900])).sample, theirs)
    assert DDIMScheduler.from_pretrained(tmp_path / "out" / "scheduler").config.prediction_type == "v_prediction"


def test_defaults_that_config_json_leaves_out(tmp_path: Path) -> None:
    """Block types that are not written down are diffusers' defaults, not the paper's."""
    model = published(tmp_path / "published", **ANY["diffusers' own defaults"])
    path = tmp_path / "published" / "unet" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(
        json.dumps({k: v for k, v in config.items() if not k.endswith("_types") and k != "layers_per_block"})
    )
    with pytest.raises(ModelError, match="does not fit the network"):  # of 1 layer a block, where the default is 2
        import_checkpoint(tmp_path / "published", tmp_path / "run", classes=["liver"])
    path.write_text(json.dumps({k: v for k, v in config.items() if not k.endswith("_types")}))
    import_checkpoint(tmp_path / "published", tmp_path / "run", classes=["liver"])
    found = load_denoiser(tmp_path / "run")[0].state_dict()
    assert all(torch.equal(found[f"network.unet.{name}"], tensor) for name, tensor in model.state_dict().items())


def test_attention_weights_by_their_old_names(tmp_path: Path) -> None:
    """Before its version 0.17 diffusers called to_q, to_k, to_v and to_out of attention blocks otherwise."""
    model = published(tmp_path / "published")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = {re.sub("|".join(old), lambda m: old[m[0]], k): v for k, v in model.state_dict().items()}
    assert any("proj_attn" in name for name in weights)
    save_file(weights, tmp_path / "published" / "unet" / "diffusion_pytorch_model.safetensors")
    import_checkpoint(tmp_path / "published", tmp_path / "run", classes=["liver"])
    found = load_denoiser(tmp_path / "run")[0].state_dict()
    assert all(torch.equal(found[f"network.unet.{name}"], tensor) for name, tensor in model.state_dict().items())


def test_only_the_papers_network_goes_to_diffusers(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a hourglass on the flow path.*--preset paper"):
        export_checkpoint(run_folder, tmp_path / "out")
