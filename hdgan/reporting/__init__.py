"""HTML pages that are one file each: their shell, the images in them, and charts."""
