"""Base models that come as one file: what the file is, and a model folder made of it.

Everything but ``convert.py`` and ``tensors.py`` works without torch, so that the check before a run can ask quickly.
"""
