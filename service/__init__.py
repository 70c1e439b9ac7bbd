"""Convoy's serving half: images in, labels out, in batches. It never imports the training half."""
