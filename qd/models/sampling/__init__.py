"""Draws codes from a language model: the sampler and its CPU, C++ and GPU loops."""
