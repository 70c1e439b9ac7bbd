"""Simulates two GPUs with a fake driver, and with sessions that run on the CPU but report a GPU.

`sitecustomize` installs both in every process that has this folder in PYTHONPATH.
"""
