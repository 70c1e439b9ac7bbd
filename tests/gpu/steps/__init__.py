"""The steps of the GPU check. Each measures one aspect and adds rows to the result table.

Code that several steps share is in `tests.gpu`.
"""
