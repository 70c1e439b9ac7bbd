"""Web pages: the playground, and Swagger UI at /docs.

JSON endpoints do not belong here.
"""
