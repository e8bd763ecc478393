"""A tiny pipeline of Stable Diffusion's own classes, with random weights, in the folders that a user would have."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

CHANNELS, TOKENS = 16, 6


def write_pipeline(folder: Path, *, text: bool = False, prediction: str = "epsilon") -> Path:
    """vae, unet, scheduler, and the embedding of no text; with `text` the text encoder and tokenizer in its place."""
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoencoderKL(
            block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4, sample_size=32, mid_block_add_attention=False,
        ).save_pretrained(folder / "vae")  # fmt: skip
        UNet2DConditionModel(
            sample_size=16, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4, cross_attention_dim=CHANNELS,
            attention_head_dim=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ).save_pretrained(folder / "unet")  # fmt: skip
        DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction
        ).save_pretrained(folder / "scheduler")
        if text:
            _write_text_encoder(folder)
        else:
            prompt = torch.randn(1, TOKENS, CHANNELS)
            save_file({"prompt": prompt}, folder / "empty_prompt.safetensors")
    return folder


def _write_text_encoder(folder: Path) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    CLIPTextModel(
        CLIPTextConfig(vocab_size=len(words), hidden_size=CHANNELS, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                       max_position_embeddings=TOKENS, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    ).save_pretrained(folder / "text_encoder")  # fmt: skip
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "vocab.json").write_text(json.dumps(words))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (tokenizer / "special_tokens_map.json").write_text(json.dumps(special))
    about = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, **special}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(about))
