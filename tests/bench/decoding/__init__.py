"""Measures decoding: JPEGs by library and at a reduced scale, and the decoders that the service chooses, in pairs."""
