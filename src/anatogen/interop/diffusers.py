"""Checkpoints of diffusers' UNet2DModel, the authors' published ones among them: in as a run, out as a folder.

The reference implementation (mazurowski-lab/segmentation-guided-diffusion) trains a UNet2DModel whose input is the noisy
image and, with segmentation guidance, one plane of label/255; it samples with DDIMScheduler's defaults. That is this
package's `paper_unet`, `ddpm`, eps and `index`.
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

# Of a config.json: what the image's channels, the size and the fields of PaperUNetConfig say already.
_NOT_OPTIONS = ("sample_size", "in_channels", "out_channels", "block_out_channels", "layers_per_block")
_PAPERS_NOISE = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
_TARGETS: dict[str, TargetName] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_ATTENTION = {"query": "to_q.", "key": "to_k.", "value": "to_v.", "proj_attn": "to_out.0."}


def import_checkpoint(
    checkpoint: Path, out: Path, *, classes: Sequence[str] = (), size: int | None = None, ablated: bool | None = None
) -> Path:
    """Write the checkpoint as a run to the new folder `out`, and return `out`.

    checkpoint: a folder with config.json and one .safetensors file (or with a folder unet/ that has them), or a bare
    .safetensors file as published, which is taken for the paper's network. Taken is any UNet2DModel whose input is the image, and
    the map as label/255 where there is one, trained on the paper's noise (`scheduler/` beside it says so, or nothing does);
    what is not is said in one line. classes: names of the classes 1, 2, ... of the
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
    weights = {_of_today(name): tensor for name, tensor in weights.items()}
    described = _network(published_config, checkpoint) if published_config is not None else _PUBLISHED
    target = _target(weights_file)
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

    Raises ModelError for a run that is not a `paper_unet` on the `ddpm` path predicting eps, x0 or v.
    """
    from diffusers import DDIMScheduler

    if out.exists():
        raise SettingsError("is there already", path=out, hint="Choose another folder or remove it")
    denoiser, _ = load_denoiser(run)
    network, config = denoiser.network, denoiser.config
    predicts = {target: name for name, target in _TARGETS.items()}.get(config.target)
    if not isinstance(network, PaperUNet) or config.path != "ddpm" or predicts is None:
        raise ModelError(
            f"is a {config.network.name} on the {config.path} path predicting {config.target}, which diffusers does not know",
            path=run,
            hint="Train with --preset paper",
        )
    network.unet.save_pretrained(out, safe_serialization=True)
    DDIMScheduler(num_train_timesteps=1000, prediction_type=predicts).save_pretrained(out / "scheduler")
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
    """The settings of `paper_unet` that give the network of `config`. Raises ModelError for what cannot be sampled here."""
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
                f"is {what}; taken is a UNet2DModel of image and map, with positional times", path=checkpoint
            )
    options = {key: value for key, value in config.items() if not key.startswith("_") and key not in _NOT_OPTIONS}
    from diffusers import UNet2DModel

    arguments = inspect.signature(UNet2DModel.__init__).parameters
    unknown = sorted(set(options) - set(arguments))
    if unknown:
        raise ModelError(f"has settings that this diffusers does not know ({', '.join(unknown)})", path=checkpoint)
    defaults = {name: argument.default for name, argument in arguments.items()}
    # What config.json leaves out is diffusers' default, which for block types is not the paper's.
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
        raise ModelError(f"is no configuration of a UNet2DModel ({reason})", path=checkpoint) from error


def _without_the_papers(options: dict[str, Any], levels: int) -> dict[str, Any]:
    """`options` less what `paper_unet` of that many levels has by itself."""
    own = PaperUNetConfig(channels=(1,) * levels).arguments()
    return {key: value for key, value in options.items() if key not in own or list(value) != list(own[key])}


def _target(weights_file: Path) -> TargetName:
    """What the network predicts, by the scheduler that was saved beside it; eps where there is none.

    Raises ModelError where the scheduler's noise is not that of the `ddpm` path.
    """
    for folder in (weights_file.parent, weights_file.parent.parent):
        path = folder / "scheduler" / "scheduler_config.json"
        if not path.is_file():
            continue
        config = _read_config(path)
        noise = {key: config.get(key, value) for key, value in _PAPERS_NOISE.items()}
        if noise != _PAPERS_NOISE or config.get("trained_betas") is not None or config.get("rescale_betas_zero_snr"):
            said = ", ".join(f"{key} {value}" for key, value in noise.items())
            raise ModelError(
                f"was trained on another noise than the paper's ({said}): 1000 steps, beta linear from 0.0001 to 0.02",
                path=path,
            )
        predicts = config.get("prediction_type", "epsilon")
        if predicts not in _TARGETS:
            raise ModelError(f"predicts '{predicts}'; known are {', '.join(_TARGETS)}", path=path)
        return _TARGETS[predicts]
    return "eps"


def _require_that_it_runs(denoiser: Denoiser, channels_in: int) -> None:
    """One pass at the smallest size: diffusers builds networks, too, that UNet2DModel cannot run. Raises ModelError."""
    network = denoiser.network
    if not isinstance(network, PaperUNet):
        raise TypeError("not a UNet2DModel")
    size = tuple(4 * multiple for multiple in network.multiples)
    try:
        with torch.no_grad():
            out = network.unet(torch.zeros(1, channels_in, *size), 0).sample
    except Exception as error:  # whatever a block that is not made for this raises
        reason = " ".join(str(error).split())[:160]
        raise SettingsError(f"is a UNet2DModel that diffusers itself cannot run ({reason})") from error
    if out.shape[2:] != size:
        raise SettingsError(f"makes images of {tuple(out.shape[2:])} from {size}")


def _of_today(name: str) -> str:
    """The name of a weight in attention blocks as diffusers has called it since version 0.17."""
    return re.sub(r"(attentions\.\d+\.)(query|key|value|proj_attn)\.", lambda m: m[1] + _ATTENTION[m[2]], name)


def _channels(weights: dict[str, Tensor], path: Path) -> tuple[int, int]:
    try:
        return weights["conv_in.weight"].shape[1], weights["conv_out.weight"].shape[0]
    except KeyError as error:
        raise ModelError(f"has no {error}: not the weights of a UNet2DModel", path=path) from error
