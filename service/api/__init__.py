"""The HTTP side: thin doors that parse, call one method of the core, and shape the reply."""
