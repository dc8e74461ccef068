"""The page of the editor: what it shows (workspace.*), what it may send, and the server.

Gradio carries the requests and takes the uploads. Only `app` imports it.
"""
