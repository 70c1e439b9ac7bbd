"""Web pages: the playground, and Swagger UI at /docs.

JSON endpoints are in the packages of their protocols.
"""
