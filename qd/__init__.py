"""Finetunes text-to-music models by diversity-rewarded distillation of classifier-free guidance."""

__version__ = "0.1.0"
