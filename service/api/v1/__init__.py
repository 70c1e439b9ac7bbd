"""TensorFlow Serving's REST API, which is also KServe V1, under /v1.

Convoy's own /api/v1 is in `service.api.native`.
"""
