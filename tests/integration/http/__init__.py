"""HTTP protocols and their errors against a real service process."""
