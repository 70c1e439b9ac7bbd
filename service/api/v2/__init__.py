"""The Open Inference Protocol V2 with Triton's extensions, under /v2.

Code that other protocols share is in `service.api.http`.
"""
