"""Training, export and import of whole models."""
