"""Files: atomic writing, what may be opened, and the formats that are read with bounds.

`paths` opens and writes, `limits` bounds what a file may unpack to. `archives` (zip), `csv`, `json`, `npy` and
`safetensors` read one format each.
"""

from hdgan.files.paths import (
    atomic_file,
    atomic_folder,
    leads_out,
    new_files,
    remove_dead,
    remove_dead_below,
    remove_folder,
    require_file,
    require_no_file,
    save_png,
)

__all__ = [
    "atomic_file",
    "atomic_folder",
    "leads_out",
    "new_files",
    "remove_dead",
    "remove_dead_below",
    "remove_folder",
    "require_file",
    "require_no_file",
    "save_png",
]
