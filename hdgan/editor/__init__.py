"""The editor: label map, objects, styles and picture side by side in a web page (paper section 4.3).

`document` and `history` are what is edited, `session` is what a tab can do with it, `page` and `app` show it.
"""
