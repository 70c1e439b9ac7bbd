"""Tests of offline jobs, module by module."""
