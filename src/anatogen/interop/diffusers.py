"""Checkpoints of diffusers' UNet2DModel, the authors' published ones among them: in as a run, out as a folder.

The reference implementation (mazurowski-lab/segmentation-guided-diffusion) trains a UNet2DModel whose input is the noisy
image and, with segmentation guidance, one plane of label/255; it samples with DDIMScheduler's defaults. That is this
package's `paper_unet`, `ddpm`, eps and `index`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from anatogen.errors import ModelError, SettingsError
from anatogen.labels import LabelSchema
from anatogen.model import Denoiser, DenoiserConfig, load_denoiser, save_denoiser
from anatogen.networks.paper_unet import PaperUNet, PaperUNetConfig
from anatogen.training.config import build_settings

_PUBLISHED = PaperUNetConfig()
_PUBLISHED_SIZE = 256


def import_checkpoint(
    checkpoint: Path, out: Path, *, classes: Sequence[str] = (), size: int | None = None, ablated: bool | None = None
) -> Path:
    """Write the checkpoint as a run to the new folder `out`, and return `out`.

    checkpoint: a folder with config.json and one .safetensors file (or with a folder unet/ that has them), or a bare
    .safetensors file as published, which is taken for the paper's network. classes: names of the classes 1, 2, ... of the
    masks it was trained on; none for an unconditional model. ablated: trained with mask ablation; by default, whether
    the name says so. Raises ModelError where the files are damaged or of another network, SettingsError where classes
    and input channels do not fit together.
    """
    if out.exists():
        raise SettingsError("is there already", path=out, hint="Choose another folder or remove it")
    weights_file, published_config = _find(checkpoint)
    try:
        weights = load_file(weights_file)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"cannot be read as safetensors ({error})", path=weights_file, hint="Download it again"
        ) from error
    described = _network(published_config, checkpoint) if published_config is not None else _PUBLISHED
    channels_in, channels_out = _channels(weights, weights_file)
    planes = channels_in - channels_out
    if planes not in (0, 1):
        raise ModelError(
            f"takes {channels_in} channels for {channels_out} of the image; only one plane of labels, or none, is known",
            path=checkpoint,
        )
    if bool(classes) != bool(planes):
        what = "is segmentation-guided" if planes else "is unconditional"
        hint = "Name its classes with --classes a,b,c" if planes else "Leave --classes out"
        raise SettingsError(what, path=checkpoint, hint=hint)
    side = size or (published_config or {}).get("sample_size") or _PUBLISHED_SIZE
    schema = LabelSchema.from_names(classes or ["anatomy"])
    config = DenoiserConfig(
        image_channels=channels_out,
        size=tuple(side) if isinstance(side, list | tuple) else (side, side),
        classes=tuple((c.name, c.colour) for c in schema.classes),
        encoding="index" if planes else "none",
        path="ddpm",
        target="eps",
        network=described,
    )
    denoiser = Denoiser(config)
    renamed = {f"network.unet.{name}": tensor for name, tensor in weights.items()}
    try:
        denoiser.load_state_dict(renamed)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"does not fit the network that it describes ({reason})", path=weights_file) from error
    name = checkpoint.stem.lower() + checkpoint.parent.name.lower()
    about = {
        "steps": None,
        "imported_from": checkpoint.name,
        "mask_ablation": ablated if ablated is not None else "ablat" in name,
        "sampling": build_settings("paper").sampling.model_dump(mode="json"),
    }
    out.mkdir(parents=True)
    save_denoiser(out, config, denoiser.state_dict(), about)
    return out


def export_checkpoint(run: Path, out: Path) -> Path:
    """Write the network of `run` to the new folder `out`, for UNet2DModel.from_pretrained, with its DDIM scheduler.

    Raises ModelError for a run that is not a `paper_unet` on the `ddpm` path predicting eps.
    """
    from diffusers import DDIMScheduler

    if out.exists():
        raise SettingsError("is there already", path=out, hint="Choose another folder or remove it")
    denoiser, _ = load_denoiser(run)
    network, config = denoiser.network, denoiser.config
    if not isinstance(network, PaperUNet) or config.path != "ddpm" or config.target != "eps":
        raise ModelError(
            f"is a {config.network.name} on the {config.path} path predicting {config.target}, which diffusers does not know",
            path=run,
            hint="Train with --preset paper",
        )
    network.unet.save_pretrained(out, safe_serialization=True)
    DDIMScheduler(num_train_timesteps=1000).save_pretrained(out / "scheduler")
    return out


def _find(checkpoint: Path) -> tuple[Path, dict[str, Any] | None]:
    """The weights' file and the configuration, if there is one."""
    if checkpoint.is_file():
        beside = checkpoint.parent / "config.json"
        return checkpoint, _read_config(beside) if beside.is_file() else None
    if not checkpoint.is_dir():
        raise ModelError("there is no such checkpoint", path=checkpoint, hint="Check the path")
    for folder in (checkpoint, checkpoint / "unet"):
        found = sorted(folder.glob("*.safetensors"))
        if len(found) > 1:
            raise ModelError(f"holds {len(found)} .safetensors files", path=folder, hint="Name the one that is meant")
        if found:
            config = folder / "config.json"
            return found[0], _read_config(config) if config.is_file() else None
    pickled = [*checkpoint.rglob("*.bin"), *checkpoint.rglob("*.pt"), *checkpoint.rglob("*.pth")]
    if pickled:
        raise ModelError(
            "holds pickled weights, which are not loaded", path=pickled[0], hint="Convert them to safetensors"
        )
    raise ModelError(
        "holds no .safetensors file", path=checkpoint, hint="Name the folder or the file that was downloaded"
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"is not valid JSON ({error})", path=path) from error
    if not isinstance(config, dict):
        raise ModelError("is no configuration of diffusers", path=path)
    return config


def _network(config: dict[str, Any], checkpoint: Path) -> PaperUNetConfig:
    """The settings of `paper_unet` that give the network of `config`."""
    channels = tuple(config.get("block_out_channels", ()))
    kinds = tuple(config.get("down_block_types", ()))
    wanted = tuple("AttnDownBlock2D" if i == len(channels) - 2 else "DownBlock2D" for i in range(len(channels)))
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel" or len(channels) < 2 or kinds != wanted:
        raise ModelError(
            "is not the paper's network: a UNet2DModel with attention in the last level but one", path=checkpoint
        )
    return PaperUNetConfig(channels=channels, layers_per_block=int(config.get("layers_per_block", 2)))


def _channels(weights: dict[str, Tensor], path: Path) -> tuple[int, int]:
    try:
        return weights["conv_in.weight"].shape[1], weights["conv_out.weight"].shape[0]
    except KeyError as error:
        raise ModelError(f"has no {error}: not the weights of a UNet2DModel", path=path) from error
