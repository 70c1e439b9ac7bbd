"""What FastAPI cannot generate of the OpenAPI document: bodies that endpoints read themselves, errors, and API keys.

The schemas of a protocol stay with the protocol.
"""
