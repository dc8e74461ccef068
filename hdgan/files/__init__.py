"""Files: atomic writing, what may be opened, and formats that are read within limits.

`atomic` writes, by way of `temporaries`; `opening` says what may be opened, and `limits` how much a file may unpack to.
`archives` reads zip archives; `json`, `csv`, `npy` and `safetensors` read the formats of those names.
`images`, `png` and `pyramids` write images, the last two of them from blocks of `rows`; `slides` finds their libraries.
`remote` has the paths of files elsewhere, which `storage` fetches; `remote_tensors` reads safetensors there.
"""

from hdgan.files.atomic import atomic_file, atomic_folder, new_files, remove_folder, rename_folder, save_png, write_text
from hdgan.files.opening import create_empty, leads_out, require_file, require_no_file, same_path
from hdgan.files.temporaries import remove_dead, remove_dead_below

__all__ = [
    "atomic_file",
    "atomic_folder",
    "create_empty",
    "leads_out",
    "new_files",
    "remove_dead",
    "remove_dead_below",
    "remove_folder",
    "rename_folder",
    "require_file",
    "require_no_file",
    "same_path",
    "save_png",
    "write_text",
]
