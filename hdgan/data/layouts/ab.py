"""A-to-B pairs: <phase>_A, <phase>_B and, optionally, <phase>_inst."""

from hdgan.data.layouts._layout import IDS, PHOTO, FolderLayout, Part

LAYOUT = FolderLayout(
    "ab", Part("input", "{}_A", ("_A", "_input")), IDS, Part("photo", "{}_B", ("_B", "_output", *PHOTO.suffixes))
)
