"""Requests that are cheap to send and expensive to answer, and their effect on other clients of the service."""
