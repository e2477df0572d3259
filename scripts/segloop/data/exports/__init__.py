"""Writers for the collected set, and for any labelled set; what a format cannot hold is counted and named.

What a person can choose stands here, so that the command line knows it without the libraries that write.
"""

from typing import Final, Literal, get_args

ImageMode = Literal["none", "link", "copy"]
Order = Literal["score", "small", "last"]
Join = Literal["none", "parts", "holes"]
IMAGE_MODES, ORDERS, JOINS = get_args(ImageMode), get_args(Order), get_args(Join)

FILES: Final = {
    "coco": "one COCO file, with score and provenance of each mask",
    "coco_results": "a list of masks and scores, as pycocotools' loadRes reads it",
    "lvis": "one file with the keys of LVIS",
}
FOLDERS: Final = {
    "coco_folder": "images and COCO file as FiftyOne, CVAT and datumaro read them",
    "yolo": "YOLO segmentation (polygons) as ultralytics reads it",
    "places_challenge": "instance PNGs of the Places Challenge 2017",
    "cityscapes": "PNGs in the style of Cityscapes",
    "open_images": "a table and one PNG a mask, as Open Images V5",
}
"""Formats of export, those of one file and those of a folder, and what each is."""


def usual_images(form: str) -> ImageMode:
    """Return what is done with the images when nobody says otherwise."""
    # Such a folder is packed and sent, and datumaro refuses links that lead out of it.
    return "none" if form in FILES else "copy" if form == "coco_folder" else "link"
