"""Parts of HTTP that all protocols share: headers, bodies, compression, errors and disconnects.

Endpoints and schemas are in the packages of their protocols.
"""
