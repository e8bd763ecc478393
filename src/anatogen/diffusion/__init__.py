"""The mathematics of diffusion on tensors and callables: one code for (B, C, H, W) and (B, C, D, H, W)."""
