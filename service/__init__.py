"""The serving half: classifies images over HTTP, in batch jobs and on the command line.

It imports nothing from the training half.
"""
