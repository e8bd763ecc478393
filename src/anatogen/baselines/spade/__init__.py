"""SPADE (Park et al. 2019): a generator whose normalisation is modulated by the label map, trained as a GAN."""
