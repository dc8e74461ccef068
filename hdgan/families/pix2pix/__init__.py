"""pix2pix (Isola et al. 2017, arXiv 1611.07004)."""
