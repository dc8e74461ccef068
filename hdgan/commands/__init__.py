"""The commands `hdgan` and `hdgan-train`, one module per command; `main` chooses the command and `parser` reads its
options."""
