"""Latent diffusion trained from scratch: an autoencoder, a denoiser of its codes, and a control branch for label maps.

Rombach et al. 2022 (latent diffusion), Zhang et al. 2023 (the control branch), Pinaya et al. 2022 (in medical images).
"""
