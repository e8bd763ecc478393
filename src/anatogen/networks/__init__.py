"""Networks: (x, t, labels, states, region, vector) -> prediction, like x.

x (B, C, *spatial), the noisy image; t (B,) in [0, 1]; labels int64 (B, *spatial), states bool (B, R, C-1), region uint8
(B, *spatial) or None and vector (B, V) or None, the condition (see `anatogen.conditioning.encode.Condition`). A network
says in `multiples` what the sides of its images must be multiples of; `padding` fits any size to them.
"""
