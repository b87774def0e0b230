"""FAST: action chunks as short sequences of tokens; free of jax and torch.

Source: Pertsch et al. 2025, "FAST: Efficient Action Tokenization for Vision-Language-Action
Models", arXiv:2501.09747.
"""
