"""Cityscapes as its archives unpack: gtFine and leftImg8bit, each with a folder for every phase and city."""

from hdgan.data.layouts._layout import FolderLayout, Part

LAYOUT = FolderLayout(
    "cityscapes",
    Part("label", "gtFine/{}", ("_gtFine_labelIds", "_gtFine_labelTrainIds"), strict=True),
    Part("ids", "gtFine/{}", ("_gtFine_instanceIds",), strict=True),
    Part("photo", "leftImg8bit/{}", ("_leftImg8bit",), strict=True),
)
