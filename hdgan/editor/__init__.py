"""The editor of `hdgan edit`: label map, instances, styles and generated image in a web page (paper section 4.3).

document, history       what is edited, and undo
masks, storage          brush strokes and polygons; documents as files
context                 what all sessions share: model, palette, renderer, held-out samples, output folder
session, session_view   what one browser tab can do, and what its page shows of it
session_store           the sessions of all tabs, in memory or on disk
web                     the page, the checks of its requests, and the server
"""
