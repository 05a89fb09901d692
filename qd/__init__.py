"""Finetunes text-to-music models by diversity-rewarded distillation of classifier-free guidance."""
