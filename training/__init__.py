"""The training package: data sets, architectures, recipes, training, and export to model versions that the service
loads.

It imports from `service` what must be identical on both sides, such as the manifest and the image decoding, and the
helpers for files, PNG images and command groups.
"""
