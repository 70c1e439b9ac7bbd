"""The Open Inference Protocol V2 with Triton's extensions, under /v2.

Nothing that other protocols share belongs here.
"""
