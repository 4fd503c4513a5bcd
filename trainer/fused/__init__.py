"""Layers of a UNet that are one or a few kernels on a GPU where PyTorch has many, written in Triton.

Between its products, a UNet normalises and gates. In 16 bits under autocast each of these takes up to seven kernels
that read and write the whole picture in float32. Here they read and write 16 bits once and compute in float32 between.
"""
