"""The HTTP API: endpoints that parse a request, call one method of the core, and encode the response.

Sockets are in `service.server`, and everything that also works without HTTP is in the packages below.
"""
