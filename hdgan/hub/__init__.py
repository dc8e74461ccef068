"""Models on the Hugging Face Hub: `hf:OWNER/NAME` for reading, and pushing a folder as one commit.

huggingface_hub is imported when a model of the hub is asked for, and not before.
"""

from hdgan.hub.download import fetch_model
from hdgan.hub.names import PREFIX, cached_name, hub_name, is_repository, require_repository
from hdgan.hub.upload import Destination, Pushed, open_destination

__all__ = [
    "PREFIX",
    "Destination",
    "Pushed",
    "cached_name",
    "fetch_model",
    "hub_name",
    "is_repository",
    "open_destination",
    "require_repository",
]
