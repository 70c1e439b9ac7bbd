"""The HTTP API: endpoints that parse a request, call one method of the core, and encode the response.

Sockets, processes and everything that also works without HTTP belong elsewhere.
"""
