"""NVIDIA's folders: <phase>_label, <phase>_inst and <phase>_img."""

from hdgan.data.layouts._layout import IDS, LABEL, PHOTO, FolderLayout

LAYOUT = FolderLayout("nvidia", LABEL, IDS, PHOTO)
