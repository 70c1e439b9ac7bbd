"""Convoy's serving half: pictures in, labels out, in batches. It never imports the training half."""
