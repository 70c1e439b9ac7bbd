"""Images in, predictions out, with deadlines and explanations: the core that REST, batch jobs and the CLI share.

This package is independent of HTTP and files, and loads no models.
"""
