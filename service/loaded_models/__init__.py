"""The loaded versions of all models, why others are not loaded, and the loop that follows the model store.

Files and the desired state belong to `model_store`, running a graph to `inference`, other processes to `workers`.
"""
