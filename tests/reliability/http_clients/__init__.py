"""Checks that common HTTP clients receive Convoy's responses, directly and through proxies."""
