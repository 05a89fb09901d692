"""What is optimised: pure PyTorch functions."""
