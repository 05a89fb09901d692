"""Diversity-rewarded CFG distillation of autoregressive text-to-music models."""
