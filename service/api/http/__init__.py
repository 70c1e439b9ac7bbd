"""Parts of HTTP that all protocols share: headers, bodies, compression, errors and disconnects.

No endpoint and no schema of one protocol belongs here.
"""
