"""Knowledge insulation: the backbone learns tokens, the action expert learns the flow.

Source: Driess et al. 2025, "Knowledge Insulating Vision-Language-Action Models",
arXiv:2505.23705 (equations 4 to 6, appendix B).
"""
