"""The commands `hdgan` and `hdgan-train`, one module a command; `main` chooses, `parser` reads their options."""
