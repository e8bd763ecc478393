"""Checkpoints of diffusers' UNet2DModel, including those published by the paper's authors: import as a run, and export.

The reference implementation (mazurowski-lab/segmentation-guided-diffusion) trains a UNet2DModel whose input is the
noisy image and, with segmentation guidance, one plane of label/255; it samples with DDIMScheduler's defaults. In this
package that is `paper_unet`, `ddpm`, eps and `index`.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from anatogen.diffusion.target import TargetName
from anatogen.errors import ModelError, SettingsError
from anatogen.labels import LabelSchema
from anatogen.model import AboutModel, Denoiser, DenoiserConfig, load_denoiser, save_denoiser
from anatogen.networks.paper_unet import PaperUNet, PaperUNetConfig
from anatogen.training.config import build_settings

_PUBLISHED = PaperUNetConfig()
_PUBLISHED_SIZE = 256

# Keys of config.json that the channels, the size and the fields of PaperUNetConfig cover.
_NOT_OPTIONS = ("sample_size", "in_channels", "out_channels", "block_out_channels", "layers_per_block")
_PAPERS_NOISE = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
_TARGETS: dict[str, TargetName] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_ATTENTION = {"query": "to_q.", "key": "to_k.", "value": "to_v.", "proj_attn": "to_out.0."}


def import_checkpoint(
    checkpoint: Path, out: Path, *, classes: Sequence[str] = (), size: int | None = None, ablated: bool | None = None
) -> Path:
    """Write the checkpoint as a run to the new folder `out`, and return `out`.

    Supported is any UNet2DModel whose input is the image, and the map as label/255 if it has one, trained on the
    paper's noise schedule (as stated in `scheduler/`, or if nothing is stated).

    Args:
        checkpoint: A folder with config.json and one .safetensors file (or with a folder unet/ that contains them), or
            a bare .safetensors file as published, which is assumed to be the paper's network.
        out: A new folder.
        classes: Names of the classes 1, 2, ... of the training masks; none for an unconditional model.
        size: The image size, if the checkpoint does not state it.
        ablated: Whether it was trained with mask ablation; by default, whether the name says so.

    Raises:
        ModelError: The files are damaged or of another network.
        SettingsError: `out` exists, or classes and input channels do not match.
    """
    if out.exists():
        raise SettingsError("already exists", path=out, hint="Choose another folder or remove it")
    weights_file, published_config = _find(checkpoint)
    try:
        weights = load_file(weights_file)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"cannot be read as safetensors ({error})", path=weights_file, hint="Download it again"
        ) from error
    weights = {_of_today(name): tensor for name, tensor in weights.items()}
    described = _network(published_config, checkpoint) if published_config is not None else _PUBLISHED
    target = _target(weights_file)
    channels_in, channels_out = _channels(weights, weights_file)
    planes = channels_in - channels_out
    if planes not in (0, 1):
        raise ModelError(
            f"has {channels_in} input channels for {channels_out} image channels; only one label plane, or none, is "
            "supported",
            path=checkpoint,
        )
    if bool(classes) != bool(planes):
        what = "is segmentation-guided" if planes else "is unconditional"
        hint = "Name its classes with --classes a,b,c" if planes else "Omit --classes"
        raise SettingsError(what, path=checkpoint, hint=hint)
    side = size or (published_config or {}).get("sample_size") or _PUBLISHED_SIZE
    schema = LabelSchema.from_names(classes or ["anatomy"])
    config = DenoiserConfig(
        image_channels=channels_out,
        size=tuple(side) if isinstance(side, list | tuple) else (side, side),
        classes=tuple((c.name, c.colour) for c in schema.classes),
        encoding="index" if planes else "none",
        path="ddpm",
        target=target,
        network=described,
    )
    try:
        denoiser = Denoiser(config).eval()
        _require_that_it_runs(denoiser, channels_in)
    except SettingsError as error:
        raise ModelError(error.problem, path=checkpoint, hint=error.hint) from error
    renamed = {f"network.unet.{name}": tensor for name, tensor in weights.items()}
    try:
        denoiser.load_state_dict(renamed)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"does not fit the network that it describes ({reason})", path=weights_file) from error
    name = checkpoint.stem.lower() + checkpoint.parent.name.lower()
    about = AboutModel(
        imported_from=checkpoint.name,
        mask_ablation=ablated if ablated is not None else "ablat" in name,
        sampling=build_settings("paper").sampling,
    )
    out.mkdir(parents=True)
    save_denoiser(out, config, denoiser.state_dict(), about)
    return out


def export_checkpoint(run: Path, out: Path) -> Path:
    """Write the network of `run` to the new folder `out`, for UNet2DModel.from_pretrained, with its DDIM scheduler.

    Raises:
        ModelError: The run is not a `paper_unet` on the `ddpm` path predicting eps, x0 or v.
    """
    from diffusers import DDIMScheduler

    if out.exists():
        raise SettingsError("already exists", path=out, hint="Choose another folder or remove it")
    denoiser, _ = load_denoiser(run)
    network, config = denoiser.network, denoiser.config
    predicts = {target: name for name, target in _TARGETS.items()}.get(config.target)
    if not isinstance(network, PaperUNet) or config.path != "ddpm" or predicts is None:
        raise ModelError(
            f"is a {config.network.name} on the {config.path} path predicting {config.target}, which diffusers does "
            "not support",
            path=run,
            hint="Train with --preset paper",
        )
    network.unet.save_pretrained(out, safe_serialization=True)
    DDIMScheduler(num_train_timesteps=1000, prediction_type=predicts).save_pretrained(out / "scheduler")
    return out


def _find(checkpoint: Path) -> tuple[Path, dict[str, Any] | None]:
    """The weights file, and the configuration if there is one."""
    if checkpoint.is_file():
        beside = checkpoint.parent / "config.json"
        return checkpoint, _read_config(beside) if beside.is_file() else None
    if not checkpoint.is_dir():
        raise ModelError("does not exist", path=checkpoint, hint="Check the path")
    for folder in (checkpoint, checkpoint / "unet"):
        found = sorted(folder.glob("*.safetensors"))
        if len(found) > 1:
            raise ModelError(f"contains {len(found)} .safetensors files", path=folder, hint="Choose one of them")
        if found:
            config = folder / "config.json"
            return found[0], _read_config(config) if config.is_file() else None
    pickled = [*checkpoint.rglob("*.bin"), *checkpoint.rglob("*.pt"), *checkpoint.rglob("*.pth")]
    if pickled:
        raise ModelError(
            "contains pickled weights, which are never loaded", path=pickled[0], hint="Convert them to safetensors"
        )
    raise ModelError("contains no .safetensors file", path=checkpoint, hint="Choose the downloaded folder or file")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"is not valid JSON ({error})", path=path) from error
    if not isinstance(config, dict):
        raise ModelError("is not a configuration of diffusers", path=path)
    return config


def _network(config: dict[str, Any], checkpoint: Path) -> PaperUNetConfig:
    """The settings of `paper_unet` for the network of `config`. Raises ModelError if it cannot be sampled here."""
    kind = config.get("_class_name", "UNet2DModel")
    refused = {
        f"a {kind}": kind != "UNet2DModel",
        "conditioned on a class label": config.get("class_embed_type") or config.get("num_class_embeds") is not None,
        f"trained on {config.get('time_embedding_type')} times": config.get("time_embedding_type", "positional")
        != "positional",
    }
    for what, is_so in refused.items():
        if is_so:
            raise ModelError(
                f"is {what}; expected a UNet2DModel of image and map with positional times", path=checkpoint
            )
    options = {key: value for key, value in config.items() if not key.startswith("_") and key not in _NOT_OPTIONS}
    from diffusers import UNet2DModel

    arguments = inspect.signature(UNet2DModel.__init__).parameters
    unknown = sorted(set(options) - set(arguments))
    if unknown:
        raise ModelError(
            f"has settings that the installed diffusers does not know ({', '.join(unknown)})", path=checkpoint
        )
    defaults = {name: argument.default for name, argument in arguments.items()}
    # A key missing from config.json has diffusers' default, which for block types is not the paper's.
    shape = {
        "down_block_types": defaults["down_block_types"],
        "up_block_types": defaults["up_block_types"],
    } | options
    kept = {key: value for key, value in shape.items() if key.endswith("block_types") or value != defaults[key]}
    try:
        return PaperUNetConfig(
            channels=config.get("block_out_channels", defaults["block_out_channels"]),
            layers_per_block=config.get("layers_per_block", defaults["layers_per_block"]),
            options=_without_the_papers(kept, len(config.get("block_out_channels", defaults["block_out_channels"]))),
        )
    except (ValidationError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"is not a configuration of a UNet2DModel ({reason})", path=checkpoint) from error


def _without_the_papers(options: dict[str, Any], levels: int) -> dict[str, Any]:
    """`options` without the defaults of `paper_unet` with that many levels."""
    own = PaperUNetConfig(channels=(1,) * levels).arguments()
    return {key: value for key, value in options.items() if key not in own or list(value) != list(own[key])}


def _target(weights_file: Path) -> TargetName:
    """The prediction target of the network, from the scheduler saved beside it; eps without one.

    Raises ModelError if the scheduler's noise schedule is not that of the `ddpm` path.
    """
    for folder in (weights_file.parent, weights_file.parent.parent):
        path = folder / "scheduler" / "scheduler_config.json"
        if not path.is_file():
            continue
        config = _read_config(path)
        noise = {key: config.get(key, value) for key, value in _PAPERS_NOISE.items()}
        if noise != _PAPERS_NOISE or config.get("trained_betas") is not None or config.get("rescale_betas_zero_snr"):
            stated = ", ".join(f"{key} {value}" for key, value in noise.items())
            raise ModelError(
                f"was trained with another noise schedule ({stated}); expected 1000 steps, beta linear from 0.0001 to "
                "0.02",
                path=path,
            )
        predicts = config.get("prediction_type", "epsilon")
        if predicts not in _TARGETS:
            raise ModelError(f"predicts '{predicts}'; supported: {', '.join(_TARGETS)}", path=path)
        return _TARGETS[predicts]
    return "eps"


def _require_that_it_runs(denoiser: Denoiser, channels_in: int) -> None:
    """Run one pass at the smallest size: diffusers can build networks that cannot run. Raises ModelError."""
    network = denoiser.network
    if not isinstance(network, PaperUNet):
        raise TypeError("not a UNet2DModel")
    size = tuple(4 * multiple for multiple in network.multiples)
    try:
        with torch.no_grad():
            out = network.unet(torch.zeros(1, channels_in, *size), 0).sample
    except Exception as error:  # an unsuitable block raises any exception
        reason = " ".join(str(error).split())[:160]
        raise SettingsError(f"is a UNet2DModel that diffusers itself cannot run ({reason})") from error
    if out.shape[2:] != size:
        raise SettingsError(f"returns images of {tuple(out.shape[2:])} for {size}")


def _of_today(name: str) -> str:
    """The current name of a weight in attention blocks (since diffusers 0.17)."""
    return re.sub(r"(attentions\.\d+\.)(query|key|value|proj_attn)\.", lambda m: m[1] + _ATTENTION[m[2]], name)


def _channels(weights: dict[str, Tensor], path: Path) -> tuple[int, int]:
    try:
        return weights["conv_in.weight"].shape[1], weights["conv_out.weight"].shape[0]
    except KeyError as error:
        raise ModelError(f"has no {error}: not the weights of a UNet2DModel", path=path) from error
