"""The steps of the GPU check; each measures one aspect and adds rows to the result table.
What several steps share belongs in `tests.gpu`."""
