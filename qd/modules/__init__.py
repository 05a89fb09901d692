"""LightningModules, and what one training step needs."""
