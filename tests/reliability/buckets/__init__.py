"""Buckets that fail, and services that read them."""
