"""CRN (Chen and Koltun 2017, arXiv 1707.09405)."""
