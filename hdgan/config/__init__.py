"""Options as plain data: dataclasses to and from JSON, bounds of values, names of options as they are typed."""
