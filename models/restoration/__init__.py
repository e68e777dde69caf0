"""Restoration: one family of bias-free U-Nets, a small stem and tail for each task."""
