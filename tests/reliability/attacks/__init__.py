"""Requests that are cheap to send and expensive to answer, and what they cost another client of the service."""
