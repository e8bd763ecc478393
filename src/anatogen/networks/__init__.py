"""Networks: (x, t, labels, states, region, vector) -> prediction, shaped like x.

x is the noisy image (B, C, *spatial) and t (B,) in [0, 1]. The condition (see `anatogen.conditioning.encode.Condition`)
is labels int64 (B, *spatial), states bool (B, R, C-1), region uint8 (B, *spatial) or None, and vector (B, V) or None.
A network states in `multiples` what the sides of its images must be multiples of; `padding` fits any size to them.
"""
