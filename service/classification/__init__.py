"""Images in, predictions out, with deadlines and explanations: the core that REST, batch jobs and the CLI share.

No HTTP, no files, and no loading of models belong here.
"""
