"""ControlNet (Zhang et al. 2023) on Stable Diffusion, finetuned as Konz et al. 2024 did (Appendix A.1).

Three trainings follow one another: the VAE, the U-Net, and the control branch, all with empty prompts. The weights of
Stable Diffusion 1.5 are the user's; nothing is downloaded.
"""
