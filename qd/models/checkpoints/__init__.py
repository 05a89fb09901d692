"""From a model's name to its folder and its tensors."""
