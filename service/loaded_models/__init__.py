"""The loaded versions of all models, the reasons why others are not loaded, and the loop that watches the store.

Files and the desired state belong to `model_store`, running a graph to `inference`, and other processes to `workers`.
"""
