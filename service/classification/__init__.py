"""Images in, predictions out, with deadlines and explanations: the core that REST, batch jobs and the CLI share.

This package knows no HTTP and no files, and loads no models.
"""
