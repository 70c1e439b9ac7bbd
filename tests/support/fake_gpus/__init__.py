"""Two GPUs for a service that has none: a driver and sessions that are the CPU's and say that they are a GPU's.

`sitecustomize` puts them in place in every process that has this folder in PYTHONPATH.
"""
