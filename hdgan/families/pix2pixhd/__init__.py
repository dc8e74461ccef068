"""pix2pixHD (Wang et al. 2018, arXiv 1711.11585)."""
