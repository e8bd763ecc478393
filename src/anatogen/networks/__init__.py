"""Networks: (x (B, C, *spatial), t (B,) in [0, 1], planes (B, P, *spatial)) -> prediction (B, C, *spatial)."""
