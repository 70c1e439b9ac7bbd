"""The training half: data sets, architectures, recipes, training, and the export to the versions that are served.

It imports from `service` only what must be identical on both sides, such as the manifest and the image decoding.
"""
